//! The layers that get an adapter.

use std::fmt;
use std::str::FromStr;

/// The layers that get an adapter: some of each block's six linears, the patch embedding, the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Targets(u8);

impl Targets {
    /// The layers' names in flags: the linears of a block in the order of
    /// [`Model::linears`](crate::Model::linears), then the patch embedding and the head.
    pub const NAMES: [&'static str; 8] = ["q", "k", "v", "o", "fc1", "fc2", "patch", "head"];
    /// Every linear layer of the blocks, as in the paper.
    pub const ALL: Self = Self(0b11_1111);
    /// No layer: the frozen model with a head.
    pub(crate) const NONE: Self = Self(0);
    /// The patch embedding's place among the names.
    pub(crate) const PATCH: usize = 6;
    /// The head's place among the names.
    pub(crate) const HEAD: usize = 7;

    /// Whether the layer at this place of [`Self::NAMES`] gets an adapter.
    pub fn contains(self, target: usize) -> bool {
        target < Self::NAMES.len() && self.0 >> target & 1 == 1
    }

    /// The layers at these places of [`Self::NAMES`].
    pub(crate) fn at(places: impl IntoIterator<Item = usize>) -> Self {
        Self(places.into_iter().fold(0, |bits, place| bits | 1 << place))
    }
}

impl FromStr for Targets {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let place = |name: &str| {
            let place = Self::NAMES.iter().position(|&known| known == name);
            place.ok_or_else(|| format!("{name:?} is none of {}", Self::NAMES.join(",")))
        };
        let places = text.split(',').map(place);
        places.collect::<Result<Vec<_>, _>>().map(Self::at)
    }
}

impl fmt::Display for Targets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places = (0..Self::NAMES.len()).filter(|&i| self.contains(i));
        f.write_str(&places.map(|i| Self::NAMES[i]).collect::<Vec<_>>().join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_as_they_are_written() {
        for text in ["q", "q,v", "k,o,fc2", "q,k,v,o,fc1,fc2", "q,patch,head"] {
            assert_eq!(text.parse::<Targets>().unwrap().to_string(), text);
        }
        for text in ["", "q,", "query", "q v", "classifier"] {
            let error = text.parse::<Targets>().unwrap_err();
            let wanted = " is none of q,k,v,o,fc1,fc2,patch,head";
            assert!(error.ends_with(wanted), "{text}: {error}");
        }
    }

    #[test]
    fn by_default_only_the_linears_of_the_blocks_are_targets() {
        assert_eq!(Targets::ALL.to_string(), "q,k,v,o,fc1,fc2");
        assert!(!Targets::ALL.contains(Targets::PATCH) && !Targets::ALL.contains(Targets::HEAD));
    }
}
