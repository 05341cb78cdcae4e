//! `octo exec`: one action in the sandbox, on the word of whoever sits at this machine. No broker, no database;
//! the key that signs the answers' receipts is made where there is none.
//!
//! A [`Request`] is read strictly, an [`Engine`] runs it with the parts that run a task's steps, and the [`Answer`] is
//! one JSON document. What is refused here has started nothing.

mod answer;
mod arguments;
mod collect;
mod engine;
mod environment;
mod json;
mod limits;
mod notary;
mod request;
mod space;

pub use answer::{Answer, Artifact, Refusal, Status};
pub use arguments::{Arguments, Backend, main, misused};
pub use engine::{Admission, Engine};
pub use limits::LimitsRequest;
pub use request::{MAX_REQUEST_BYTES, Request};
pub use space::{Space, TaskName};
