use std::path::Path;

use serde::Deserializer;
use serde::de::{Error as _, Visitor, value};
use serde_json::{Map, Value};

use super::RunConfig;
use crate::{Error, Result};

/// What is written in Rust's words, in words for everyone.
const ACCEPTED: [(&str, &str); 7] = [
    ("usize", "an integer of at least 0"),
    ("u64", "an integer of at least 0"),
    ("f64", "a number"),
    ("a boolean", "true or false"),
    ("a sequence", "a list"),
    ("path string", "a path"),
    ("a string", "text"),
];

/// Keys that an unknown one is told beside.
const NEAREST: usize = 3;

impl RunConfig {
    /// Reads a file, JSON or TOML by its ending.
    ///
    /// # Errors
    /// A file that cannot be read or has another ending, and what the contents are refused for.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_over(path, &Self::default())
    }

    /// The same where a field that the file does not have is another's.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_over(path: &Path, defaults: &Self) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::file(path, e))?;
        let defaults = defaults.fields();
        let read = match path.extension().and_then(|ending| ending.to_str()) {
            Some("json") => json(&text).and_then(|mut fields| {
                for (name, value) in defaults {
                    fields.entry(name).or_insert(value);
                }
                Self::from_fields(&fields)
            }),
            Some("toml") => toml(&text).and_then(|mut table| {
                let values = defaults.into_iter().filter(|(_, value)| !value.is_null());
                for (name, value) in values {
                    let value = toml::Value::try_from(value).map_err(|e| malformed("TOML", e))?;
                    table.entry(name).or_insert(value);
                }
                Self::from_table(&table)
            }),
            _ => Err(Error::file(path, "must end in .json or .toml")),
        };
        read.map_err(|error| match error {
            Error::Argument { .. } => Error::file(path, error),
            other => other,
        })
    }

    /// Reads JSON.
    ///
    /// # Errors
    /// What is not an object, has unknown keys, or values of another kind than their field.
    pub fn from_json(text: &str) -> Result<Self> {
        Self::from_fields(&json(text)?)
    }

    /// Reads TOML.
    ///
    /// # Errors
    /// As [`from_json`](Self::from_json).
    pub fn from_toml(text: &str) -> Result<Self> {
        Self::from_table(&toml(text)?)
    }

    fn from_table(table: &toml::Table) -> Result<Self> {
        let shown = |name: &str| table.get(name).map(ToString::to_string);
        known(table.keys())?;
        read(toml::Value::Table(table.clone()), shown)
    }

    /// Takes values by the names of their fields.
    ///
    /// # Errors
    /// As [`from_json`](Self::from_json).
    pub fn from_fields(fields: &Map<String, Value>) -> Result<Self> {
        known(fields.keys())?;
        let shown = |name: &str| fields.get(name).map(ToString::to_string);
        read(Value::Object(fields.clone()), shown)
    }
}

fn json(text: &str) -> Result<Map<String, Value>> {
    serde_json::from_str(text).map_err(|e| malformed("JSON", e))
}

fn toml(text: &str) -> Result<toml::Table> {
    toml::from_str(text).map_err(|e: toml::de::Error| {
        let before = e.span().map_or("", |span| &text[..span.start]);
        let line = before.lines().count().max(1);
        malformed("TOML", format!("{} in line {line}", e.message()))
    })
}

fn malformed(language: &str, error: impl std::fmt::Display) -> Error {
    let reason = format!("must be an object in {language}: {error}");
    Error::argument("configuration", reason)
}

/// Refuses a key that no field has, and tells those that are most like it.
fn known<'a>(mut keys: impl Iterator<Item = &'a String>) -> Result<()> {
    let names = names();
    let Some(key) = keys.find(|key| !names.contains(&key.as_str())) else {
        return Ok(());
    };
    let mut nearest = names.to_vec();
    let distance = |name: &&str| -strsim::jaro_winkler(key, name);
    nearest.sort_by(|a, b| distance(a).total_cmp(&distance(b)));
    let nearest = nearest[..NEAREST].join(", ");
    let reason = format!("has no key {key:?}; the nearest are {nearest}");
    Err(Error::argument("configuration", reason))
}

fn read<'de, D: Deserializer<'de>>(
    from: D,
    shown: impl Fn(&str) -> Option<String>,
) -> Result<RunConfig>
where
    D::Error: std::fmt::Display,
{
    serde_path_to_error::deserialize(from).map_err(|error| {
        let path = error.path().to_string();
        let field = path.split(['.', '[']).next().unwrap_or_default();
        let name = names().iter().find(|&&name| name == field);
        let got = shown(field).unwrap_or_else(|| "none".into());
        let error = error.into_inner().to_string();
        let error = words(field, &error).unwrap_or(error);
        let reason = reason(&error, &got);
        Error::argument(name.copied().unwrap_or("configuration"), reason)
    })
}

/// The words that a field takes, as an error about one that it does not, where `error` only says
/// that it takes words.
fn words(field: &str, error: &str) -> Option<String> {
    if !error.contains(", expected string or map") {
        return None;
    }
    let fields = Map::from_iter([(field.to_string(), Value::String(String::new()))]);
    let refused = serde_json::from_value::<RunConfig>(Value::Object(fields));
    refused.err().map(|error| error.to_string())
}

/// What serde found wrong, with what was accepted and what was given.
fn reason(error: &str, got: &str) -> String {
    // TOML's errors go on with the place, which a value has none of.
    let error = error.lines().next().unwrap_or_default();
    let kinds = ["invalid type: ", "invalid value: ", "unknown variant "];
    if !kinds.iter().any(|kind| error.starts_with(kind)) {
        let told = error.contains(", got ");
        return if told {
            error.to_string()
        } else {
            format!("{error}, got {got}")
        };
    }
    let expected = error.split_once(", expected ").map_or("", |(_, e)| e);
    let accepted = ACCEPTED.iter().find(|(rust, _)| *rust == expected);
    let accepted = accepted.map_or(expected.replace('`', ""), |(_, plain)| (*plain).to_string());
    format!("must be {accepted}, got {got}")
}

/// The names of all fields, as serde's derive has them.
pub(super) fn names() -> &'static [&'static str] {
    let mut names: &'static [&'static str] = &[];
    // It ends in an error, there being no values.
    let _ = <RunConfig as serde::Deserialize>::deserialize(Names(&mut names));
    names
}

struct Names<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Names<'_> {
    type Error = value::Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, value::Error> {
        *self.0 = fields;
        self.deserialize_any(visitor)
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, value::Error> {
        Err(value::Error::custom("names only"))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}
