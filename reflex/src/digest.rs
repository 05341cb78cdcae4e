//! The keyed digest of a submission: tells a repeat from a conflict without keeping the text. Keyed, because the
//! digest of a short text can be guessed from the text.

use std::fmt;
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit, Mac};
use serde::Serialize;
use sha2::Sha256;

/// The key can't be used. The message never holds it.
#[derive(Debug, thiserror::Error)]
#[error("the digest key {} {reason}; set OCTO_REFLEX__DIGEST_KEY_FILE to a file of 64 hexadecimal digits", path.display())]
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

    /// HMAC-SHA256 over the canonical JSON (RFC 8785) of `document`, in lower-case hexadecimal.
    pub fn digest(&self, document: &impl Serialize) -> String {
        let canonical = serde_json_canonicalizer::to_vec(document)
            .expect("a parsed document is representable as JSON");
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(&canonical);
        hex::encode(mac.finalize().into_bytes())
    }
}

impl fmt::Debug for DigestKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("DigestKey(…)")
    }
}
