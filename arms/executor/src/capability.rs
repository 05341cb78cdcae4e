//! Capabilities: what the orchestrator has granted one attempt of one step, signed (docs/decisions/0009).
//!
//! A capability is a [Biscuit](https://www.biscuitsec.org) token whose one block states the grant as facts. Anybody may
//! append blocks to a Biscuit, and these can only narrow it. Here none is taken: nobody appends any, and the library looks
//! at its time limit between rounds only, so that one appended rule of 4 KiB could keep a core busy for minutes.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use biscuit_auth::builder::{AuthorizerBuilder, Check};
use biscuit_auth::error::{FailedCheck, Format, Logic, Token as TokenError};
use biscuit_auth::macros::{authorizer, check};
use biscuit_auth::{AuthorizerLimits, Biscuit, PublicKey};
use octollm_events::carrier::{ErrorCode, StepDispatched};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::step::Failure;

/// Bytes of a token, at most; as the schema of `step.dispatched` says.
pub const MAX_TOKEN_BYTES: usize = 4096;
/// What the evaluation of one token may take; a good one has a dozen facts and no rule. Facts and iterations bound the
/// work. The time is that of the wall clock, which runs on while a busy machine runs something else (the library's own
/// 1 ms, and 100 ms too, refused good tokens): only the orchestrator's tokens get this far, so it can be long.
const BOUNDS: AuthorizerLimits = AuthorizerLimits {
    max_facts: 100,
    max_iterations: 10,
    max_time: Duration::from_secs(10),
};
const ALGORITHM: &str = "ed25519/";

/// The audience of what comes over the bus.
pub const DISPATCH: &str = "executor";
/// The audience of what comes over HTTP.
pub const EXECUTE: &str = "executor/execute";

/// The key file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Nobody says which key verifies.
    #[error(
        "no key verifies capabilities: set OCTO_EXECUTOR__CAPABILITY_PUBLIC_KEY_FILE to the file with the public key of \
         the orchestrator (octo up makes it: keys/capability.pub)"
    )]
    Missing,
    /// It can't be read.
    #[error("{} can't be read; check OCTO_EXECUTOR__CAPABILITY_PUBLIC_KEY_FILE", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It holds something else.
    #[error("{} holds no Ed25519 public key (ed25519/ and 64 hexadecimal digits)", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
    },
}

/// What a token is presented for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Use {
    /// [`DISPATCH`] or [`EXECUTE`].
    pub audience: String,
    /// The task.
    pub task: Uuid,
    /// Version of the plan.
    pub plan: u64,
    /// The step.
    pub step: String,
    /// From 1.
    pub attempt: u64,
    /// `run`.
    pub purpose: String,
    /// [`action_digest`] of the step's action.
    pub action: String,
    /// `pure`, `idempotent` or `side_effecting`.
    pub effect: String,
    /// The step's limits by name; a token must grant as much of each.
    pub limits: BTreeMap<String, u64>,
}

impl Use {
    /// The use that a `step.dispatched` makes of the token in it. `body` is its payload as it was received: what was
    /// granted is the action as it stands there, not as this executor would write it.
    #[must_use]
    pub fn of(audience: &str, task: Uuid, dispatched: &StepDispatched, body: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Body {
            step: Step,
        }
        #[derive(Deserialize)]
        struct Step {
            action: Value,
        }
        let step = &dispatched.step;
        let action = serde_json::from_slice::<Body>(body).map(|body| body.step.action);
        let limits = [
            ("wall_ms", step.limits.wall_ms),
            ("memory_bytes", step.limits.memory_bytes),
            ("output_bytes", step.limits.output_bytes),
        ];
        Self {
            audience: audience.to_owned(),
            task,
            plan: dispatched.plan_version,
            step: step.id.clone(),
            attempt: dispatched.attempt,
            purpose: dispatched.purpose.to_string(),
            // No token states an empty digest, so what can't be read is not granted.
            action: action
                .map(|action| action_digest(&action))
                .unwrap_or_default(),
            effect: step.effect.to_string(),
            limits: limits.map(|(name, limit)| (name.to_owned(), limit)).into(),
        }
    }
}

/// SHA-256, hexadecimal, of the action's canonical form (RFC 8785); empty where it has none.
#[must_use]
pub fn action_digest(action: &Value) -> String {
    serde_json_canonicalizer::to_vec(action)
        .map(|canonical| hex::encode(Sha256::digest(canonical)))
        .unwrap_or_default()
}

/// A token that grants what it was presented for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Names the token, hexadecimal: the digest of its signature (its revocation identifier).
    pub id: String,
}

/// A property that a token was found to lack.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Property {
    /// It is no token.
    Form,
    /// The orchestrator has not signed it, or it was changed since.
    Signature,
    /// A statement of the grant, by its name: `audience`, `task`, `plan`, `step`, `attempt`, `purpose`, `action`, `effect`.
    Statement(&'static str),
    /// A limit, by its name.
    Limit(String),
    /// Its time is over.
    Expiry,
    /// It is good for longer than its use can be remembered.
    Lifetime,
    /// Somebody has appended a block.
    Attenuation,
    /// It can't be evaluated within bounds.
    Evaluation,
}

impl fmt::Display for Property {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form => formatter.write_str("form"),
            Self::Signature => formatter.write_str("signature"),
            Self::Statement(name) => formatter.write_str(name),
            Self::Limit(name) => write!(formatter, "limit {name}"),
            Self::Expiry => formatter.write_str("expiry"),
            Self::Lifetime => formatter.write_str("lifetime"),
            Self::Attenuation => formatter.write_str("attenuation"),
            Self::Evaluation => formatter.write_str("evaluation"),
        }
    }
}

/// A token does not grant what it was presented for. Says which properties don't fit, and nothing that is in the token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the capability does not grant this: {} does not fit",
    names(properties)
)]
pub struct Violation {
    properties: Vec<Property>,
}

impl Violation {
    /// What does not fit; never empty.
    #[must_use]
    pub fn properties(&self) -> &[Property] {
        &self.properties
    }

    /// Whether it would have been good earlier.
    #[must_use]
    pub fn is_expiry(&self) -> bool {
        self.properties == [Property::Expiry]
    }
}

impl From<Property> for Violation {
    fn from(property: Property) -> Self {
        Self {
            properties: vec![property],
        }
    }
}

impl From<Violation> for Failure {
    fn from(violation: Violation) -> Self {
        Self {
            code: ErrorCode::CapabilityViolation,
            message: format!(
                "{violation}; nothing was started. Look for a forged or altered dispatch"
            ),
            violations: violation
                .properties
                .iter()
                .map(|property| format!("capability: {property}"))
                .collect(),
        }
    }
}

fn names(properties: &[Property]) -> String {
    let names: Vec<String> = properties.iter().map(Property::to_string).collect();
    names.join(", ")
}

/// Verifies capabilities with the orchestrator's public key.
#[derive(Debug, Clone)]
pub struct Verifier {
    key: PublicKey,
}

impl Verifier {
    /// The key in a file: `ed25519/` and 64 hexadecimal digits.
    ///
    /// # Errors
    /// [`KeyError`]; without a key the executor must not start.
    pub fn load(path: Option<&Path>) -> Result<Self, KeyError> {
        let path = path.ok_or(KeyError::Missing)?;
        let text = std::fs::read_to_string(path).map_err(|source| KeyError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(text.trim()).ok_or_else(|| KeyError::Invalid {
            path: path.to_owned(),
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let is_ed25519 = text.starts_with(ALGORITHM);
        let key = text.parse().ok().filter(|_| is_ed25519)?;
        Some(Self { key })
    }

    /// Whether the token grants this use at this time.
    ///
    /// # Errors
    /// [`Violation`] names every property that does not fit.
    pub fn verify(&self, token: &str, asked: &Use, now: SystemTime) -> Result<Grant, Violation> {
        let token = self.read(token)?;
        evaluate(&token, asked, now)?;
        let signature = token.revocation_identifiers().into_iter().next();
        Ok(Grant {
            id: hex::encode(Sha256::digest(signature.ok_or(Property::Form)?)),
        })
    }

    /// As [`verify`](Self::verify), and the token must have expired when `memory` is over: whoever remembers its use
    /// for that long can refuse every second one.
    ///
    /// # Errors
    /// As there.
    pub fn verify_within(
        &self,
        token: &str,
        asked: &Use,
        now: SystemTime,
        memory: Duration,
    ) -> Result<Grant, Violation> {
        let grant = self.verify(token, asked, now)?;
        match evaluate(&self.read(token)?, asked, now + memory) {
            Err(violation) if violation.properties.contains(&Property::Expiry) => Ok(grant),
            _ => Err(Property::Lifetime.into()),
        }
    }

    fn read(&self, token: &str) -> Result<Biscuit, Violation> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Property::Form.into());
        }
        let token = Biscuit::from_base64(token, self.key).map_err(|error| match error {
            TokenError::Format(Format::Signature(_)) => Property::Signature,
            _ => Property::Form,
        })?;
        match token.block_count() {
            1 => Ok(token),
            _ => Err(Property::Attenuation.into()),
        }
    }
}

fn evaluate(token: &Biscuit, asked: &Use, now: SystemTime) -> Result<(), Violation> {
    let checks = checks(asked).ok_or(Property::Evaluation)?;
    let (properties, checks): (Vec<Property>, Vec<Check>) = checks.into_iter().unzip();
    let unevaluable = |_| Violation::from(Property::Evaluation);
    let outcome = checks
        .into_iter()
        .try_fold(ambient(now), AuthorizerBuilder::check)
        .map_err(unevaluable)?
        .set_limits(BOUNDS)
        .build(token)
        .map_err(unevaluable)?
        .authorize();
    let failed = match outcome {
        Ok(_) => return Ok(()),
        Err(TokenError::FailedLogic(
            Logic::Unauthorized { checks, .. } | Logic::NoMatchingPolicy { checks },
        )) => checks,
        Err(_) => return Err(Property::Evaluation.into()),
    };
    let mut found: Vec<Property> = failed
        .into_iter()
        .map(|check| match check {
            FailedCheck::Authorizer(own) => properties
                .get(own.check_id as usize)
                .cloned()
                .unwrap_or(Property::Evaluation),
            // The token's own check is on the time.
            FailedCheck::Block(_) => Property::Expiry,
        })
        .collect();
    found.dedup();
    Err(Violation { properties: found })
}

fn ambient(now: SystemTime) -> AuthorizerBuilder {
    authorizer!("time({now}); allow if true;")
}

/// One check for each property; none where a number is beyond Datalog's integers.
fn checks(asked: &Use) -> Option<Vec<(Property, Check)>> {
    let Use {
        audience,
        step,
        purpose,
        action,
        effect,
        ..
    } = asked;
    let (audience, step, purpose) = (audience.as_str(), step.as_str(), purpose.as_str());
    let (action, effect) = (action.as_str(), effect.as_str());
    let task = asked.task.to_string();
    let plan = i64::try_from(asked.plan).ok()?;
    let attempt = i64::try_from(asked.attempt).ok()?;
    let stated = [
        ("audience", check!("check if audience({audience})")),
        ("task", check!("check if task({task})")),
        ("plan", check!("check if plan({plan})")),
        ("step", check!("check if step({step})")),
        ("attempt", check!("check if attempt({attempt})")),
        ("purpose", check!("check if purpose({purpose})")),
        ("action", check!("check if action({action})")),
        ("effect", check!("check if effect({effect})")),
    ];
    let mut checks: Vec<(Property, Check)> = stated
        .into_iter()
        .map(|(name, check)| (Property::Statement(name), check))
        .collect();
    for (name, claimed) in &asked.limits {
        let claimed = i64::try_from(*claimed).ok()?;
        let limit = name.as_str();
        let check = check!("check if limit({limit}, $granted), $granted >= {claimed}");
        checks.push((Property::Limit(name.clone()), check));
    }
    Some(checks)
}

#[cfg(test)]
mod tests;
