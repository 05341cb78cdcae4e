//! The rules that this service screens with: the built-in ones, or the files of a directory.

use std::path::{Path, PathBuf};

use octollm_screen::{Ruleset, RulesetError};

/// The rules can't be used.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// The directory or a file in it can't be read.
    #[error("{} can't be read: {source}; check OCTO_REFLEX__RULESET", path.display())]
    Unreadable {
        /// The directory or file.
        path: PathBuf,
        /// The failure underneath.
        source: std::io::Error,
    },
    /// There is nothing in it.
    #[error("{} has no file *.toml; check OCTO_REFLEX__RULESET", .0.display())]
    Empty(PathBuf),
    /// A file is no rule file, or a rule contradicts its own examples.
    #[error("the rules in {place} can't be used: {error}; check OCTO_REFLEX__RULESET")]
    Wrong {
        /// The directory, or the file that has the rule.
        place: String,
        /// What is wrong.
        error: RulesetError,
    },
}

/// The rules in every `*.toml` of `directory`, in the byte order of their names; without one the built-in rules. They
/// live as long as the process.
pub fn load(directory: Option<&Path>) -> Result<&'static Ruleset, RulesError> {
    let Some(directory) = directory else {
        return Ok(Ruleset::builtin());
    };
    let unreadable = |path: &Path, source| RulesError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let entries = std::fs::read_dir(directory).map_err(|error| unreadable(directory, error))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| unreadable(directory, error))?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            let text = std::fs::read_to_string(&path).map_err(|error| unreadable(&path, error))?;
            let name = path.file_name().unwrap_or_default();
            files.push((name.to_string_lossy().into_owned(), text));
        }
    }
    if files.is_empty() {
        return Err(RulesError::Empty(directory.to_owned()));
    }
    files.sort();
    let named: Vec<(&str, &str)> = files
        .iter()
        .map(|(name, text)| (name.as_str(), text.as_str()))
        .collect();
    match Ruleset::load(&named) {
        Ok(ruleset) => Ok(Box::leak(Box::new(ruleset))),
        Err(error) => Err(RulesError::Wrong {
            place: place(directory, &files, &error),
            error,
        }),
    }
}

/// The file that the error is about.
fn place(directory: &Path, files: &[(String, String)], error: &RulesetError) -> String {
    let file = match error {
        RulesetError::File { file, .. } => Some(file),
        RulesetError::Rule { rule, .. } => files
            .iter()
            .find(|(_, text)| defines(text, rule))
            .map(|(name, _)| name),
    };
    let path = file.map_or(directory.to_owned(), |file| directory.join(file));
    path.display().to_string()
}

fn defines(text: &str, rule: &str) -> bool {
    let Ok(file) = text.parse::<toml::Table>() else {
        return false;
    };
    let tables = file.values().filter_map(toml::Value::as_array).flatten();
    let mut ids = tables.filter_map(|table| table.get("id")?.as_str());
    ids.any(|id| id == rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: &str = r#"
version = "7"
[[pii]]
id = "badge"
type = "BADGE"
pattern = "B-[0-9]{4}"
confidence = 900
positive = ["my badge B-1234"]
negative = ["my badge C-1234"]
"#;

    #[test]
    fn a_directory_of_files_is_a_ruleset() {
        let home = tempfile::tempdir().expect("a directory");
        let empty = load(Some(home.path()))
            .expect_err("nothing there")
            .to_string();
        assert!(empty.contains("*.toml"), "{empty}");
        std::fs::write(home.path().join("own.toml"), RULE).expect("written");
        std::fs::write(home.path().join("notes.txt"), "no rules").expect("written");
        let rules = load(Some(home.path())).expect("rules");
        assert_eq!(rules.version(), "7");
        assert!(rules.kinds().any(|kind| kind == "BADGE"));
        assert_ne!(rules.digest(), Ruleset::builtin().digest());
        assert_eq!(
            load(None).expect("built in").digest(),
            Ruleset::builtin().digest()
        );
    }

    #[test]
    fn a_rule_that_contradicts_its_example_is_named_with_file_and_example() {
        let home = tempfile::tempdir().expect("a directory");
        std::fs::write(home.path().join("a.toml"), "version = \"7\"\n").expect("written");
        let wrong = RULE.replace("my badge B-1234", "my badge Q-1");
        std::fs::write(home.path().join("own.toml"), wrong).expect("written");
        let error = load(Some(home.path())).expect_err("it misses").to_string();
        for part in ["own.toml", "badge", "my badge Q-1", "OCTO_REFLEX__RULESET"] {
            assert!(error.contains(part), "{part} in {error}");
        }
        let nowhere = load(Some(&home.path().join("x")))
            .expect_err("missing")
            .to_string();
        assert!(nowhere.contains("can't be read"), "{nowhere}");
    }
}
