//! What passes through a block at once.

/// The tokens of each sample whose hidden state after a block is wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wanted {
    All,
    /// As many of the first, or all.
    First(usize),
    /// As many of the last, or all.
    Last(usize),
}

impl Wanted {
    /// Those of a sample of so many.
    pub(super) fn of(self, all: usize) -> Tokens {
        let wanted = match self {
            Self::All => all,
            Self::First(most) | Self::Last(most) => most.min(all),
        };
        let from = match self {
            Self::Last(_) => all - wanted,
            _ => 0,
        };
        Tokens { all, from, wanted }
    }
}

/// The rows of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tokens {
    pub(super) all: usize,
    /// The first whose hidden state after the block is wanted.
    pub(super) from: usize,
    /// How many from there on are.
    pub(super) wanted: usize,
}

/// Some samples of a batch; their rows follow each other without padding.
#[derive(Clone, Copy)]
pub(super) struct Piece<'a> {
    /// Their rows.
    pub(super) x: &'a [f32],
    /// The number of their first row among those of the batch.
    pub(super) first: usize,
    pub(super) samples: &'a [Tokens],
}

impl<'a> Piece<'a> {
    /// The same samples with other rows.
    pub(super) fn with<'b>(self, x: &'b [f32]) -> Piece<'b>
    where
        'a: 'b,
    {
        Piece { x, ..self }
    }

    /// Rows whose hidden state is wanted.
    pub(super) fn wanted(self) -> usize {
        self.samples.iter().map(|tokens| tokens.wanted).sum()
    }
}

/// Each sample's tokens, the number of its first row, and that of its first row among the wanted
/// ones.
pub(super) fn places(samples: &[Tokens]) -> impl Iterator<Item = (Tokens, usize, usize)> {
    samples.iter().scan((0, 0), |(row, wanted), &tokens| {
        let place = (tokens, *row, *wanted);
        *row += tokens.all;
        *wanted += tokens.wanted;
        Some(place)
    })
}
