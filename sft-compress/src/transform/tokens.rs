use crate::error::{Error, Result};

/// The longest side of a grid.
const MAX_SIDE: usize = 1 << 10;
/// The most tokens before the grid.
const MAX_PREFIX: usize = 64;

/// How the tokens of a sample lie: first those of the prefix, such as a class token, then a grid,
/// or a sequence of any length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tokens {
    prefix: usize,
    grid: Option<[usize; 2]>,
}

impl Tokens {
    /// `prefix` tokens, up to 64, and a grid of `height` × `width`, up to 1024 each.
    ///
    /// # Errors
    /// `InvalidArgument` for a number outside its range.
    pub fn grid(prefix: usize, height: usize, width: usize) -> Result<Self> {
        for (name, side) in [("height", height), ("width", width)] {
            if !(1..=MAX_SIDE).contains(&side) {
                return Err(Error::invalid(format!(
                    "{name} must be in 1..={MAX_SIDE}, got {side}"
                )));
            }
        }
        let grid = Some([height, width]);
        Self::sequence(prefix).map(|tokens| Self { grid, ..tokens })
    }

    /// `prefix` tokens, up to 64, and a sequence.
    ///
    /// # Errors
    /// `InvalidArgument` for a longer prefix.
    pub fn sequence(prefix: usize) -> Result<Self> {
        if prefix > MAX_PREFIX {
            return Err(Error::invalid(format!(
                "prefix must be at most {MAX_PREFIX}, got {prefix}"
            )));
        }
        Ok(Self { prefix, grid: None })
    }

    /// Tokens before the grid or the sequence.
    pub fn prefix(&self) -> usize {
        self.prefix
    }

    /// Height and width of the grid, if there is one.
    pub fn sides(&self) -> Option<[usize; 2]> {
        self.grid
    }

    /// Groups of tokens with a step of their own: each of the prefix; of a grid's spectrum those of
    /// the same sum of frequencies, of a sequence all.
    pub(super) fn groups(&self) -> usize {
        self.prefix + self.grid.map_or(1, |[height, width]| height + width - 1)
    }

    /// What equal tokens add up to in the lowest frequency, over one of them.
    #[cfg(feature = "learn")]
    pub(super) fn gain(&self) -> f64 {
        self.grid
            .map_or(1.0, |[height, width]| ((height * width) as f64).sqrt())
    }

    /// Whether a sample of so many tokens lies so.
    pub(crate) fn check(&self, tokens: usize) -> Result<()> {
        let holds = match self.grid {
            Some([height, width]) => tokens == self.prefix + height * width,
            None => tokens >= self.prefix,
        };
        if holds {
            return Ok(());
        }
        let expected = match self.grid {
            Some([height, width]) => format!("{} + {height} x {width}", self.prefix),
            None => format!("at least {}", self.prefix),
        };
        Err(Error::invalid(format!(
            "the tokens of a sample must be {expected}, got {tokens}"
        )))
    }

    /// Whether rows behind the prefix may be like its first token, as those of massive activations
    /// in a language model are.
    pub(crate) fn has_sinks(&self) -> bool {
        self.grid.is_none() && self.prefix > 0
    }

    /// The group of a row: of a token of the prefix, of a frequency, or of a sequence's token.
    pub(super) fn group(&self, row: usize) -> usize {
        match (row.checked_sub(self.prefix), self.grid) {
            (None, _) => row,
            (Some(_), None) => self.prefix,
            (Some(at), Some([_, width])) => self.prefix + at / width + at % width,
        }
    }

    /// The rows before a row in the order of coding that it is compared with: the next lower
    /// frequency either way, or the token before.
    pub(super) fn parents(&self, row: usize) -> [Option<usize>; 2] {
        match (row.checked_sub(self.prefix), self.grid) {
            (None, _) | (Some(0), None) => [None; 2],
            (Some(_), None) => [Some(row - 1), None],
            (Some(at), Some([_, width])) => [
                (!at.is_multiple_of(width)).then(|| row - 1),
                (at >= width).then(|| row - width),
            ],
        }
    }

    /// The rows in the order of coding: by group.
    pub(super) fn order(&self, tokens: usize) -> Vec<u32> {
        let mut rows: Vec<u32> = (0..tokens as u32).collect();
        rows.sort_by_key(|&row| self.group(row as usize));
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_come_before_their_rows() {
        for tokens in [Tokens::grid(1, 3, 5).unwrap(), Tokens::sequence(2).unwrap()] {
            let order = tokens.order(16);
            let place = |row: usize| order.iter().position(|&r| r as usize == row).unwrap();
            for row in 0..16 {
                assert!(tokens.group(row) < tokens.groups());
                for parent in tokens.parents(row).into_iter().flatten() {
                    assert!(place(parent) < place(row));
                }
            }
        }
    }

    #[test]
    fn wrong_layouts_are_refused() {
        assert!(Tokens::grid(1, 0, 5).is_err());
        assert!(Tokens::grid(1, 5, 1025).is_err());
        assert!(Tokens::sequence(65).is_err());
        let error = Tokens::grid(1, 3, 5).unwrap().check(15).unwrap_err();
        assert!(error.to_string().contains("1 + 3 x 5, got 15"), "{error}");
        assert!(Tokens::sequence(2).unwrap().check(1).is_err());
    }
}
