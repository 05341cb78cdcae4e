//! Capabilities as the orchestrator signs them, with the key that the contract's vectors publish.

use biscuit_auth::macros::{biscuit, block};
use biscuit_auth::{KeyPair, PrivateKey};
use octollm_executor::capability::action_digest;
use serde_json::Value;
use std::time::{Duration, SystemTime};
use uuid::Uuid;

/// Verifies what [`sign`] signs.
pub fn public_key() -> String {
    vectors()["public_key"].as_str().unwrap().to_owned()
}

fn vectors() -> Value {
    let vectors = include_str!("../../../../events/corpus/capability/tokens.json");
    serde_json::from_str(vectors).unwrap()
}

/// What a token states.
#[derive(Clone)]
pub struct Grant {
    pub audience: String,
    pub task: Uuid,
    pub plan: i64,
    pub attempt: i64,
    /// As in a dispatch: its id, action, effect and limits are granted.
    pub step: Value,
    pub expiry: SystemTime,
}

impl Grant {
    /// The first attempt of a step, for an hour.
    pub fn new(audience: &str, task: Uuid, step: &Value) -> Self {
        Self {
            audience: audience.to_owned(),
            task,
            plan: 1,
            attempt: 1,
            step: step.clone(),
            expiry: SystemTime::now() + Duration::from_secs(3600),
        }
    }

    /// The token, signed by the orchestrator.
    pub fn sign(&self) -> String {
        let key: PrivateKey = vectors()["private_key"].as_str().unwrap().parse().unwrap();
        self.sign_with(&KeyPair::from(&key))
    }

    /// The token, signed by whomever.
    pub fn sign_with(&self, key: &KeyPair) -> String {
        let Self {
            audience,
            plan,
            attempt,
            step,
            expiry,
            ..
        } = self;
        let (audience, plan, attempt, expiry) = (audience.as_str(), *plan, *attempt, *expiry);
        let task = self.task.to_string();
        let id = step["id"].as_str().unwrap();
        let action = action_digest(&step["action"]);
        let effect = step["effect"].as_str().unwrap();
        let mut builder = biscuit!(
            r#"audience({audience}); task({task}); plan({plan}); step({id}); attempt({attempt}); purpose("run");
               action({action}); effect({effect}); check if time($now), $now < {expiry};"#
        );
        for (name, limit) in step["limits"].as_object().unwrap() {
            let (name, limit) = (name.as_str(), limit.as_i64().unwrap());
            builder = builder.merge(block!("limit({name}, {limit});"));
        }
        builder.build(key).unwrap().to_base64().unwrap()
    }
}
