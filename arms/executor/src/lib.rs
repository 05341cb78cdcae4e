//! The executor arm: runs one step of a task in a sandbox and reports what happened.
//!
//! A step's way: its [`action`] is parsed, the [`policy`] says whether it may run, the [`sandbox`] runs it in the
//! task's [`workspace`], and its [`criterion`]s decide whether it succeeded.
#![deny(unsafe_code)]

pub mod action;
pub mod criterion;
pub mod policy;
pub mod sandbox;
pub mod workspace;
