//! A part of a matrix, transposed.

use super::kernels;

/// Edge of a tile: a cache line of `f32`.
const TILE: usize = 16;

kernels! {
    /// Writes the columns of `from` `[rows, stride]`, starting with number `first`, as the rows of
    /// `out` `[columns, rows]`.
    ///
    /// It goes tile by tile, so that every cache line is read and written once: rows that are a
    /// multiple of 4 KiB apart would push each other out of the nearest cache.
    pub(crate) fn transpose_columns(from: &[f32], stride: usize, first: usize, out: &mut [f32]) {
        let rows = from.len() / stride;
        let columns = out.len() / rows;
        for column in (0..columns).step_by(TILE) {
            for row in (0..rows).step_by(TILE) {
                let (wide, high) = (TILE.min(columns - column), TILE.min(rows - row));
                let mut tile = [[0.0_f32; TILE]; TILE];
                for (r, from) in from[row * stride..].chunks(stride).take(high).enumerate() {
                    let line = &from[first + column..][..wide];
                    for (tile, value) in tile.iter_mut().zip(line) {
                        tile[r] = *value;
                    }
                }
                for (c, line) in tile.iter().take(wide).enumerate() {
                    out[(column + c) * rows + row..][..high].copy_from_slice(&line[..high]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_one_element_after_the_other() {
        for (rows, stride, first, columns) in [(1, 1, 0, 1), (33, 40, 5, 35), (48, 32, 16, 16)] {
            let from: Vec<f32> = (0..rows * stride).map(|i| i as f32).collect();
            let mut out = vec![0.0; rows * columns];
            transpose_columns(&from, stride, first, &mut out);
            let want: Vec<f32> = (0..rows * columns)
                .map(|i| from[i % rows * stride + first + i / rows])
                .collect();
            assert_eq!(out, want);
        }
    }
}
