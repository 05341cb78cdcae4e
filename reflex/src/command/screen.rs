//! `octo screen`: the engine of the service over a text, a file, or JSON lines.

mod compare;
mod lines;
mod report;

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write, stdin, stdout};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use octollm_screen::{HashKey, Role, Ruleset, RulesetError, Strategy};

use crate::digest::{DigestKey, KeyError};

/// Bytes that are read at a time: as many lines are screened in parallel.
const READ_AHEAD: usize = 1024 * 1024;

/// The name that stands for the rules of this build where a directory of rules is expected.
const BUILTIN: &str = "builtin";

#[derive(Debug, Args)]
pub struct Arguments {
    /// The text. Without it, and without a file, standard input is read.
    #[arg(conflicts_with_all = ["file", "jsonl", "compare"])]
    text: Option<String>,
    /// Read this file; `-` is standard input.
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Read JSON lines {"id", "text", "role"?} and write one line for each, in their order:
    /// {"id", "spans": [{"start", "end", "type", "rule", "confidence"}], "score", "flag"}. Places count code points.
    #[arg(long)]
    jsonl: bool,
    /// What to write of each JSON line.
    #[arg(long, value_enum, default_value_t = Task::All, requires = "jsonl", conflicts_with = "compare")]
    task: Task,
    /// What the text is to the system, which decides what a sign of injection leads to.
    #[arg(long, value_enum, default_value_t = RoleName::Goal)]
    role: RoleName,
    /// Write the text with its personal data replaced: alone, or as `redacted` beside what JSON says.
    #[arg(long, value_enum, value_name = "STRATEGY", conflicts_with = "compare")]
    redact: Option<StrategyName>,
    /// File of 64 hexadecimal digits: the key of `--redact hash`.
    #[arg(long, value_name = "FILE", required_if_eq("redact", "hash"))]
    key_file: Option<PathBuf>,
    /// Directory of rule files (*.toml) in place of the built-in ones.
    #[arg(long, value_name = "DIR", conflicts_with = "compare")]
    ruleset: Option<PathBuf>,
    /// Show what the rules of NEW would change of what those of OLD say of each line: directories, or `builtin`.
    #[arg(long, num_args = 2, value_names = ["OLD", "NEW"])]
    compare: Option<Vec<PathBuf>>,
    /// Write JSON.
    #[arg(long)]
    json: bool,
    /// Lines that are screened at the same time; one for each processor if not given.
    #[arg(long, value_name = "COUNT")]
    jobs: Option<NonZeroUsize>,
    /// Longest line and longest text, bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 4 * 1024 * 1024)]
    max_bytes: usize,
}

/// What to write of a JSON line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Task {
    /// Spans of personal data.
    Pii,
    /// Score and flag of an injection.
    Injection,
    /// Both.
    All,
}

/// What a text is to the system.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum RoleName {
    Goal,
    Constraint,
    Criterion,
    Plan,
    Note,
    Context,
    Metadata,
    Output,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Goal => Self::Goal,
            RoleName::Constraint => Self::Constraint,
            RoleName::Criterion => Self::Criterion,
            RoleName::Plan => Self::Plan,
            RoleName::Note => Self::Note,
            RoleName::Context => Self::Context,
            RoleName::Metadata => Self::Metadata,
            RoleName::Output => Self::Output,
        }
    }
}

/// What stands in the place of a value.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum StrategyName {
    /// A number by value: [EMAIL_1]
    Token,
    /// The type: [EMAIL]
    Mask,
    /// A keyed hash: [EMAIL:hbkfacdpoonmglie]
    Hash,
    /// The end of it: [EMAIL:***@example.org]
    Partial,
    /// The mark of an omission: [...]
    Remove,
}

/// Why texts can't be screened. No message holds a text.
#[derive(Debug, thiserror::Error)]
pub enum ScreenError {
    #[error("{name} can't be read: {error}")]
    Input { name: String, error: io::Error },
    #[error("{name} is longer than {limit} bytes; split it, or raise --max-bytes")]
    TooLong { name: String, limit: usize },
    #[error("{name} is not UTF-8 text")]
    NotText { name: String },
    #[error("{name}: {error}")]
    Rules { name: String, error: RulesetError },
    #[error("{name} has no rule file (*.toml)")]
    NoRules { name: String },
    #[error("{0}")]
    Key(#[from] KeyError),
    #[error("the result can't be written: {0}")]
    Output(#[from] io::Error),
}

impl ScreenError {
    /// Whoever read the result has seen enough.
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Output(_) => ExitCode::FAILURE,
            _ => ExitCode::from(2),
        }
    }
}

/// Screens what the arguments name and writes what they ask for to standard output.
pub fn run(arguments: &Arguments) -> Result<(), ScreenError> {
    let mut out = BufWriter::new(stdout().lock());
    let strategy = arguments.strategy()?;
    if let Some([old, new]) = arguments.compare.as_deref() {
        let (old, new) = (Rules::named(old)?, Rules::named(new)?);
        compare::run(arguments, old.get(), new.get(), &mut out)?;
    } else {
        let rules = arguments
            .ruleset
            .as_deref()
            .map_or(Ok(Rules::Builtin), Rules::read)?;
        if arguments.jsonl {
            lines::run(arguments, rules.get(), strategy, &mut out)?;
        } else {
            let text = arguments.whole_text()?;
            report::run(arguments, rules.get(), strategy, &text, &mut out)?;
        }
    }
    Ok(out.flush()?)
}

impl Arguments {
    fn strategy(&self) -> Result<Option<Strategy>, ScreenError> {
        Ok(match (self.redact, &self.key_file) {
            (None, _) | (Some(StrategyName::Hash), None) => None,
            (Some(StrategyName::Token), _) => Some(Strategy::Token),
            (Some(StrategyName::Mask), _) => Some(Strategy::Mask),
            (Some(StrategyName::Partial), _) => Some(Strategy::Partial),
            (Some(StrategyName::Remove), _) => Some(Strategy::Remove),
            (Some(StrategyName::Hash), Some(path)) => Some(Strategy::Hash(HashKey::new(
                DigestKey::read(path)?.mac(&[b"redaction"]),
            ))),
        })
    }

    fn role(&self) -> Role {
        self.role.into()
    }

    fn jobs(&self) -> usize {
        self.jobs
            .or_else(|| std::thread::available_parallelism().ok())
            .map_or(1, NonZeroUsize::get)
    }

    /// The name of the input in messages.
    fn input_name(&self) -> String {
        match &self.file {
            Some(path) if path != Path::new("-") => path.display().to_string(),
            _ => "standard input".to_owned(),
        }
    }

    fn input_error(&self, error: io::Error) -> ScreenError {
        let name = self.input_name();
        ScreenError::Input { name, error }
    }

    fn input(&self) -> Result<BufReader<Box<dyn Read>>, ScreenError> {
        let input: Box<dyn Read> = match &self.file {
            Some(path) if path != Path::new("-") => {
                Box::new(File::open(path).map_err(|error| self.input_error(error))?)
            }
            _ => Box::new(stdin()),
        };
        Ok(BufReader::with_capacity(READ_AHEAD, input))
    }

    fn whole_text(&self) -> Result<String, ScreenError> {
        if let Some(text) = &self.text {
            return Ok(text.clone());
        }
        let mut bytes = Vec::new();
        self.input()?
            .take(self.max_bytes as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| self.input_error(error))?;
        let name = self.input_name();
        if bytes.len() > self.max_bytes {
            let limit = self.max_bytes;
            return Err(ScreenError::TooLong { name, limit });
        }
        String::from_utf8(bytes).map_err(|_| ScreenError::NotText { name })
    }
}

/// The rules to screen with.
enum Rules {
    Builtin,
    Read(Box<Ruleset>),
}

impl Rules {
    fn named(name: &Path) -> Result<Self, ScreenError> {
        if name == Path::new(BUILTIN) {
            Ok(Self::Builtin)
        } else {
            Self::read(name)
        }
    }

    /// The rule files of a directory, in the order of their names.
    fn read(directory: &Path) -> Result<Self, ScreenError> {
        let name = || directory.display().to_string();
        let unreadable = |error| ScreenError::Input {
            name: name(),
            error,
        };
        let entries = std::fs::read_dir(directory).map_err(unreadable)?;
        let mut files = Vec::new();
        for entry in entries {
            let path = entry.map_err(unreadable)?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "toml")
            {
                let text = std::fs::read_to_string(&path).map_err(|error| ScreenError::Input {
                    name: path.display().to_string(),
                    error,
                })?;
                let file = path.file_name().unwrap_or_default();
                files.push((file.to_string_lossy().into_owned(), text));
            }
        }
        if files.is_empty() {
            return Err(ScreenError::NoRules { name: name() });
        }
        files.sort_unstable();
        let files: Vec<(&str, &str)> = files
            .iter()
            .map(|(file, text)| (file.as_str(), text.as_str()))
            .collect();
        let rules = Ruleset::load(&files).map_err(|error| ScreenError::Rules {
            name: name(),
            error,
        })?;
        Ok(Self::Read(Box::new(rules)))
    }

    fn get(&self) -> &Ruleset {
        match self {
            Self::Builtin => Ruleset::builtin(),
            Self::Read(rules) => rules,
        }
    }
}
