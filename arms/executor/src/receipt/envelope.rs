//! The envelope: what is signed, how it hangs on a result, and how it is opened again.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::Signature;
use octollm_events::carrier::{ReceiptEnvelope, ReceiptSignature, ReceiptStatement};
use octollm_events::schema;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::key::{Key, PublicKeys};

/// The name of the member that carries a receipt, the last of its result.
pub const MEMBER: &str = "receipt";
const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// Why an envelope is not believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It has not the form of an envelope, or what it holds has not that of a receipt.
    Malformed(&'static str),
    /// None of the keys at hand is the one that it names.
    UnknownKey(String),
    /// The key that it names has not signed this.
    BadSignature,
}

/// What an envelope holds whose signature is good.
#[derive(Debug, Clone, PartialEq)]
pub struct Opened {
    /// What was signed.
    pub statement: ReceiptStatement,
    /// Which key has signed it.
    pub key_id: String,
}

/// DSSE's pre-authentication encoding.
fn pre_authentication(payload: &[u8]) -> Vec<u8> {
    let head = format!(
        "DSSEv1 {} {PAYLOAD_TYPE} {} ",
        PAYLOAD_TYPE.len(),
        payload.len()
    );
    [head.as_bytes(), payload].concat()
}

/// Signs a statement that is in RFC 8785 form.
pub(super) fn seal(statement: &[u8], key: &Key) -> ReceiptEnvelope {
    let signature = key.sign(&pre_authentication(statement));
    ReceiptEnvelope {
        payload: STANDARD.encode(statement),
        payloadType: PAYLOAD_TYPE.to_owned(),
        signatures: vec![ReceiptSignature {
            keyid: key.id().to_owned(),
            sig: STANDARD.encode(signature),
        }],
    }
}

/// SHA-256, hexadecimal, of the envelope's RFC 8785 form: what the task's next receipt names.
#[must_use]
pub fn digest(envelope: &ReceiptEnvelope) -> String {
    hex::encode(Sha256::digest(text(envelope)))
}

/// The envelope in RFC 8785 form.
pub(super) fn text(envelope: &ReceiptEnvelope) -> Vec<u8> {
    // Strings and arrays of them: nothing in it can fail to be written.
    serde_json_canonicalizer::to_vec(envelope).unwrap_or_default()
}

/// The result, a JSON object, with its receipt as the last member; not a byte of the result is another.
#[must_use]
pub fn attach(result: &[u8], envelope: &ReceiptEnvelope) -> Vec<u8> {
    let open = result.strip_suffix(b"}").unwrap_or(result);
    [open, &tail(envelope)].concat()
}

/// What a receipt adds to its result, with the brace that ends both.
pub(super) fn tail(envelope: &ReceiptEnvelope) -> Vec<u8> {
    let name = format!(",\"{MEMBER}\":");
    [name.as_bytes(), &text(envelope), b"}"].concat()
}

/// Opens an envelope with one of the keys.
///
/// # Errors
/// [`Fault`]: nothing that it says is to be believed.
pub fn open(envelope: &ReceiptEnvelope, keys: &PublicKeys) -> Result<Opened, Fault> {
    let [signature] = envelope.signatures.as_slice() else {
        return Err(Fault::Malformed("the envelope needs one signature"));
    };
    if envelope.payloadType != PAYLOAD_TYPE {
        return Err(Fault::Malformed("the envelope names another payload type"));
    }
    // The engine refuses what it would not write itself, so no two texts stand for the same bytes.
    let payload = STANDARD
        .decode(&envelope.payload)
        .map_err(|_| Fault::Malformed("the payload is no base64"))?;
    let key = keys
        .get(&signature.keyid)
        .ok_or_else(|| Fault::UnknownKey(signature.keyid.clone()))?;
    let bytes: [u8; 64] = STANDARD
        .decode(&signature.sig)
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or(Fault::Malformed("the signature is no base64 of 64 bytes"))?;
    key.verify_strict(
        &pre_authentication(&payload),
        &Signature::from_bytes(&bytes),
    )
    .map_err(|_| Fault::BadSignature)?;
    Ok(Opened {
        statement: statement(&payload)
            .ok_or(Fault::Malformed("what was signed has not a receipt's form"))?,
        key_id: signature.keyid.clone(),
    })
}

fn statement(payload: &[u8]) -> Option<ReceiptStatement> {
    let value: Value = serde_json::from_slice(payload).ok()?;
    schema::validate(schema::RECEIPT, &value).ok()?;
    let canonical = serde_json_canonicalizer::to_vec(&value).ok()?;
    (canonical == payload).then_some(())?;
    serde_json::from_value(value).ok()
}
