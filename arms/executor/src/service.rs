//! The executor on the bus: takes dispatches, has them run, puts on record what became of them.
//!
//! Everything is level-triggered: a delivery says that a step *may* have to run, the task's log says whether it does.
//! So a delivery that comes twice, late, or to the wrong executor does no harm.

mod artifacts;
mod cancel;
pub mod claim;
mod dispatch;
mod engine;
pub mod execute;
mod files;
mod late;
pub mod metrics;
mod newest;
pub mod notary;
pub mod operator;
mod recall;
mod record;
mod replay;
mod retention;
pub mod settings;
pub mod snapshots;
mod standing;
pub mod watch;
mod worker;

pub use cancel::listen;
pub use engine::Engine;
pub use retention::Retention;
pub use standing::Attempt;
pub use worker::{Worker, serve};
