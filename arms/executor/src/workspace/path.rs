//! Paths of the workspace.

use serde::{Deserialize, Serialize};

/// Characters of a path, at most.
const MAX_CHARACTERS: usize = 1024;

/// A path relative to the workspace: not empty, no leading slash, no empty, `.` or `..` component, no control
/// characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct WorkspacePath(String);

impl WorkspacePath {
    /// The path as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The directory that holds it (none: the workspace itself) and its own name.
    #[must_use]
    pub fn split(&self) -> (Option<&str>, &str) {
        match self.0.rsplit_once('/') {
            Some((parent, name)) => (Some(parent), name),
            None => (None, &self.0),
        }
    }

    /// The directory that holds it; none is the workspace itself.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        self.split().0.map(|parent| Self(parent.to_owned()))
    }

    /// The directories on the way to it, the outermost first.
    pub fn ancestors(&self) -> impl Iterator<Item = Self> + '_ {
        let ends = self.0.match_indices('/').map(|(at, _)| at);
        ends.map(|end| Self(self.0[..end].to_owned()))
    }

    /// Components, 1 for a path directly in the workspace.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.0.split('/').count()
    }

    /// The target without what it need not have (`a//./b/` is `a/b`), if a link here with this target can only lead to the
    /// workspace: some `..`, not more than the link is deep, then names. A `..` after a name is refused, because the name
    /// may be a link itself and `..` would then start elsewhere.
    #[must_use]
    pub fn link_target(&self, target: &str) -> Option<String> {
        if target.len() > 1024 || target.contains('\0') || target.starts_with('/') {
            return None;
        }
        let components: Vec<&str> = target
            .split('/')
            .filter(|component| !matches!(*component, "" | "."))
            .collect();
        let ascents = components
            .iter()
            .take_while(|&&component| component == "..")
            .count();
        let stays_inside = !components.is_empty()
            && ascents < self.depth()
            && !components[ascents..].contains(&"..");
        stays_inside.then(|| components.join("/"))
    }
}

impl std::fmt::Display for WorkspacePath {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl TryFrom<String> for WorkspacePath {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let problem = if text.is_empty() {
            "is empty"
        } else if text.chars().count() > MAX_CHARACTERS {
            "is longer than 1024 characters"
        } else if text.bytes().any(|byte| byte.is_ascii_control()) {
            "has a control character"
        } else if text.starts_with('/') {
            "is absolute; it must be relative to the workspace"
        } else if text
            .split('/')
            .any(|component| matches!(component, "" | "." | ".."))
        {
            "has an empty, '.' or '..' component"
        } else {
            return Ok(Self(text));
        };
        Err(format!("the path {text:?} {problem}"))
    }
}

impl From<WorkspacePath> for String {
    fn from(path: WorkspacePath) -> Self {
        path.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_relative_paths_are_paths() {
        for good in ["a", "a/b.c", ".hidden", "...", "a b/ü"] {
            assert!(WorkspacePath::try_from(good.to_owned()).is_ok(), "{good:?}");
        }
        for bad in [
            "", "/", "/a", "a/", "a//b", ".", "..", "./a", "a/..", "a/./b", "../a", "a\0b", "a\nb",
            "\x7f",
        ] {
            assert!(WorkspacePath::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
        assert!(WorkspacePath::try_from("ü".repeat(1024)).is_ok());
        assert!(WorkspacePath::try_from("a".repeat(1025)).is_err());
    }
}
