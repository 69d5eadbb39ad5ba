//! A bounds-checked matrix product over slices.
#![allow(unsafe_code)]

/// Makes every matrix product of this process run on the thread that asks for it.
///
/// Products of this size lose more to being handed around than they gain from a second thread, and
/// the trainer gives each thread a device of its own.
pub(crate) fn one_thread_per_product() {
    gemm::set_threading_threshold(usize::MAX);
}

/// A strided view of a matrix that is read.
#[derive(Clone, Copy)]
pub(crate) struct Mat<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Mat<'a> {
    /// `rows` x `cols`, stored row after row without gaps.
    pub(crate) fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// `rows` x `cols`, one row every `row_stride` elements.
    pub(crate) fn strided(data: &'a [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        check(data.len(), rows, cols, row_stride);
        Self {
            data,
            rows,
            cols,
            row_stride,
            col_stride: 1,
        }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn cols(&self) -> usize {
        self.cols
    }

    /// The transpose, without moving anything.
    pub(crate) fn t(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }
}

/// A strided view of a matrix that is written; rows do not overlap.
pub(crate) struct MatMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
}

impl<'a> MatMut<'a> {
    /// `rows` x `cols`, stored row after row without gaps.
    pub(crate) fn new(data: &'a mut [f32], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// `rows` x `cols`, one row every `row_stride` elements.
    pub(crate) fn strided(
        data: &'a mut [f32],
        rows: usize,
        cols: usize,
        row_stride: usize,
    ) -> Self {
        check(data.len(), rows, cols, row_stride);
        Self {
            data,
            rows,
            cols,
            row_stride,
        }
    }
}

/// Every index `(rows - 1) * row_stride + (cols - 1)` of a view is in its slice.
fn check(len: usize, rows: usize, cols: usize, row_stride: usize) {
    assert!(
        row_stride >= cols,
        "row stride {row_stride} below {cols} columns"
    );
    let needed = if rows == 0 || cols == 0 {
        0
    } else {
        (rows - 1) * row_stride + cols
    };
    assert!(
        needed <= len,
        "a {rows}x{cols} view needs {needed} elements, the slice has {len}"
    );
}

/// `dst = keep * dst + scale * lhs * rhs` on one thread; with `keep` 0, `dst` is not read.
pub(crate) fn matmul(dst: MatMut<'_>, lhs: Mat<'_>, rhs: Mat<'_>, keep: f32, scale: f32) {
    let MatMut {
        data,
        rows,
        cols,
        row_stride,
    } = dst;
    assert_eq!(lhs.cols, rhs.rows, "inner sizes of a matrix product");
    assert_eq!(
        (rows, cols),
        (lhs.rows, rhs.cols),
        "output size of a matrix product"
    );
    if rows == 0 || cols == 0 {
        return;
    }
    // SAFETY: the constructors checked that every element that the views name
    // lies in their slices, and transposing names the same elements; the sizes
    // agree by the assertions above; `data` is borrowed exclusively, so it does
    // not overlap the inputs, and its rows do not overlap each other. Strides
    // are at most the length of a slice, so they fit an isize.
    unsafe {
        gemm::gemm(
            rows,
            cols,
            lhs.cols,
            data.as_mut_ptr(),
            1,
            row_stride.cast_signed(),
            keep != 0.0,
            lhs.data.as_ptr(),
            lhs.col_stride.cast_signed(),
            lhs.row_stride.cast_signed(),
            rhs.data.as_ptr(),
            rhs.col_stride.cast_signed(),
            rhs.row_stride.cast_signed(),
            keep,
            scale,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(len: usize, step: f32) -> Vec<f32> {
        (0..len).map(|i| (i as f32 * step).sin()).collect()
    }

    #[test]
    fn equals_three_loops_for_every_layout() {
        for (m, n, k) in [(1, 1, 1), (3, 5, 7), (16, 17, 64), (33, 4, 1), (2, 3, 0)] {
            let (a, b) = (ramp(m * k, 0.7), ramp(k * n, 0.3));
            let at: Vec<f32> = (0..m * k).map(|i| a[(i % m) * k + i / m]).collect();
            let wide = n + 2;
            let mut out = ramp(m * wide, 0.1);
            let before = out.clone();
            let lhs = Mat::new(&at, k, m).t();
            matmul(
                MatMut::strided(&mut out, m, n, wide),
                lhs,
                Mat::new(&b, k, n),
                1.0,
                2.0,
            );
            for i in 0..m {
                for j in 0..wide {
                    let dot: f32 = if j < n {
                        (0..k).map(|p| a[i * k + p] * b[p * n + j]).sum()
                    } else {
                        0.0
                    };
                    let want = before[i * wide + j] + 2.0 * dot;
                    assert!((out[i * wide + j] - want).abs() < 1e-5);
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "needs 12 elements")]
    fn a_view_past_the_slice_is_refused() {
        Mat::new(&[0.0; 11], 3, 4);
    }
}
