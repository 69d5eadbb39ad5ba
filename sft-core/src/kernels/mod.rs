//! The arithmetic under the block engine, over `f32` slices: the one door to
//! `gemm`, and elementwise kernels that the compiler vectorises for the
//! processor found at run time.
// A kernel must be inlined into the function that enables its instructions.
#![allow(clippy::inline_always)]

mod activation;
mod cross_entropy;
mod exp;
mod matmul;
mod norm;
mod reduce;
mod rotate;
mod softmax;
mod transpose;

pub(crate) use activation::{
    gate, gelu, gelu_and_slope, gelu_tanh, gelu_tanh_and_slope, relu, relu_and_slope, silu,
    silu_and_slope,
};
pub(crate) use cross_entropy::cross_entropy_rows;
pub(crate) use matmul::{Mat, MatMut, matmul, one_thread_per_product};
pub(crate) use norm::{layer_norm, layer_norm_backward, rms_norm, rms_norm_backward};
pub(crate) use rotate::rotate;
pub(crate) use softmax::{softmax_backward, softmax_rows};
pub(crate) use transpose::transpose_columns;

/// Defines functions whose bodies are compiled for the widest vector instructions of the processor
/// that runs them.
///
/// Each lane computes what the scalar code would (no contraction that the code does not name, no
/// reassociation), so the result does not depend on the processor. A closure would not do: the
/// compiler may leave it outside the function that enables the instructions.
macro_rules! kernels {
    ($($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) $body:block)*) => {$(
        $(#[$meta])*
        $vis fn $name($($arg: $type),*) {
            struct Kernel<T>(T);
            impl pulp::NullaryFnOnce for Kernel<($($type,)*)> {
                type Output = ();
                #[inline(always)]
                fn call(self) {
                    let ($($arg,)*) = self.0;
                    $body
                }
            }
            pulp::Arch::new().dispatch(Kernel(($($arg,)*)));
        }
    )*};
}
pub(crate) use kernels;

kernels! {
    /// `total += term`, element by element.
    pub(crate) fn add(total: &mut [f32], term: &[f32]) {
        for (total, term) in total.iter_mut().zip(term) {
            *total += term;
        }
    }

    /// `product *= factor`, element by element.
    pub(crate) fn multiply(product: &mut [f32], factor: &[f32]) {
        for (product, factor) in product.iter_mut().zip(factor) {
            *product *= factor;
        }
    }
}
