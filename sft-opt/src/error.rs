//! The crate's error: mistakes in the input, never the outcome of a run.

/// A mistake in the input, naming the argument, the value and what is accepted.
///
/// How a solver ended (for example, that no allocation is feasible) is data and
/// stands in the solution, see [`Status`](crate::Status).
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The list of devices is empty.
    #[error("no devices: at least one is needed")]
    NoDevices,
    /// A list that needs an entry has none.
    #[error("{name} is empty: at least one is needed")]
    Empty {
        /// The argument.
        name: &'static str,
    },
    /// A list does not have one entry per device.
    #[error("{name} has {found} entries, expected {expected}: one per device")]
    Length {
        /// The argument.
        name: &'static str,
        /// Its number of entries.
        found: usize,
        /// The number of devices.
        expected: usize,
    },
    /// A number is outside its range.
    #[error("{name} is {value}, expected {accepted}")]
    Value {
        /// The argument.
        name: &'static str,
        /// Its value.
        value: f64,
        /// The range it must lie in.
        accepted: &'static str,
    },
    /// One entry of a list is outside its range.
    #[error("{name}[{index}] is {value}, expected {accepted}")]
    Entry {
        /// The argument.
        name: &'static str,
        /// The entry's position.
        index: usize,
        /// Its value.
        value: f64,
        /// The range it must lie in.
        accepted: &'static str,
    },
    /// Every input is legal on its own, but a result over- or underflows a double.
    #[error(
        "{name} cannot be represented: the magnitudes of the inputs are too far apart for doubles"
    )]
    Range {
        /// The quantity that left the range of a double.
        name: &'static str,
    },
    /// Measurements that do not determine what is fitted to them.
    #[error("{name} do not determine the fit, expected {needs}")]
    Undetermined {
        /// The argument.
        name: &'static str,
        /// What would be enough.
        needs: &'static str,
    },
    /// A combination of legal inputs that a function does not solve.
    #[error("{name} is {value}, expected {accepted}")]
    Unsupported {
        /// The argument.
        name: &'static str,
        /// Its value.
        value: &'static str,
        /// What the function accepts.
        accepted: &'static str,
    },
}

impl Error {
    /// The same mistake as entry `index` of a list.
    pub(crate) fn at(self, index: usize) -> Self {
        match self {
            Self::Value {
                name,
                value,
                accepted,
            } => Self::Entry {
                name,
                index,
                value,
                accepted,
            },
            other => other,
        }
    }
}

/// Result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// Accepts `value` if `ok`, otherwise names it.
pub(crate) fn check(
    ok: bool,
    name: &'static str,
    value: f64,
    accepted: &'static str,
) -> Result<()> {
    if ok {
        return Ok(());
    }
    Err(Error::Value {
        name,
        value,
        accepted,
    })
}

/// Accepts a rate: finite and positive.
pub(crate) fn check_rate(name: &'static str, x: f64) -> Result<()> {
    check(x > 0.0 && x.is_finite(), name, x, "finite and positive")
}

/// Accepts an amount: finite and at least 0.
pub(crate) fn check_size(name: &'static str, x: f64) -> Result<()> {
    check(x >= 0.0 && x.is_finite(), name, x, NOT_NEGATIVE)
}

/// What [`check_size`] accepts.
pub(crate) const NOT_NEGATIVE: &str = "finite and at least 0";

/// Accepts `found == expected`, otherwise names the list.
pub(crate) fn check_len(name: &'static str, found: usize, expected: usize) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Error::Length {
        name,
        found,
        expected,
    })
}

/// Accepts a list whose entries all lie in `0..=max`, otherwise names the first that does not.
pub(crate) fn check_entries(
    name: &'static str,
    values: &[f64],
    max: f64,
    accepted: &'static str,
) -> Result<()> {
    let legal = |x: f64| (0.0..=max).contains(&x);
    // Without an early exit the loop compiles to vector compares.
    if values.iter().fold(true, |ok, &x| ok & legal(x)) {
        return Ok(());
    }
    let index = values.iter().position(|&x| !legal(x)).unwrap_or(0);
    Err(Error::Entry {
        name,
        index,
        value: values[index],
        accepted,
    })
}
