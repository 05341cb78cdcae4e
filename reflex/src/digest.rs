//! The keyed digest of a submission: tells a repeat from a conflict without keeping the text. Keyed, because the
//! digest of a short text can be guessed from the text.

use std::fmt;
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit, Mac};
use serde::Serialize;
use sha2::Sha256;

/// The key can't be used. The message never holds it.
#[derive(Debug, thiserror::Error)]
#[error("the key {} {reason}; a file of 64 hexadecimal digits is wanted (OCTO_REFLEX__DIGEST_KEY_FILE of the service)", path.display())]
pub struct KeyError {
    path: PathBuf,
    reason: String,
}

/// A key of 32 bytes.
#[derive(Clone)]
pub struct DigestKey([u8; 32]);

impl DigestKey {
    /// Reads 64 hexadecimal digits; white space around them is ignored.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let failed = |reason: String| KeyError {
            path: path.to_owned(),
            reason,
        };
        let text = std::fs::read_to_string(path)
            .map_err(|error| failed(format!("can't be read: {error}")))?;
        let mut key = [0; 32];
        hex::decode_to_slice(text.trim(), &mut key)
            .map_err(|_| failed("has the wrong form".to_owned()))?;
        Ok(Self(key))
    }

    /// A key for another purpose, which tells nothing of this one.
    pub fn derive(&self, purpose: &str) -> Self {
        Self(self.mac(&[b"octollm reflex ", purpose.as_bytes()]))
    }

    /// HMAC-SHA256 over the parts, each after its length, so that no two lists of parts have one code.
    pub fn mac(&self, parts: &[&[u8]]) -> [u8; 32] {
        self.keyed(parts).finalize().into_bytes().into()
    }

    /// Whether `code` is that of the parts, in a time that tells nothing of it.
    pub fn verifies(&self, parts: &[&[u8]], code: &[u8]) -> bool {
        self.keyed(parts).verify_slice(code).is_ok()
    }

    fn keyed(&self, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut mac = self.hmac();
        for part in parts {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac
    }

    fn hmac(&self) -> Hmac<Sha256> {
        Hmac::new_from_slice(&self.0).expect("HMAC takes keys of any length")
    }

    /// HMAC-SHA256 over the canonical JSON (RFC 8785) of `document`, in lower-case hexadecimal.
    pub fn digest(&self, document: &impl Serialize) -> String {
        let canonical = serde_json_canonicalizer::to_vec(document)
            .expect("a parsed document is representable as JSON");
        let mut mac = self.hmac();
        mac.update(&canonical);
        hex::encode(mac.finalize().into_bytes())
    }
}

impl fmt::Debug for DigestKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("DigestKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_digest_depends_on_content_and_key_not_on_notation() {
        let (one, other) = (DigestKey([1; 32]), DigestKey([2; 32]));
        let parsed = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
        assert_eq!(
            one.digest(&parsed(r#"{"a":1,"b":1.0}"#)),
            one.digest(&parsed(r#"{ "b": 1, "a": 1e0 }"#))
        );
        assert_ne!(
            one.digest(&json!({ "a": 1 })),
            one.digest(&json!({ "a": 2 }))
        );
        assert_ne!(
            one.digest(&json!({ "a": 1 })),
            other.digest(&json!({ "a": 1 }))
        );
    }

    #[test]
    fn a_bad_key_is_named_and_not_shown() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("key");
        assert!(
            DigestKey::read(&path)
                .expect_err("missing")
                .to_string()
                .contains("can't be read")
        );
        std::fs::write(&path, "hunter2").expect("written");
        let error = DigestKey::read(&path).expect_err("too short").to_string();
        assert!(
            error.contains("wrong form") && !error.contains("hunter2"),
            "{error}"
        );
        std::fs::write(&path, format!("{}\n", "ab".repeat(32))).expect("written");
        let key = DigestKey::read(&path).expect("a key");
        assert_eq!(format!("{key:?}"), "DigestKey(…)");
    }
}
