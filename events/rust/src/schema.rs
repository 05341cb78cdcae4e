//! Validation and coding of payloads: the schema itself decides, the carrier types only carry.

use crate::carrier::{FACTS, SCHEMAS};
use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{Draft, Retrieve, Uri, ValidationError, Validator};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};
use std::sync::LazyLock;

/// A type that travels as a message's body.
pub trait Payload: Serialize + DeserializeOwned {
    /// `<entity>.<fact>`, also the name of the schema's folder.
    const KIND: &'static str;
    /// Version of the schema that the type follows.
    const VERSION: u32;
}

/// What may be appended to the log.
pub trait Fact: Payload {}

/// What may be put on `COMMANDS`.
pub trait Command: Payload {}

/// A payload breaks its schema.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{kind} breaks its schema in {} place(s): {}", .errors.len(), summary(.errors))]
pub struct SchemaViolation {
    /// `<entity>.<fact>`.
    pub kind: String,
    /// JSON pointer (RFC 6901) of each broken field and what would be right. Neither the offending value nor
    /// the name of an unknown field is repeated: both are a stranger's text and may hold personal data.
    pub errors: Vec<(String, String)>,
}

fn summary(errors: &[(String, String)]) -> String {
    let places: Vec<_> = errors
        .iter()
        .take(5)
        .map(|(pointer, message)| format!("{pointer}: {message}"))
        .collect();
    places.join("; ")
}

/// Every schema by its `$id`.
static DOCUMENTS: LazyLock<HashMap<String, Value>> = LazyLock::new(|| {
    SCHEMAS
        .iter()
        .map(|(name, version, text)| {
            let document = serde_json::from_str(text).expect("embedded schemas are JSON");
            (address(name, *version), document)
        })
        .collect()
});

/// A compiled validator for each command and event, and for what a receipt holds.
static VALIDATORS: LazyLock<HashMap<&'static str, Validator>> = LazyLock::new(|| {
    let whole = SCHEMAS
        .iter()
        .filter(|(name, ..)| name.contains('.') || *name == RECEIPT);
    whole
        .map(|(name, version, _)| {
            let validator = jsonschema::options()
                .with_draft(Draft::Draft202012)
                .should_validate_formats(true)
                .with_retriever(Embedded)
                .build(&DOCUMENTS[&address(name, *version)])
                .expect("embedded schemas compile");
            (*name, validator)
        })
        .collect()
});

fn address(name: &str, version: u32) -> String {
    format!("octollm://schemas/{name}/v{version}.json")
}

/// The name under which [`validate`] knows the statement in a receipt's envelope.
pub const RECEIPT: &str = "receipt";

struct Embedded;

impl Retrieve for Embedded {
    fn retrieve(
        &self,
        uri: &Uri<String>,
    ) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        let document = DOCUMENTS.get(uri.as_str());
        Ok(document
            .ok_or_else(|| format!("no schema is embedded for {uri}"))?
            .clone())
    }
}

/// Checks plain JSON against the schema of a command, an event, or a [`RECEIPT`]; formats count.
pub fn validate(kind: &str, data: &Value) -> Result<(), SchemaViolation> {
    let violation = |errors| SchemaViolation {
        kind: kind.to_owned(),
        errors,
    };
    let validator = VALIDATORS
        .get(kind)
        .ok_or_else(|| violation(vec![(String::new(), "no such kind of message".to_owned())]))?;
    let mut errors = Vec::new();
    for error in validator.iter_errors(data) {
        explain(&error, &mut errors);
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(violation(errors))
    }
}

/// The version of an event's schema that this build speaks; `None` for commands and unknown kinds.
pub fn fact_version(kind: &str) -> Option<u32> {
    FACTS
        .iter()
        .find(|(name, _)| *name == kind)
        .map(|(_, version)| *version)
}

/// A payload from JSON text, checked against its schema first.
pub fn decode<T: Payload>(body: &[u8]) -> Result<T, SchemaViolation> {
    let violation = |message: &str| SchemaViolation {
        kind: T::KIND.to_owned(),
        errors: vec![(String::new(), message.to_owned())],
    };
    let data: Value =
        serde_json::from_slice(body).map_err(|_| violation("must be JSON in UTF-8"))?;
    validate(T::KIND, &data)?;
    // What the schema lets through and Rust can't hold: an integer written as 1.0 or past 64 bits.
    serde_json::from_value(data)
        .map_err(|_| violation("integers must be written without a fraction and fit into 64 bits"))
}

/// The payload as compact JSON, checked against its schema.
pub fn encode<T: Payload>(payload: &T) -> Result<Vec<u8>, SchemaViolation> {
    let violation = |message: &str| SchemaViolation {
        kind: T::KIND.to_owned(),
        errors: vec![(String::new(), message.to_owned())],
    };
    let body =
        serde_json::to_vec(payload).map_err(|_| violation("must be representable as JSON"))?;
    let data =
        serde_json::from_slice(&body).map_err(|_| violation("must be representable as JSON"))?;
    validate(T::KIND, &data)?;
    Ok(body)
}

/// Puts an error into words that hold nothing of the instance but positions.
fn explain(error: &ValidationError<'_>, out: &mut Vec<(String, String)>) {
    use ValidationErrorKind as Kind;
    let mut pointer = error.instance_path().as_str().to_owned();
    let message = match error.kind() {
        Kind::OneOfNotValid { context } => {
            return explain_union(&pointer, context, out);
        }
        Kind::Required { property } => {
            let name = property.as_str().unwrap_or_default();
            pointer = format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
            "is required".to_owned()
        }
        Kind::AdditionalProperties { .. } => match known_fields(error) {
            Some(known) => format!("has an unknown field; known are {known}"),
            None => "has an unknown field".to_owned(),
        },
        Kind::Type { kind } => format!("must be {}", type_names(kind)),
        Kind::Enum { options } => format!("must be one of {}", words(options)),
        Kind::Constant { expected_value } => format!("must be {}", words(expected_value)),
        Kind::MinLength { limit: 1 } => "must not be empty".to_owned(),
        Kind::MinLength { limit } => format!("must have at least {limit} characters"),
        Kind::MaxLength { limit } => format!("must have at most {limit} characters"),
        Kind::MinItems { limit } => format!("must have at least {limit} item(s)"),
        Kind::MaxItems { limit } => format!("must have at most {limit} items"),
        Kind::Minimum { limit } => format!("must be at least {limit}"),
        Kind::Maximum { limit } => format!("must be at most {limit}"),
        Kind::UniqueItems => "must not hold an item twice".to_owned(),
        Kind::Format { format } => format!("must be a valid {format}"),
        Kind::Pattern { pattern } if pattern == "\\S" => "must not be blank".to_owned(),
        Kind::Pattern { pattern } => {
            match keyword_owner(error).and_then(|it| it["description"].as_str()) {
                Some(description) => format!("has the wrong form: {description}"),
                None => format!("must match {pattern}"),
            }
        }
        other => format!("breaks the rule {}", other.keyword()),
    };
    out.push((pointer, message));
}

/// A union's errors are those of the member that was meant: the one whose type and constant `kind` fit.
fn explain_union(
    pointer: &str,
    members: &[Vec<ValidationError<'static>>],
    out: &mut Vec<(String, String)>,
) {
    let tag = format!("{pointer}/kind");
    let mut kinds = BTreeSet::new();
    let mut types = BTreeSet::new();
    let mut untagged = false;
    for errors in flattened(members, pointer) {
        let mut meant = true;
        for error in errors {
            let place = error.instance_path().as_str();
            match error.kind() {
                ValidationErrorKind::Constant { expected_value } if place == tag => {
                    meant = false;
                    kinds.insert(words(expected_value));
                }
                ValidationErrorKind::Type { kind } if place == pointer => {
                    meant = false;
                    types.insert(type_names(kind));
                }
                ValidationErrorKind::Required { property }
                    if property == "kind" && place == pointer =>
                {
                    meant = false;
                    untagged = true;
                }
                _ => {}
            }
        }
        if meant {
            for error in errors {
                explain(error, out);
            }
            return;
        }
    }
    if untagged {
        out.push((tag, "is required".to_owned()));
    } else if kinds.is_empty() {
        let types: Vec<_> = types.into_iter().collect();
        let message = format!("must be {}", types.join(" or "));
        out.push((pointer.to_owned(), message));
    } else {
        let kinds: Vec<_> = kinds.into_iter().collect();
        out.push((tag, format!("must be one of {}", kinds.join(", "))));
    }
}

/// The members of a union, with those of a union inside it in its place.
fn flattened<'a>(
    members: &'a [Vec<ValidationError<'static>>],
    pointer: &str,
) -> Vec<&'a [ValidationError<'static>]> {
    let mut flat = Vec::new();
    for errors in members {
        match errors.as_slice() {
            [only] if only.instance_path().as_str() == pointer => match only.kind() {
                ValidationErrorKind::OneOfNotValid { context } => {
                    flat.extend(flattened(context, pointer));
                }
                _ => flat.push(errors),
            },
            _ => flat.push(errors.as_slice()),
        }
    }
    flat
}

/// The schema that holds the broken keyword.
fn keyword_owner(error: &ValidationError<'_>) -> Option<&'static Value> {
    let location = error.absolute_keyword_location()?.as_str();
    let (document, pointer) = location.split_once('#')?;
    let (owner, _) = pointer.rsplit_once('/')?;
    DOCUMENTS.get(document)?.pointer(owner)
}

fn known_fields(error: &ValidationError<'_>) -> Option<String> {
    let properties = keyword_owner(error)?["properties"].as_object()?;
    let mut names: Vec<_> = properties.keys().map(String::as_str).collect();
    names.sort_unstable();
    Some(names.join(", "))
}

fn type_names(kind: &TypeKind) -> String {
    let names: Vec<_> = match kind {
        TypeKind::Single(one) => vec![one.to_string()],
        TypeKind::Multiple(several) => several.iter().map(|one| one.to_string()).collect(),
    };
    names.join(" or ")
}

fn words(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(words).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}
