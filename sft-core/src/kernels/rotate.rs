//! Rotary position embedding.

use super::kernels;

kernels! {
    /// Turns features `i` and `i + n` of each head of `width` features by an angle with cosine
    /// `cos[i]` and sine `sign * sin[i]`, in place; later features than `2 n` stay.
    pub(crate) fn rotate(heads: &mut [f32], width: usize, cos: &[f32], sin: &[f32], sign: f32) {
        for head in heads.chunks_exact_mut(width) {
            let (first, rest) = head.split_at_mut(cos.len());
            for (((a, b), cos), sin) in first.iter_mut().zip(rest).zip(cos).zip(sin) {
                let sin = sign * sin;
                (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_turn_and_turn_back() {
        let mut heads = [1.0, 2.0, 3.0, 4.0, 9.0, 5.0, 6.0, 7.0, 8.0, 9.0];
        let (before, cos, sin) = (heads, [0.0, 0.6], [1.0, 0.8]);
        rotate(&mut heads, 5, &cos, &sin, 1.0);
        let want = [-3.0, -2.0, 1.0, 4.0, 9.0, -7.0, -2.8, 5.0, 9.6, 9.0];
        let close = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5);
        assert!(close(&heads, &want), "{heads:?}");
        rotate(&mut heads, 5, &cos, &sin, -1.0);
        assert!(close(&heads, &before), "{heads:?}");
    }
}
