//! Receipts: what was executed, under which conditions, and what came of it, signed (docs/decisions/0014).
//!
//! A receipt is an [in-toto](https://github.com/in-toto/attestation) statement in a
//! [DSSE](https://github.com/secure-systems-lab/dsse) envelope, signed with Ed25519. Every attempt gets one, those that
//! were refused or ended by force included. [`sign`] needs neither broker nor log; [`verify`] nothing but the public
//! keys. `octollm.events.receipt` comes to the same findings on the same events.

mod envelope;
mod evidence;
mod finding;
mod key;
mod verify;

pub use envelope::{Fault, MEMBER, Opened, attach, digest, open};
pub use evidence::{Evidence, SigningError, Terms, sign};
pub use finding::{Code, Finding, TaskReport};
pub use key::{Key, KeyError, PublicKeys};
pub use verify::verify;

/// Bytes that a receipt may take of the message that carries it.
pub const MAX_BYTES: usize = 16 * 1024 + 256;
