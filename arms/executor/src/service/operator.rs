//! The operator's key: what `/api/v1/execute` asks for besides a capability.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Characters of a key, at least: 128 bits in hexadecimal.
const LENGTH: usize = 32;
const SCHEME: &str = "Bearer ";

/// The key can't be used. The message never holds it.
#[derive(Debug, thiserror::Error)]
#[error("the operator's key {} {reason} (OCTO_EXECUTOR__OPERATOR_KEY_FILE)", path.display())]
pub struct OperatorKeyError {
    path: PathBuf,
    reason: String,
}

/// A key, known by its digest.
#[derive(Clone)]
pub struct OperatorKey([u8; 32]);

impl OperatorKey {
    /// Reads the key from a file that only its owner may read; white space around it is ignored.
    ///
    /// # Errors
    /// [`OperatorKeyError`]; the executor must not start with a key that others may know.
    pub fn load(path: &Path) -> Result<Self, OperatorKeyError> {
        let failed = |reason: String| OperatorKeyError {
            path: path.to_owned(),
            reason,
        };
        let unreadable = |error: std::io::Error| failed(format!("can't be read: {error}"));
        let mut file = File::open(path).map_err(unreadable)?;
        let mode = file.metadata().map_err(unreadable)?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(failed(
                "may be read by others; make its mode 0600 (chmod 600)".to_owned(),
            ));
        }
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(unreadable)?;
        let key = text.trim();
        if key.len() < LENGTH || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(failed(format!(
                "holds no key of at least {LENGTH} characters"
            )));
        }
        Ok(Self(Sha256::digest(key).into()))
    }

    /// Whether a header `authorization` brings the key; takes as long for every wrong one.
    #[must_use]
    pub fn admits(&self, authorization: Option<&str>) -> bool {
        let given = authorization.and_then(|text| text.strip_prefix(SCHEME));
        given.is_some_and(|key| Sha256::digest(key).ct_eq(&self.0).into())
    }
}

impl fmt::Debug for OperatorKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("OperatorKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions, write};

    use super::*;

    #[test]
    fn only_the_very_key_is_admitted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("operator.key");
        let key = "0123456789abcdef0123456789abcdef";
        write(&path, format!("{key}\n")).unwrap();
        set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let operator = OperatorKey::load(&path).unwrap();
        assert!(operator.admits(Some(&format!("Bearer {key}"))));
        for wrong in [
            None,
            Some(""),
            Some("Bearer "),
            Some(key),
            Some("Bearer 0123456789abcdef0123456789abcdee"),
            Some("Basic 0123456789abcdef0123456789abcdef"),
        ] {
            assert!(!operator.admits(wrong), "{wrong:?}");
        }
        let longer = format!("Bearer {key}0");
        assert!(!operator.admits(Some(&longer)));
        assert_eq!(format!("{operator:?}"), "OperatorKey(…)");
    }

    #[test]
    fn a_key_that_others_may_know_is_refused_and_not_shown() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("operator.key");
        for (text, mode, complaint) in [
            ("0123456789abcdef0123456789abcdef", 0o640, "others"),
            ("0123456789abcdef0123456789abcdef", 0o604, "others"),
            ("0123456789abcdef", 0o600, "no key"),
            ("0123456789abcdef 0123456789abcdef", 0o600, "no key"),
        ] {
            write(&path, text).unwrap();
            set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let error = OperatorKey::load(&path).unwrap_err().to_string();
            assert!(
                error.contains(complaint) && !error.contains("0123"),
                "{error}"
            );
        }
        let missing = OperatorKey::load(&directory.path().join("none")).unwrap_err();
        assert!(missing.to_string().contains("can't be read"));
    }
}
