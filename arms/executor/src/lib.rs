//! The executor arm: runs one step of a task in a sandbox and reports what happened.
//!
//! A step's way: its [`action`] is parsed, the [`policy`] says whether it may run, the [`sandbox`] runs it in the
//! task's [`workspace`], and its [`criterion`]s decide whether it succeeded. [`step`] puts these together, [`report`]
//! makes the event that records the outcome, and [`service`] connects all of it to the bus. [`exec`] is one step on the
//! command line, without any of that around it.
#![deny(unsafe_code)]

pub mod action;
pub mod capability;
pub mod criterion;
pub mod exec;
pub mod http;
pub mod policy;
pub mod receipt;
pub mod report;
pub mod sandbox;
pub mod service;
pub mod step;
pub mod workspace;
