//! The executor's own key pair, and the public keys that receipts are verified with.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};

const PRIVATE_PREFIX: &str = "ed25519-private/";
const PUBLIC_PREFIX: &str = "ed25519/";
/// Bytes of a public key's digest that name it.
const ID_BYTES: usize = 8;

/// A key file can't be used. The message never holds a private key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Nobody says which key signs.
    #[error(
        "no key signs receipts: set OCTO_EXECUTOR__RECEIPT_KEY_FILE to a file with an Ed25519 private key (octo up makes \
         it: keys/receipt.key)"
    )]
    Missing,
    /// The file is not as it must be.
    #[error("the receipt key {} {reason}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// What signs receipts.
#[derive(Clone)]
pub struct Key {
    key: SigningKey,
    id: String,
}

impl Key {
    /// Reads the key, `ed25519-private/` and 64 hexadecimal digits, from a file that only its owner may read.
    ///
    /// # Errors
    /// [`KeyError`]; the executor must not start with a key that others may know.
    pub fn load(path: Option<&Path>) -> Result<Self, KeyError> {
        let path = path.ok_or(KeyError::Missing)?;
        let mut file = File::open(path).map_err(|error| unreadable(path, &error))?;
        let metadata = file.metadata().map_err(|error| unreadable(path, &error))?;
        if metadata.permissions().mode() & 0o077 != 0 {
            let reason = "may be read by others; make its mode 0600 (chmod 600)".to_owned();
            return Err(unusable(path, reason));
        }
        let mut text = String::new();
        file.read_to_string(&mut text)
            .map_err(|error| unreadable(path, &error))?;
        let seed = hex32(text.trim(), PRIVATE_PREFIX).ok_or_else(|| {
            let form = format!("holds no key ({PRIVATE_PREFIX} and 64 hexadecimal digits)");
            unusable(path, form)
        })?;
        Ok(Self::from_seed(&seed))
    }

    /// As [`Key::load`]; where there is no such file, a new key is made and kept there, with its public half beside it
    /// (`.pub`). Of two who make it at once, one makes it, and the other reads it.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn load_or_make(path: &Path) -> Result<Self, KeyError> {
        let failed = |error: std::io::Error| unusable(path, format!("can't be made: {error}"));
        if !path.exists() {
            let mut seed = [0; 32];
            File::open("/dev/urandom")
                .and_then(|mut random| random.read_exact(&mut seed))
                .map_err(failed)?;
            // It appears whole, under a name that was free.
            let directory = path.parent().unwrap_or(Path::new("."));
            let part = directory.join(format!(".receipt-{}.part", uuid::Uuid::new_v4()));
            let made = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&part)
                .and_then(|mut file| {
                    write!(file, "{PRIVATE_PREFIX}{}", hex::encode(seed))?;
                    file.sync_all()
                })
                .and_then(|()| std::fs::hard_link(&part, path));
            let _ = std::fs::remove_file(&part);
            match made {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                    return Err(failed(error));
                }
                _ => {}
            }
        }
        let key = Self::load(Some(path))?;
        let public = path.with_extension("pub");
        if !public.exists() {
            std::fs::write(&public, format!("{}\n", key.public())).map_err(failed)?;
        }
        Ok(key)
    }

    /// The key of these 32 bytes.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let key = SigningKey::from_bytes(seed);
        let id = key_id(&key.verifying_key());
        Self { key, id }
    }

    /// Names the key: the first 8 bytes of the SHA-256 of its public half, hexadecimal.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What verifies, `ed25519/` and 64 hexadecimal digits.
    #[must_use]
    pub fn public(&self) -> String {
        let public = self.key.verifying_key();
        format!("{PUBLIC_PREFIX}{}", hex::encode(public.as_bytes()))
    }

    /// The 64 bytes of the signature; the same for the same message.
    pub(super) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Key({})", self.id)
    }
}

/// What verifies receipts: any number of keys, so that a key can be replaced; a receipt's key id chooses.
#[derive(Clone, Debug, Default)]
pub struct PublicKeys(BTreeMap<String, VerifyingKey>);

impl PublicKeys {
    /// Parses keys, one on a line; empty lines and those that begin with `#` are passed over.
    ///
    /// # Errors
    /// The number of the first line that is no key.
    pub fn parse(text: &str) -> Result<Self, usize> {
        let mut keys = BTreeMap::new();
        for (number, line) in (1_usize..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let key = hex32(line, PUBLIC_PREFIX)
                .and_then(|bytes| VerifyingKey::from_bytes(&bytes).ok())
                .ok_or(number)?;
            keys.insert(key_id(&key), key);
        }
        Ok(Self(keys))
    }

    pub(super) fn get(&self, id: &str) -> Option<&VerifyingKey> {
        self.0.get(id)
    }
}

fn key_id(key: &VerifyingKey) -> String {
    hex::encode(&Sha256::digest(key.as_bytes())[..ID_BYTES])
}

fn hex32(text: &str, prefix: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text.strip_prefix(prefix)?, &mut bytes).ok()?;
    Some(bytes)
}

fn unreadable(path: &Path, error: &std::io::Error) -> KeyError {
    unusable(path, format!("can't be read: {error}"))
}

fn unusable(path: &Path, reason: String) -> KeyError {
    KeyError::Unusable {
        path: path.to_owned(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions, write};

    use super::*;

    #[test]
    fn a_key_is_made_once_and_closed_to_others() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("receipt.key");
        let made = Key::load_or_make(&path).unwrap();
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(Key::load_or_make(&path).unwrap().id(), made.id());
        let public = std::fs::read_to_string(path.with_extension("pub")).unwrap();
        assert_eq!(public.trim(), made.public());
        assert!(PublicKeys::parse(&public).unwrap().get(made.id()).is_some());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2);
        let other = Key::load_or_make(&directory.path().join("other.key")).unwrap();
        assert_ne!(other.id(), made.id());
    }

    #[test]
    fn a_key_that_others_may_know_or_that_is_none_is_refused_and_not_shown() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("receipt.key");
        let good = format!("{PRIVATE_PREFIX}{}", "12".repeat(32));
        for (text, mode, complaint) in [
            (good.as_str(), 0o640, "others"),
            (&good[..good.len() - 1], 0o600, "no key"),
            ("", 0o600, "no key"),
        ] {
            write(&path, text).unwrap();
            set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let error = Key::load(Some(&path)).unwrap_err().to_string();
            assert!(
                error.contains(complaint) && !error.contains("1212"),
                "{error}"
            );
        }
        let missing = Key::load(None).unwrap_err().to_string();
        assert!(missing.contains("OCTO_EXECUTOR__RECEIPT_KEY_FILE"));
        let key = Key::from_seed(&[0x12; 32]);
        assert_eq!(format!("{key:?}"), format!("Key({})", key.id()));
    }

    #[test]
    fn several_keys_are_known_and_what_is_none_is_told() {
        let (one, two) = (Key::from_seed(&[1; 32]), Key::from_seed(&[2; 32]));
        let text = format!("# the new one\n{}\n\n{}\n", one.public(), two.public());
        let keys = PublicKeys::parse(&text).unwrap();
        assert!(keys.get(one.id()).is_some() && keys.get(two.id()).is_some());
        assert_eq!(PublicKeys::parse("\ned25519/00\n").unwrap_err(), 2);
    }
}
