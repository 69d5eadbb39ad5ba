//! The arithmetic under the block engine, over `f32` slices: the one door to
//! `gemm`, and elementwise kernels that the compiler vectorises for the
//! processor found at run time.
// A kernel must be inlined into the function that enables its instructions.
#![allow(clippy::inline_always)]

mod activation;
mod matmul;
mod norm;

pub(crate) use activation::{gelu, gelu_with_slope, softmax_rows};
pub(crate) use matmul::{Mat, MatMut, matmul};
pub(crate) use norm::{layer_norm, layer_norm_backward};

/// Runs `body` compiled for the widest vector instructions of this processor.
///
/// Each lane computes what the scalar code would (no contraction that the code does not
/// name, no reassociation), so the result does not depend on the processor.
#[inline(always)]
pub(crate) fn vectorized<R>(body: impl FnOnce() -> R) -> R {
    struct Body<F>(F);
    impl<R, F: FnOnce() -> R> pulp::NullaryFnOnce for Body<F> {
        type Output = R;
        #[inline(always)]
        fn call(self) -> R {
            (self.0)()
        }
    }
    pulp::Arch::new().dispatch(Body(body))
}

/// `total += term`, element by element.
pub(crate) fn add(total: &mut [f32], term: &[f32]) {
    vectorized(|| {
        for (total, term) in total.iter_mut().zip(term) {
            *total += term;
        }
    });
}

/// `product *= factor`, element by element.
pub(crate) fn multiply(product: &mut [f32], factor: &[f32]) {
    vectorized(|| {
        for (product, factor) in product.iter_mut().zip(factor) {
            *product *= factor;
        }
    });
}
