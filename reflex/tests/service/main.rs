//! The service as a process, against a real broker.

mod bus;
mod cache;
mod commands;
mod harness;
mod http;
mod limits;
mod probes;
mod screening;
mod valkey;
