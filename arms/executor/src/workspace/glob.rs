//! Picking files of a workspace by pattern.

use bytes::Bytes;
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use super::path::WorkspacePath;
use super::tree::{Kind, Tree};

/// Patterns, at most.
const MAX_PATTERNS: usize = 32;
/// Bytes of one pattern, at most.
const MAX_PATTERN_BYTES: usize = 1024;

/// A pattern that can't be used. The code is `INVALID_REQUEST`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the pattern {pattern:?} {problem}")]
pub struct InvalidGlob {
    /// The pattern.
    pub pattern: String,
    /// What is wrong with it.
    pub problem: String,
}

/// Patterns of paths: `*` and `?` stay within a name, `**` crosses directories, `[…]` and `{…,…}` as in a shell. A pattern
/// is held against the whole path.
#[derive(Debug, Clone)]
pub struct Globs(GlobSet);

impl Globs {
    /// Compiles patterns. Matching takes time linear in the path.
    ///
    /// # Errors
    /// [`InvalidGlob`]: more than 32 patterns, one of more than 1,024 bytes, or one that is malformed.
    pub fn parse<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<Self, InvalidGlob> {
        let mut set = GlobSetBuilder::new();
        for (index, pattern) in patterns.into_iter().enumerate() {
            let invalid = |problem: String| InvalidGlob {
                pattern: pattern.chars().take(100).collect(),
                problem,
            };
            if index == MAX_PATTERNS {
                return Err(invalid(format!(
                    "is one too many, {MAX_PATTERNS} are allowed"
                )));
            }
            if pattern.len() > MAX_PATTERN_BYTES {
                return Err(invalid(format!("has more than {MAX_PATTERN_BYTES} bytes")));
            }
            let built = GlobBuilder::new(pattern).literal_separator(true).build();
            set.add(built.map_err(|error| invalid(format!("is malformed: {}", error.kind())))?);
        }
        let built = set.build().map_err(|error| InvalidGlob {
            pattern: error.glob().unwrap_or_default().to_owned(),
            problem: format!("can't be used: {}", error.kind()),
        });
        built.map(Self)
    }
}

impl Tree {
    /// The regular files whose path matches a pattern, by path.
    pub fn matching<'a>(
        &'a self,
        globs: &'a Globs,
    ) -> impl Iterator<Item = (&'a WorkspacePath, &'a Bytes)> {
        let files = self.iter().filter_map(|(path, node)| match &node.kind {
            Kind::File { content, .. } => Some((path, content)),
            Kind::Directory { .. } | Kind::Symlink { .. } => None,
        });
        files.filter(|(path, _)| globs.0.is_match(path.as_str()))
    }
}
