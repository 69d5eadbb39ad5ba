//! Settings by name, and refusals that name them.

use serde_json::{Map, Value};

/// The most of a width or a number of heads.
const MAX_SIZE: usize = 1 << 16;
/// The most blocks, and the most features of a head.
const MAX_SMALL: usize = 1 << 10;
/// The most tokens of a vocabulary or of a sample.
const MAX_TOKENS: usize = 1 << 24;

/// The settings of a `config.json`, or a table among them.
#[derive(Clone, Copy)]
pub(super) struct Settings<'a>(pub(super) &'a Map<String, Value>);

impl<'a> Settings<'a> {
    /// A setting; none where it is null.
    pub(super) fn get(self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// What a refusal of a setting says.
    pub(super) fn wrong(self, name: &str, accepted: &str) -> String {
        let got = self.get(name).unwrap_or(&Value::Null).to_string();
        let got: String = got.chars().take(120).collect();
        format!("{name} must be {accepted}, got {got}")
    }

    /// A whole number from 1 to a bound.
    fn whole(self, name: &str, most: usize, default: Option<usize>) -> Result<usize, String> {
        let Some(value) = self.get(name) else {
            return default.ok_or_else(|| self.wrong(name, "a whole number"));
        };
        let number = value
            .as_u64()
            .and_then(|number| usize::try_from(number).ok());
        let valid = number.filter(|number| (1..=most).contains(number));
        valid.ok_or_else(|| self.wrong(name, &format!("in 1..={most}")))
    }

    /// A width or a number of heads.
    pub(super) fn size(self, name: &str, default: Option<usize>) -> Result<usize, String> {
        self.whole(name, MAX_SIZE, default)
    }

    /// A number of blocks, or the features of a head.
    pub(super) fn small(self, name: &str, default: Option<usize>) -> Result<usize, String> {
        self.whole(name, MAX_SMALL, default)
    }

    /// A number of tokens.
    pub(super) fn tokens(self, name: &str, default: Option<usize>) -> Result<usize, String> {
        self.whole(name, MAX_TOKENS, default)
    }

    /// A positive number.
    pub(super) fn number(self, name: &str, default: Option<f64>) -> Result<f64, String> {
        let Some(value) = self.get(name) else {
            return default.ok_or_else(|| self.wrong(name, "a number"));
        };
        let number = value
            .as_f64()
            .filter(|number| *number > 0.0 && number.is_finite());
        number.ok_or_else(|| self.wrong(name, "a positive number"))
    }

    pub(super) fn flag(self, name: &str, default: bool) -> Result<bool, String> {
        let value = self.get(name).map_or(Some(default), Value::as_bool);
        value.ok_or_else(|| self.wrong(name, "true or false"))
    }

    pub(super) fn text(self, name: &str, default: &'a str) -> Result<&'a str, String> {
        let value = self.get(name).map_or(Some(default), Value::as_str);
        value.ok_or_else(|| self.wrong(name, "a text"))
    }

    pub(super) fn table(self, name: &str) -> Result<Option<Self>, String> {
        let table = self.get(name).map(|value| match value {
            Value::Object(table) => Ok(Self(table)),
            _ => Err(self.wrong(name, "a table")),
        });
        table.transpose()
    }

    /// Refuses settings that are neither missing nor null nor false.
    pub(super) fn all_off(self, names: &[&str]) -> Result<(), String> {
        let on = |name: &&&str| self.get(name).is_some_and(|value| *value != false);
        let found = names.iter().find(on);
        found.map_or(Ok(()), |name| Err(self.wrong(name, "off")))
    }

    /// Refuses a factor that changes anything.
    pub(super) fn must_be_one(self, name: &str) -> Result<(), String> {
        match self.get(name).map(Value::as_f64) {
            None | Some(Some(1.0)) => Ok(()),
            Some(_) => Err(self.wrong(name, "1")),
        }
    }
}
