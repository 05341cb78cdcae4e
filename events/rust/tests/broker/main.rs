//! The crate against a real nats-server.

mod accounts;
mod append;
mod connection;
mod consume;
mod facts;
mod follow;
mod proxy;
mod read;
