//! Rule sets: versioned data files, checked against their own examples when they are loaded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::detect::personal_data;
use crate::model::Model;
use crate::prefilter::{Collection, Literals};
use crate::reading::Reading;
use crate::rule::{InjectionRule, InjectionSource, PiiRule, PiiSource};
use crate::screening::UNSCREENED;
use crate::view::View;

/// The files of the built-in rules, in the order in which they are digested.
const BUILTIN: &[(&str, &str)] = &[
    ("injection.toml", include_str!("../rules/injection.toml")),
    ("national.toml", include_str!("../rules/national.toml")),
    ("pii.toml", include_str!("../rules/pii.toml")),
    ("secrets.toml", include_str!("../rules/secrets.toml")),
];

/// The files of the model, digested after those of the rules.
const LEXICON: (&str, &str) = ("lexicon.toml", include_str!("../model/lexicon.toml"));
const MODEL: (&str, &[u8]) = ("injection.bin", include_bytes!("../model/injection.bin"));

static BUILTIN_MODEL: LazyLock<Model> = LazyLock::new(|| match Model::load(MODEL.1, LEXICON.1) {
    Ok(model) => model,
    // As with the rules: both files are compiled in.
    Err(error) => panic!("the built-in model: {error}"),
});

static BUILTIN_RULESET: LazyLock<Ruleset> = LazyLock::new(|| match Ruleset::compile(BUILTIN) {
    Ok(ruleset) => ruleset,
    // The files are compiled in and a test checks them, so this build never passed its tests.
    Err(error) => panic!("the built-in rules: {error}"),
});

/// Why rules can't be used.
#[derive(Debug, thiserror::Error)]
pub enum RulesetError {
    /// The file is not what a rule file is.
    #[error("{file}: {message}")]
    File {
        /// Name of the file.
        file: String,
        /// What is wrong with it.
        message: String,
    },
    /// A rule is not usable, or one of its own examples proves it wrong.
    #[error("rule {rule}: {message}")]
    Rule {
        /// Id of the rule.
        rule: String,
        /// What is wrong with it.
        message: String,
    },
}

/// Rules, compiled.
#[derive(Debug)]
pub struct Ruleset {
    version: String,
    digest: String,
    pub(crate) pii: Vec<PiiRule>,
    pub(crate) injection: Vec<InjectionRule>,
    pub(crate) model: &'static Model,
    pub(crate) literals: Literals,
    kinds: BTreeSet<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleFile {
    version: String,
    /// Parts of patterns by name; `<name>` in a pattern stands for one.
    #[serde(default)]
    fragments: BTreeMap<String, String>,
    /// Lists of context words by name; `<name>` among a rule's context words stands for one.
    #[serde(default)]
    contexts: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    pii: Vec<PiiSource>,
    #[serde(default)]
    injection: Vec<InjectionSource>,
}

impl Ruleset {
    /// The rules and the model that come with this crate.
    ///
    /// # Panics
    ///
    /// Never in a build whose tests pass: they load these files.
    #[must_use]
    pub fn builtin() -> &'static Self {
        &BUILTIN_RULESET
    }

    /// Loads rules from `files`, each a name and its TOML text, all of one version. The model stands beside them as it
    /// does beside the built-in ones.
    ///
    /// # Errors
    ///
    /// A file that does not parse, files of different versions, two rules of one id, a pattern whose matches are
    /// unbounded or empty, and a rule that misses one of its positive examples or matches a negative one.
    pub fn load(files: &[(&str, &str)]) -> Result<Self, RulesetError> {
        let ruleset = Self::compile(files)?;
        ruleset.check_examples()?;
        Ok(ruleset)
    }

    fn compile(files: &[(&str, &str)]) -> Result<Self, RulesetError> {
        let mut version: Option<String> = None;
        let mut hash = Sha256::new();
        let (mut pii, mut injection, mut ids) = (Vec::new(), Vec::new(), BTreeSet::new());
        let mut literals = Collection::default();
        for (name, text) in files {
            let invalid = |message: String| RulesetError::File {
                file: (*name).to_owned(),
                message,
            };
            let file: RuleFile =
                toml::from_str(text).map_err(|error| invalid(error.to_string()))?;
            if version.get_or_insert_with(|| file.version.clone()) != &file.version {
                return Err(invalid(format!(
                    "is of version {}, the file before it is not",
                    file.version
                )));
            }
            digest(&mut hash, name, text.as_bytes());
            for mut source in file.pii {
                source.pattern = expand(&source.pattern, &file.fragments);
                source.context = words(source.context, &file.contexts);
                source.unless = words(source.unless, &file.contexts);
                let rule = source.id.clone();
                if !is_type_name(&source.kind) {
                    return Err(RulesetError::Rule {
                        rule,
                        message: format!("{} is not a type name", source.kind),
                    });
                }
                pii.push(
                    PiiRule::compile(source, pii.len(), &mut literals)
                        .map_err(|message| RulesetError::Rule { rule, message })?,
                );
            }
            for mut source in file.injection {
                source.pattern = expand(&source.pattern, &file.fragments);
                let rule = source.id.clone();
                injection.push(
                    InjectionRule::compile(source, &mut literals)
                        .map_err(|message| RulesetError::Rule { rule, message })?,
                );
            }
        }
        for id in pii
            .iter()
            .map(|rule| &rule.source.id)
            .chain(injection.iter().map(|rule| &rule.source.id))
        {
            if !ids.insert(id.clone()) {
                return Err(RulesetError::Rule {
                    rule: id.clone(),
                    message: "there is another of this id".to_owned(),
                });
            }
        }
        digest(&mut hash, LEXICON.0, LEXICON.1.as_bytes());
        digest(&mut hash, MODEL.0, MODEL.1);
        let kinds = pii
            .iter()
            .map(|rule| rule.source.kind.clone())
            .chain([UNSCREENED.to_owned()])
            .collect();
        let literals = literals
            .compile(pii.iter().map(PiiRule::words))
            .map_err(|message| RulesetError::File {
                file: "all files".to_owned(),
                message,
            })?;
        Ok(Self {
            literals,
            version: version.unwrap_or_default(),
            digest: hex::encode(hash.finalize()),
            pii,
            injection,
            model: &BUILTIN_MODEL,
            kinds,
        })
    }

    /// Version of the rules, as their files say it.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// SHA-256 of the rule files, then of the model's, in lower-case hexadecimal: over `name LF length LF bytes` of
    /// each, in order.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Types of personal data that these rules find, in byte order.
    pub fn kinds(&self) -> impl Iterator<Item = &str> {
        self.kinds.iter().map(String::as_str)
    }

    pub(crate) fn knows(&self, kind: &str) -> bool {
        self.kinds.contains(kind)
    }

    /// Sets every rule against its own examples. [`Ruleset::load`] has done so; the built-in rules are checked by the
    /// tests of this crate.
    ///
    /// # Errors
    ///
    /// The rules that miss one of their positive examples or match a negative one, all of them.
    pub fn check_examples(&self) -> Result<(), RulesetError> {
        let pii = self.pii.iter().map(|rule| {
            let source = &rule.source;
            let finds = |text: &str| {
                let view = View::of(text, &[], self);
                let hits = self.literals.find(view.text());
                rule.find(view.text(), &hits).next().is_some()
            };
            (&source.id, check(&source.positive, &source.negative, finds))
        });
        let injection = self.injection.iter().map(|rule| {
            let source = &rule.source;
            let finds = |text: &str| {
                let (readings, _, _) = personal_data(text, self);
                let found = |reading: &Reading<'_>| {
                    rule.find(reading.text(), &reading.hits).next().is_some()
                };
                readings.iter().any(found)
            };
            (&source.id, check(&source.positive, &source.negative, finds))
        });
        let mut wrong = pii
            .chain(injection)
            .filter_map(|(id, checked)| Some((id, checked.err()?)));
        let Some((rule, message)) = wrong.next() else {
            return Ok(());
        };
        let others = wrong.map(|(rule, message)| format!("\nrule {rule}: {message}"));
        Err(RulesetError::Rule {
            rule: rule.clone(),
            message: others.fold(message, |all, other| all + &other),
        })
    }
}

/// Name and length delimit the files, so that no two sets of files have one digest.
fn digest(hash: &mut Sha256, name: &str, bytes: &[u8]) {
    hash.update(format!("{name}\n{}\n", bytes.len()));
    hash.update(bytes);
}

/// Sets a rule against its own examples; without examples of both kinds it can't be trusted.
fn check(
    positive: &[String],
    negative: &[String],
    finds: impl Fn(&str) -> bool,
) -> Result<(), String> {
    if positive.is_empty() || negative.is_empty() {
        return Err("has no positive or no negative example".to_owned());
    }
    let missed = positive.iter().filter(|text| !finds(text));
    let mistaken = negative.iter().filter(|text| finds(text));
    let wrong: Vec<String> = missed
        .map(|text| format!("misses {text:?}"))
        .chain(mistaken.map(|text| format!("matches {text:?}")))
        .collect();
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(wrong.join("; "))
    }
}

fn expand(pattern: &str, fragments: &BTreeMap<String, String>) -> String {
    fragments
        .iter()
        .fold(pattern.to_owned(), |pattern, (name, part)| {
            pattern.replace(&format!("<{name}>"), part)
        })
}

/// Context words with the lists that they name.
fn words(context: Vec<String>, lists: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let named = |word: &str| {
        word.strip_prefix('<')?
            .strip_suffix('>')
            .and_then(|name| lists.get(name))
    };
    context
        .into_iter()
        .flat_map(|word| named(&word).cloned().unwrap_or_else(|| vec![word]))
        .collect()
}

fn is_type_name(name: &str) -> bool {
    let starts = name.starts_with(|first: char| first.is_ascii_uppercase());
    starts
        && name.len() <= 40
        && name
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
}
