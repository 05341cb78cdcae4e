//! The contract that all services share, in Rust: `events/README.md` is the specification.
//!
//! * [`carrier`] the generated payload types; [`schema`] decides whether a payload is valid
//! * [`envelope`] stored and new events, positions, ids, the hash chain
//! * [`chain`] verifies the hash chain over exported events
//! * [`bus`] the connection; [`publish`] into a stream; [`log`] append, read, follow; [`consumer`] durable deliveries
//! * [`streams`] makes streams and consumers; [`config`], [`errors`], [`service`] are what every service needs
//! * [`durability`] (feature `http`) whether acknowledged means on disk
//! * [`failpoint`] named points at which a test kills a service
//! * [`testing`] (feature `testing`) starts a real broker

pub mod bus;
pub mod carrier;
pub mod chain;
pub mod config;
pub mod consumer;
#[cfg(feature = "http")]
pub mod durability;
pub mod envelope;
pub mod errors;
pub mod failpoint;
pub mod gate;
pub mod log;
pub mod publish;
mod pull;
pub mod schema;
pub mod service;
pub mod streams;
#[cfg(feature = "testing")]
pub mod testing;

pub use bus::Bus;
pub use consumer::{Consumer, Delivery, Unhandled};
pub use envelope::{Event, NewEvent, Position};
pub use log::{AppendError, Log};
pub use schema::{Payload, SchemaViolation};
