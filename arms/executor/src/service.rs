//! The executor on the bus: takes dispatches, has them run, puts on record what became of them.
//!
//! Everything is level-triggered: a delivery says that a step *may* have to run, the task's log says whether it does.
//! So a delivery that comes twice, late, or to the wrong executor does no harm.

mod cancel;
mod claim;
mod files;
pub mod metrics;
mod recall;
pub mod settings;
mod standing;
pub mod watch;
mod worker;

pub use cancel::listen;
pub use claim::Claims;
pub use worker::{Worker, serve};
