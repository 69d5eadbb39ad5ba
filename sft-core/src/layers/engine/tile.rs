//! The tiles of an attention: some queries of a sample's head, and the keys that any of them sees.

use std::ops::Range;

use super::heads::DotProduct;
use super::piece::{Tokens, places};
use crate::layers::parts::Mask;

/// Queries of a tile where each sees as far as its own position.
const TILE_ROWS: usize = 64;

/// Scores of a tile where every query sees all keys: 2 MiB.
const TILE_SCORES: usize = 1 << 19;

/// Where a tile lies in a piece.
pub(super) struct Tile {
    /// Positions in the sample.
    pub(super) queries: Range<usize>,
    pub(super) keys: Range<usize>,
    /// Tokens of the sample.
    pub(super) tokens: usize,
    /// Where they start in the rows of queries, keys and values.
    pub(super) q: usize,
    pub(super) k: usize,
    pub(super) v: usize,
    /// Where the queries' context starts.
    pub(super) context: usize,
    /// Whether this is the first tile of the first head that has these keys and values.
    pub(super) first: bool,
}

impl Tile {
    /// Numbers of queries and keys.
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.queries.len(), self.keys.len())
    }

    pub(super) fn scores(&self) -> usize {
        self.queries.len() * self.keys.len()
    }
}

impl DotProduct {
    /// Every tile of every head of every sample, a head's from the first queries to the last.
    pub(super) fn tiles<'s>(&'s self, samples: &'s [Tokens]) -> impl Iterator<Item = Tile> + 's {
        places(samples).flat_map(move |(tokens, row, out)| {
            (0..self.heads).flat_map(move |head| {
                let tile =
                    move |(queries, keys)| self.tile(tokens, [row, out], head, queries, keys);
                spans(self.mask, tokens).map(tile)
            })
        })
    }

    /// A tile of the sample that starts at these rows before and after the attention.
    fn tile(
        &self,
        tokens: Tokens,
        [row, out]: [usize; 2],
        head: usize,
        queries: Range<usize>,
        keys: Range<usize>,
    ) -> Tile {
        let group = self.heads / self.kv_heads;
        let kv_head = self.heads + head / group;
        let start = |row: usize, head: usize| row * self.stride() + head * self.head_width;
        Tile {
            tokens: tokens.all,
            q: start(row + queries.start, head),
            k: start(row + keys.start, kv_head),
            v: start(row + keys.start, kv_head + self.kv_heads),
            context: (out + queries.start - tokens.from) * self.width() + head * self.head_width,
            first: head.is_multiple_of(group) && queries.start == tokens.from,
            queries,
            keys,
        }
    }
}

/// The positions of each tile's queries and keys in a sample.
fn spans(mask: Mask, tokens: Tokens) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
    let Tokens { all, from, wanted } = tokens;
    let end = from + wanted;
    let rows = match mask {
        Mask::None => (TILE_SCORES / all).max(TILE_ROWS),
        Mask::Causal { .. } => TILE_ROWS,
    };
    (from..end).step_by(rows).map(move |first| {
        let end = (first + rows).min(end);
        let keys = mask.visible(first, all).start..mask.visible(end - 1, all).end;
        (first..end, keys)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::Wanted;

    /// No tile of a masked attention has more than its rows and the window's keys.
    #[test]
    fn tiles_hold_what_their_queries_see() {
        let of = |mask, all, wanted| spans(mask, Wanted::First(wanted).of(all)).collect::<Vec<_>>();
        let last =
            |mask, all, wanted| spans(mask, Wanted::Last(wanted).of(all)).collect::<Vec<_>>();
        let causal = |window| Mask::Causal { window };
        assert_eq!(of(Mask::None, 197, 197), [(0..197, 0..197)]);
        assert_eq!(of(Mask::None, 197, 1), [(0..1, 0..197)]);
        let tiles = of(causal(None), 150, 150);
        assert_eq!(
            tiles,
            [(0..64, 0..64), (64..128, 0..128), (128..150, 0..150)]
        );
        let tiles = of(causal(Some(40)), 150, 100);
        assert_eq!(tiles, [(0..64, 0..64), (64..100, 25..100)]);
        assert_eq!(last(Mask::None, 197, 1), [(196..197, 0..197)]);
        assert_eq!(last(causal(Some(40)), 150, 1), [(149..150, 110..150)]);
        let tiles = last(causal(None), 150, 70);
        assert_eq!(tiles, [(80..144, 0..144), (144..150, 0..150)]);
    }
}
