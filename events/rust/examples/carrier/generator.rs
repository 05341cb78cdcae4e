//! Rust carrier types from the schemas in `events/schemas`.
//!
//! It knows the subset of JSON Schema that the contract uses and refuses the rest, so a schema that
//! grows past it stops the generation instead of giving a wrong type. Bounds, patterns and formats
//! are left to validation: the types carry, the schema decides.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

const HEADER: &str = "\
//! Carrier types, generated from `events/schemas` by `cargo run -p octollm-events --example carrier`:
//! do not edit.
#![allow(missing_docs, non_snake_case, clippy::large_enum_variant)]

use crate::schema::{Command, Fact, Payload};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fmt;
";

/// One schema file: the name of its folder, its newest version, its content.
struct Document {
    name: String,
    version: u32,
    schema: Value,
}

/// The text of `src/carrier.rs` for the contract in `events` (the folder with `schemas/` and `streams.json`).
pub fn generate(events: &Path) -> String {
    let documents = read_documents(&events.join("schemas"));
    let commands = command_kinds(&events.join("streams.json"));
    let mut types = Types {
        definitions: documents
            .iter()
            .flat_map(|document| members(&document.schema, "$defs"))
            .map(|(name, definition)| (name.clone(), definition.clone()))
            .collect(),
        items: BTreeMap::new(),
    };
    for document in &documents {
        for (name, definition) in members(&document.schema, "$defs") {
            assert_eq!(
                definition["title"], *name,
                "{}: title and name differ",
                document.name
            );
            types.define(name, definition);
        }
        if document.schema.get("type").is_some() {
            types.define(text(&document.schema, "title"), &document.schema);
        }
    }

    let mut out = String::from(HEADER);
    out.push_str("\n/// Every schema as `(name, version, text)`.\n#[rustfmt::skip]\npub(crate) const SCHEMAS: &[(&str, u32, &str)] = &[\n");
    for Document { name, version, .. } in &documents {
        let path = format!("../../schemas/{name}/v{version}.json");
        writeln!(
            out,
            "    (\"{name}\", {version}, include_str!(\"{path}\")),"
        )
        .unwrap();
    }
    out.push_str("];\n\n/// Every event as `(kind, version)`.\npub(crate) const FACTS: &[(&str, u32)] = &[\n");
    for Document { name, version, .. } in &documents {
        if name.contains('.') && !commands.contains(name) {
            writeln!(out, "    (\"{name}\", {version}),").unwrap();
        }
    }
    out.push_str("];\n");
    for item in types.items.values() {
        out.push('\n');
        out.push_str(item);
    }
    for message in documents.iter().filter(|it| it.name.contains('.')) {
        let title = text(&message.schema, "title");
        let (kind, version) = (&message.name, message.version);
        let role = if commands.contains(kind) {
            "Command"
        } else {
            "Fact"
        };
        write!(
            out,
            "\nimpl Payload for {title} {{\n    const KIND: &'static str = \"{kind}\";\n    const VERSION: u32 = {version};\n}}\n\nimpl {role} for {title} {{}}\n"
        )
        .unwrap();
    }
    out
}

fn read_documents(schemas: &Path) -> Vec<Document> {
    let mut documents: Vec<_> = fs::read_dir(schemas)
        .unwrap()
        .map(|folder| {
            let folder = folder.unwrap().path();
            let newest = fs::read_dir(&folder)
                .unwrap()
                .map(|file| {
                    let name = file.unwrap().file_name().into_string().unwrap();
                    name.trim_start_matches('v')
                        .trim_end_matches(".json")
                        .parse::<u32>()
                        .unwrap()
                })
                .max()
                .unwrap();
            let content = fs::read_to_string(folder.join(format!("v{newest}.json"))).unwrap();
            Document {
                name: folder.file_name().unwrap().to_str().unwrap().to_owned(),
                version: newest,
                schema: serde_json::from_str(&content).unwrap(),
            }
        })
        .collect();
    documents.sort_by(|a, b| a.name.cmp(&b.name));
    documents
}

/// The kinds that travel on `COMMANDS`; every other message is a fact.
fn command_kinds(streams: &Path) -> BTreeSet<String> {
    let streams: Value = serde_json::from_str(&fs::read_to_string(streams).unwrap()).unwrap();
    let stream = streams["streams"]
        .as_array()
        .unwrap()
        .iter()
        .find(|stream| stream["name"] == "COMMANDS")
        .unwrap();
    let subjects = stream["subjects"].as_array().unwrap();
    subjects
        .iter()
        .map(|subject| subject.as_str().unwrap().to_owned())
        .collect()
}

struct Types {
    /// The shared definitions by name: a union looks its members up.
    definitions: BTreeMap<String, Value>,
    /// The items written so far, by name, so that the file's order does not depend on that of the schemas.
    items: BTreeMap<String, String>,
}

impl Types {
    /// Writes the item that carries `schema` under `name`.
    fn define(&mut self, name: &str, schema: &Value) {
        let item = if schema.get("oneOf").is_some() {
            self.union(name, schema)
        } else if schema.get("enum").is_some() {
            enumeration(name, schema)
        } else if schema.get("properties").is_some() {
            self.structure(name, schema)
        } else {
            let target = self.type_of(name, "", schema);
            format!("{}pub type {name} = {target};\n", doc(schema, ""))
        };
        let earlier = self.items.insert(name.to_owned(), item);
        assert!(earlier.is_none(), "two types are named {name}");
    }

    fn structure(&mut self, name: &str, schema: &Value) -> String {
        assert_eq!(schema["additionalProperties"], false, "{name} is open");
        let required: Vec<&str> = schema["required"]
            .as_array()
            .unwrap()
            .iter()
            .map(|field| field.as_str().unwrap())
            .collect();
        // Required fields come first and in the order of `required`; a JSON object itself has no order.
        let mut properties: Vec<_> = members(schema, "properties").collect();
        properties.sort_by_key(|(field, _)| {
            let place = required.iter().position(|name| name == field);
            (place.unwrap_or(required.len()), field.as_str())
        });
        let derive = if required.is_empty() { "Default, " } else { "" };
        let mut out = format!(
            "{}#[derive(Clone, Debug, {derive}PartialEq, Serialize, Deserialize)]\n#[serde(deny_unknown_fields)]\npub struct {name} {{\n",
            doc(schema, "")
        );
        for (field, property) in properties {
            if property.get("const").is_some() {
                continue; // The tag of the union that the structure is a member of.
            }
            let mut rust = self.type_of(name, field, property);
            out.push_str(&doc(property, "    "));
            if !required.contains(&field.as_str()) {
                out.push_str("    #[serde(default, skip_serializing_if = \"Option::is_none\")]\n");
                rust = format!("Option<{rust}>");
            }
            let field = if field == "type" { "r#type" } else { field };
            writeln!(out, "    pub {field}: {rust},").unwrap();
        }
        out.push_str("}\n");
        out
    }

    /// Objects that a constant `kind` tells apart, or a string beside something else.
    fn union(&mut self, name: &str, schema: &Value) -> String {
        let members = schema["oneOf"].as_array().unwrap();
        let tagged: Option<Vec<(String, String)>> = members
            .iter()
            .map(|member| {
                let target = reference(member)?;
                let kind = self.definitions[&target]["properties"]["kind"]["const"].as_str()?;
                Some((kind.to_owned(), target))
            })
            .collect();
        let mut out = doc(schema, "");
        out.push_str("#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]\n");
        if let Some(variants) = tagged {
            writeln!(
                out,
                "#[serde(tag = \"kind\", rename_all = \"snake_case\")]\npub enum {name} {{"
            )
            .unwrap();
            for (kind, target) in variants {
                writeln!(out, "    {}({target}),", pascal(&kind)).unwrap();
            }
        } else {
            writeln!(out, "#[serde(untagged)]\npub enum {name} {{").unwrap();
            for member in members {
                out.push_str(&doc(member, "    "));
                match reference(member) {
                    Some(target) => {
                        let variant = target.strip_suffix(name).unwrap_or(&target);
                        writeln!(out, "    {variant}({target}),").unwrap();
                    }
                    None => {
                        writeln!(out, "    Text({}),", self.type_of(name, "text", member)).unwrap();
                    }
                }
            }
        }
        out.push_str("}\n");
        out
    }

    /// The Rust type of a property; an inline object or enumeration becomes an item of its own, named by
    /// its title, else by its owner and field.
    fn type_of(&mut self, owner: &str, field: &str, schema: &Value) -> String {
        if let Some(target) = reference(schema) {
            return target;
        }
        let own_name = || match schema["title"].as_str() {
            Some(title) => title.to_owned(),
            None => format!("{owner}{}", pascal(field)),
        };
        if schema.get("enum").is_some() || schema.get("properties").is_some() {
            let name = own_name();
            self.define(&name, schema);
            return name;
        }
        match &schema["type"] {
            Value::Null => "Value".into(),
            Value::Array(types) => {
                let [single, null] = types.as_slice() else {
                    panic!("{owner}.{field}: only a type or null is known");
                };
                assert_eq!(null, "null", "{owner}.{field}");
                let inner = self.type_of(owner, field, &serde_json::json!({ "type": single }));
                format!("Option<{inner}>")
            }
            Value::String(name) => match name.as_str() {
                "string" => "String".into(),
                "boolean" => "bool".into(),
                "number" => "f64".into(),
                "integer" if schema["minimum"].as_i64().is_some_and(|least| least >= 0) => {
                    "u64".into()
                }
                "integer" => "i64".into(),
                "object" => "Map<String, Value>".into(),
                "array" => format!("Vec<{}>", self.type_of(owner, field, &schema["items"])),
                other => panic!("{owner}.{field}: unknown type {other}"),
            },
            other => panic!("{owner}.{field}: unknown type {other}"),
        }
    }
}

fn enumeration(name: &str, schema: &Value) -> String {
    let values: Vec<&str> = schema["enum"]
        .as_array()
        .unwrap()
        .iter()
        .map(|value| value.as_str().unwrap())
        .collect();
    let case = if values
        .iter()
        .all(|value| !value.contains(char::is_lowercase))
    {
        "SCREAMING_SNAKE_CASE"
    } else {
        "snake_case"
    };
    let mut out = format!(
        "{}#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]\n#[serde(rename_all = \"{case}\")]\npub enum {name} {{\n",
        doc(schema, "")
    );
    for value in &values {
        writeln!(out, "    {},", pascal(value)).unwrap();
    }
    write!(
        out,
        "}}\n\nimpl {name} {{\n    /// As it stands in JSON.\n    pub fn as_str(self) -> &'static str {{\n        match self {{\n"
    )
    .unwrap();
    for value in &values {
        writeln!(out, "            Self::{} => \"{value}\",", pascal(value)).unwrap();
    }
    write!(
        out,
        "        }}\n    }}\n}}\n\nimpl fmt::Display for {name} {{\n    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {{\n        f.write_str(self.as_str())\n    }}\n}}\n"
    )
    .unwrap();
    out
}

fn reference(schema: &Value) -> Option<String> {
    let target = schema.get("$ref")?.as_str().unwrap();
    Some(target.rsplit_once("/$defs/").unwrap().1.to_owned())
}

fn members<'a>(schema: &'a Value, key: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    schema
        .get(key)
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
}

fn text<'a>(schema: &'a Value, key: &str) -> &'a str {
    schema[key].as_str().unwrap()
}

fn doc(schema: &Value, indent: &str) -> String {
    match schema["description"].as_str() {
        Some(description) => format!("{indent}/// {description}\n"),
        None => String::new(),
    }
}

fn pascal(words: &str) -> String {
    words
        .split('_')
        .map(|word| {
            let word = word.to_lowercase();
            let mut letters = word.chars();
            letters.next().map_or_else(String::new, |first| {
                first.to_uppercase().collect::<String>() + letters.as_str()
            })
        })
        .collect()
}
