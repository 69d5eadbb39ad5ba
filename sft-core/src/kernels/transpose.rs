//! A part of a matrix, transposed.

/// Edge of a tile: a vector of `f32`.
const EDGE: usize = 8;
/// Rows that are read side by side, so many that every cache line is written as a whole, so few that
/// the processor still fetches all of them ahead: measured from 16 to 128.
const READ_ROWS: usize = 32;

/// Some rows and columns.
type Tile = [[f32; EDGE]; EDGE];

/// Writes the columns of `from` `[rows, stride]`, starting with number `first`, as the rows of
/// `out` `[columns, rows]`, `pitch` elements from one row of it to the next.
pub(crate) fn transpose_columns(
    from: &[f32],
    stride: usize,
    first: usize,
    out: &mut [f32],
    pitch: usize,
) {
    let job = Job {
        from,
        stride,
        first,
        out,
        pitch,
    };
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = pulp::x86::V3::try_new() {
        return simd.vectorize(avx::Transpose(job, simd));
    }
    job.run(one_by_one);
}

struct Job<'a> {
    from: &'a [f32],
    stride: usize,
    first: usize,
    out: &'a mut [f32],
    pitch: usize,
}

impl Job<'_> {
    /// Tile by tile, along the rows that are read: going down the columns, each cache line would lie in
    /// a page of its own.
    #[inline(always)]
    fn run(self, transpose: impl Fn(Tile) -> Tile) {
        let rows = self.from.len() / self.stride;
        let columns = self.out.len().div_ceil(self.pitch);
        for block in (0..rows).step_by(READ_ROWS) {
            let end = rows.min(block + READ_ROWS);
            for column in (0..columns).step_by(EDGE) {
                for row in (block..end).step_by(EDGE) {
                    let (wide, high) = (EDGE.min(columns - column), EDGE.min(end - row));
                    let from = &self.from[row * self.stride + self.first + column..];
                    let out = &mut self.out[column * self.pitch + row..];
                    if (wide, high) == (EDGE, EDGE) {
                        write(transpose(read(from, self.stride)), out, self.pitch);
                    } else {
                        write_part([wide, high], from, self.stride, out, self.pitch);
                    }
                }
            }
        }
    }
}

/// A whole tile of `from`.
#[inline(always)]
fn read(from: &[f32], stride: usize) -> Tile {
    std::array::from_fn(|row| {
        from[row * stride..]
            .first_chunk()
            .copied()
            .unwrap_or_default()
    })
}

#[inline(always)]
fn write(tile: Tile, out: &mut [f32], stride: usize) {
    for (row, line) in tile.into_iter().enumerate() {
        if let Some(out) = out[row * stride..].first_chunk_mut() {
            *out = line;
        }
    }
}

/// What is less than a tile, at the edges.
fn write_part(
    [wide, high]: [usize; 2],
    from: &[f32],
    stride: usize,
    out: &mut [f32],
    pitch: usize,
) {
    for column in 0..wide {
        for row in 0..high {
            out[column * pitch + row] = from[row * stride + column];
        }
    }
}

#[inline(always)]
fn one_by_one(tile: Tile) -> Tile {
    std::array::from_fn(|i| tile.map(|line| line[i]))
}

/// Tiles in vectors of AVX.
#[cfg(target_arch = "x86_64")]
mod avx {
    use pulp::cast;
    use pulp::x86::V3;

    use super::{EDGE, Job, Tile};

    pub(super) struct Transpose<'a>(pub(super) Job<'a>, pub(super) V3);

    impl pulp::NullaryFnOnce for Transpose<'_> {
        type Output = ();

        #[inline(always)]
        fn call(self) {
            let Self(job, simd) = self;
            job.run(
                #[inline(always)]
                |tile| transpose(simd.avx, tile),
            );
        }
    }

    /// Pairs of rows become pairs of elements, then fours, then eights.
    #[inline(always)]
    fn transpose(avx: pulp::core_arch::x86::Avx, tile: Tile) -> Tile {
        let rows = tile.map(cast);
        let twos: [_; EDGE] = std::array::from_fn(|i| {
            let (a, b) = (rows[i / 2 * 2], rows[i / 2 * 2 + 1]);
            if i % 2 == 0 {
                avx._mm256_unpacklo_ps(a, b)
            } else {
                avx._mm256_unpackhi_ps(a, b)
            }
        });
        let fours: [_; EDGE] = std::array::from_fn(|i| {
            let first = i / 4 * 4 + i % 4 / 2;
            let (a, b) = (twos[first], twos[first + 2]);
            if i % 2 == 0 {
                avx._mm256_shuffle_ps::<0x44>(a, b)
            } else {
                avx._mm256_shuffle_ps::<0xee>(a, b)
            }
        });
        let columns: [_; EDGE] = std::array::from_fn(|i| {
            let (a, b) = (fours[i % 4], fours[i % 4 + 4]);
            if i < 4 {
                avx._mm256_permute2f128_ps::<0x20>(a, b)
            } else {
                avx._mm256_permute2f128_ps::<0x31>(a, b)
            }
        });
        columns.map(cast)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_one_element_after_the_other() {
        for (rows, stride, first, columns, gap) in [
            (1, 1, 0, 1, 0),
            (33, 40, 5, 35, 0),
            (48, 32, 16, 16, 3),
            (71, 8, 0, 8, 1),
            (8, 100, 91, 9, 24),
        ] {
            let from: Vec<f32> = (0..rows * stride).map(|i| i as f32).collect();
            let pitch = rows + gap;
            let len = (columns - 1) * pitch + rows;
            // What is between two rows of the result is left as it is.
            let at = |i: usize| {
                let (column, row) = (i / pitch, i % pitch);
                (row < rows).then(|| from[row * stride + first + column])
            };
            let want: Vec<f32> = (0..len).map(|i| at(i).unwrap_or(-1.0)).collect();
            let (mut found, mut slow) = (vec![-1.0; len], vec![-1.0; len]);
            transpose_columns(&from, stride, first, &mut found, pitch);
            let job = Job {
                from: &from,
                stride,
                first,
                out: &mut slow,
                pitch,
            };
            job.run(one_by_one);
            assert_eq!(found, want);
            assert_eq!(slow, want);
        }
    }
}
