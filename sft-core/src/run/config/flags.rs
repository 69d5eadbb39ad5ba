use std::path::PathBuf;

use clap::builder::Resettable;
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches, value_parser};
use serde_json::Value;

use super::RunConfig;
use crate::{Error, Result};

/// The flag that names a file with a configuration.
const CONFIG: &str = "config";

impl RunConfig {
    /// Adds a flag for every field to a program's own, and `--config` for a file of them.
    ///
    /// Of a flag that is given twice the last one counts. The help tells the defaults.
    pub fn flags(command: Command) -> Command {
        let defaults = serde_json::to_value(Self::default()).unwrap_or_default();
        let file = Arg::new(CONFIG)
            .long(CONFIG)
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .help("JSON or TOML with fields named as the flags, - being _; flags overrule it");
        // The program tells what it is for, not this type.
        let (about, long_about) = (
            command.get_about().cloned(),
            command.get_long_about().cloned(),
        );
        Self::augment_args_for_update(command.arg(file))
            .about(Resettable::from(about))
            .long_about(Resettable::from(long_about))
            .args_override_self(true)
            .mut_args(|arg| match shown(&defaults[arg.get_id().as_str()]) {
                Some(default) => {
                    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
                    arg.help(format!("{help} [default: {default}]"))
                }
                None => arg,
            })
    }

    /// The configuration that the flags ask for: the defaults, overruled by the file of
    /// `--config`, overruled by the other flags.
    ///
    /// # Errors
    /// A file that cannot be read or is refused.
    pub fn from_flags(matches: &ArgMatches) -> Result<Self> {
        Self::from_flags_over(matches, &Self::default())
    }

    /// The same over other defaults.
    ///
    /// # Errors
    /// As [`from_flags`](Self::from_flags).
    pub fn from_flags_over(matches: &ArgMatches, defaults: &Self) -> Result<Self> {
        let mut config = match matches.get_one::<PathBuf>(CONFIG) {
            Some(path) => Self::open_over(path, defaults)?,
            None => defaults.clone(),
        };
        let read = config.update_from_arg_matches(matches);
        read.map_err(|error| Error::argument("flags", error.to_string()))?;
        Ok(config)
    }
}

/// A default as it is typed; none for what is not there or is off.
fn shown(default: &Value) -> Option<String> {
    match default {
        Value::Null | Value::Bool(false) => None,
        Value::String(text) => Some(text.clone()),
        Value::Array(items) => Some(items.iter().filter_map(shown).collect::<Vec<_>>().join(",")),
        other => Some(other.to_string()),
    }
}
