//! Frozen linear layers with LoRA adapters: `y = x (W + s B A)^T + b`.

use candle_core::Result;
use rayon::prelude::*;

use super::buffer::{Buffer, give_back, slice, take};
use super::frozen::FrozenWeight;
use super::lora::{LoraPair, LoraScratch, Pairs};
use crate::kernels::{Mat, MatMut, add, matmul};
use crate::layers::parts::LinearWeights;

/// Frozen linear layers side by side on one input.
#[derive(Debug)]
pub(super) struct Linear {
    weight: FrozenWeight,
    /// Of all layers; empty where none has one.
    bias: Vec<f32>,
    /// Outputs of each layer.
    widths: Vec<usize>,
}

impl Linear {
    /// Layers of these weights; beside others that have one, a layer without a bias gets one of zeros.
    pub(super) fn new<'w>(layers: impl IntoIterator<Item = &'w LinearWeights>) -> Result<Self> {
        let layers: Vec<_> = layers.into_iter().collect();
        let widths = layers.iter().map(|layer| layer.outputs());
        let widths = widths.collect::<Result<Vec<_>>>()?;
        let mut bias = Vec::new();
        if layers.iter().any(|layer| layer.bias.is_some()) {
            for (layer, &width) in layers.iter().zip(&widths) {
                match &layer.bias {
                    Some(values) => bias.extend(values.to_vec1::<f32>()?),
                    None => bias.resize(bias.len() + width, 0.0),
                }
            }
        }
        let weights: Vec<_> = layers.iter().map(|layer| &layer.weight).collect();
        let weight = FrozenWeight::stack(&weights)?;
        Ok(Self {
            weight,
            bias,
            widths,
        })
    }

    /// Inputs and outputs of each layer.
    pub(super) fn sizes(&self) -> impl Iterator<Item = [usize; 2]> {
        let inputs = self.weight.inputs();
        self.widths.iter().map(move |&outputs| [inputs, outputs])
    }

    /// Outputs of all layers.
    pub(super) fn outputs(&self) -> usize {
        self.weight.outputs()
    }

    /// Memory of the weights.
    pub(super) fn bytes(&self) -> usize {
        self.weight.bytes() + size_of_val(self.bias.as_slice())
    }

    /// The layers with the next adapters, ready for one pass.
    pub(super) fn adapted<'a>(&'a self, pairs: &mut Pairs<'a>, pass: Pass) -> Adapted<'a> {
        let pairs = self.sizes().map(|sizes| pairs.next(sizes)).collect();
        Adapted::new(self, pairs, pass)
    }
}

/// How a pass wants the weight of a linear layer. `gemm` packs it anew for every piece: with 400 rows
/// of ViT-B, a product with a transposed copy was measured to be 6 to 33 % faster than one with the
/// transpose of the weight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Pass {
    /// Many products `x W^T`: a transposed copy.
    Forward,
    /// Products `dy W` for so many rows together: as it is.
    Backward {
        /// Rows of all pieces.
        rows: usize,
    },
    /// No product.
    Unused,
}

/// Layers side by side on one input, each with its adapter, made ready for one pass.
///
/// Adapters are added into a copy of the weight, which saves two skinny products per token. Where the
/// weight can be used as it lies and is large, that pays only once there are more tokens than outputs.
/// A masked adapter cannot be added.
pub(super) struct Adapted<'a> {
    linear: &'a Linear,
    pairs: Vec<LoraPair<'a>>,
    pass: Pass,
    /// The weight as the pass wants it: `[inputs, outputs]` or `[outputs, inputs]`; empty where the frozen
    /// one is that.
    copy: Buffer,
    /// Whether the copy is with the adapters.
    added: bool,
}

/// Buffers of the gradients.
#[derive(Default)]
pub(super) struct LinearScratch {
    lora: LoraScratch,
    low: Buffer,
}

/// Rows of a weight's copy that are made at a time.
const COPIED_ROWS: usize = 192;
/// Elements of a weight that is large: its copy would not stay in the cache.
const LARGE: usize = 1 << 16;

impl<'a> Adapted<'a> {
    fn new(linear: &'a Linear, pairs: Vec<LoraPair<'a>>, pass: Pass) -> Self {
        let mut adapted = Self {
            linear,
            pairs,
            pass,
            copy: Buffer::new(),
            added: false,
        };
        match pass {
            Pass::Forward => adapted.copy_transposed(),
            Pass::Backward { rows } => {
                adapted.added = adapted.is_better_added(rows);
                if adapted.added || linear.weight.in_place().is_none() {
                    adapted.copy_as_it_is();
                }
            }
            Pass::Unused => (),
        }
        if !adapted.copy.is_empty() {
            linear.weight.release();
        }
        adapted
    }

    /// Whether products with so many rows are better made with the adapters added to a copy of the weight
    /// as it is.
    fn is_better_added(&self, rows: usize) -> bool {
        let few = rows <= self.outputs() && self.linear.weight.len() >= LARGE;
        !few && self.pairs.iter().any(LoraPair::can_be_added)
    }

    /// Whether a pair's part of the product is not in the product with the weight.
    fn is_apart(&self, pair: &LoraPair<'_>) -> bool {
        pair.rank > 0 && !(self.added && pair.can_be_added())
    }

    /// Length of the layers' part of the adapter vector.
    pub(super) fn parameters(&self) -> usize {
        self.pairs.iter().map(LoraPair::len).sum()
    }

    pub(super) fn inputs(&self) -> usize {
        self.linear.weight.inputs()
    }

    /// Outputs of all layers.
    pub(super) fn outputs(&self) -> usize {
        self.linear.outputs()
    }

    /// `[outputs, inputs]`
    fn weight(&self) -> Mat<'_> {
        let (inputs, outputs) = (self.inputs(), self.outputs());
        match (self.pass, self.linear.weight.in_place()) {
            (Pass::Forward, _) => Mat::new(&self.copy, inputs, outputs).t(),
            (_, Some(weight)) if self.copy.is_empty() => weight,
            _ => Mat::new(&self.copy, outputs, inputs),
        }
    }

    /// `W^T + s A^T B^T`
    fn copy_transposed(&mut self) {
        self.added = true;
        let (inputs, outputs) = (self.inputs(), self.outputs());
        let frozen = &self.linear.weight;
        let mut copy = take(frozen.len());
        let chunks = copy.par_chunks_mut(COPIED_ROWS * outputs).enumerate();
        chunks.for_each(|(i, copy)| {
            let (first, rows) = (i * COPIED_ROWS, copy.len() / outputs);
            frozen.read_columns(first, copy);
            for (start, width, pair) in self.parts() {
                if pair.can_be_added() {
                    let a = Mat::strided(&pair.a[first..], pair.rank, rows, inputs);
                    let b = Mat::new(pair.b, width, pair.rank);
                    let copy = MatMut::strided(&mut copy[start..], rows, width, outputs);
                    matmul(copy, a.t(), b.t(), 1.0, pair.scale);
                }
            }
        });
        self.copy = copy;
    }

    /// `W`, or `W + s B A` where the adapters are to be added.
    fn copy_as_it_is(&mut self) {
        let (inputs, frozen) = (self.inputs(), &self.linear.weight);
        let mut copy = take(frozen.len());
        let mut rest = copy.as_mut_slice();
        for (start, width, pair) in self.parts() {
            let (layer, others) = rest.split_at_mut(width * inputs);
            rest = others;
            let chunks = layer.par_chunks_mut(COPIED_ROWS * inputs);
            chunks.enumerate().for_each(|(i, copy)| {
                let (first, rows) = (i * COPIED_ROWS, copy.len() / inputs);
                frozen.read_rows(start + first..start + first + rows, copy);
                if self.added && pair.can_be_added() {
                    let b = Mat::new(&pair.b[first * pair.rank..], rows, pair.rank);
                    let a = Mat::new(pair.a, pair.rank, inputs);
                    matmul(MatMut::new(copy, rows, inputs), b, a, 1.0, pair.scale);
                }
            });
        }
        self.copy = copy;
    }

    /// Each layer's first column of the output, its number of columns, and its pair.
    fn parts(&self) -> impl Iterator<Item = (usize, usize, &LoraPair<'a>)> {
        let layers = self.linear.widths.iter().zip(&self.pairs);
        layers.scan(0, |next, (&width, pair)| {
            let start = *next;
            *next += width;
            Some((start, width, pair))
        })
    }

    /// Writes `y` for the rows of `x`, of which the first is number `first` of the batch, added
    /// to `residual` where there is one.
    pub(super) fn forward(&self, x: &[f32], first: usize, residual: Option<&[f32]>, y: &mut [f32]) {
        let (inputs, outputs) = (self.inputs(), self.outputs());
        let rows = x.len() / inputs;
        let keep = self.begin(residual, y);
        let (all, weight) = (Mat::new(x, rows, inputs), self.weight().t());
        matmul(MatMut::new(y, rows, outputs), all, weight, keep, 1.0);
        for (start, width, pair) in self.parts() {
            let Some(mask) = pair.mask(first) else {
                continue;
            };
            let mut masked = x.to_vec();
            mask.apply(&mut masked);
            let mut u = Buffer::new();
            let u = pair.low_rank(&masked, &mut u);
            let b = Mat::new(pair.b, width, pair.rank).t();
            let y = MatMut::strided(&mut y[start..], rows, width, outputs);
            matmul(y, u, b, 1.0, pair.scale);
        }
    }

    /// Writes into `y` what the product is added to; the factor of it, 0 where there is nothing.
    fn begin(&self, residual: Option<&[f32]>, y: &mut [f32]) -> f32 {
        let bias = self.linear.bias.as_slice();
        if bias.is_empty() {
            let Some(residual) = residual else { return 0.0 };
            y.copy_from_slice(residual);
            return 1.0;
        }
        let rows = y.chunks_exact_mut(bias.len());
        rows.for_each(|row| row.copy_from_slice(bias));
        if let Some(residual) = residual {
            add(y, residual);
        }
        1.0
    }

    /// Writes the gradient of the input, whose first row is number `first` of the batch.
    pub(super) fn input_gradient(
        &self,
        dy: &[f32],
        first: usize,
        dx: &mut [f32],
        scratch: &mut LinearScratch,
    ) {
        let (inputs, outputs) = (self.inputs(), self.outputs());
        let rows = dy.len() / outputs;
        let all = Mat::new(dy, rows, outputs);
        matmul(MatMut::new(dx, rows, inputs), all, self.weight(), 0.0, 1.0);
        for (start, width, pair) in self.parts() {
            if !self.is_apart(pair) {
                continue;
            }
            let dy = Mat::strided(&dy[start..], rows, width, outputs);
            let du = pair.low_rank_gradient(dy, &mut scratch.lora.du);
            let a = Mat::new(pair.a, pair.rank, inputs);
            let Some(mask) = pair.mask(first) else {
                matmul(MatMut::new(dx, rows, inputs), du, a, 1.0, 1.0);
                continue;
            };
            let low = slice(&mut scratch.low, dx.len());
            matmul(MatMut::new(low, rows, inputs), du, a, 0.0, 1.0);
            mask.apply(low);
            add(dx, low);
        }
    }

    /// Writes the adapters' gradients, one after the other, for the rows of `x`, of which the first
    /// is number `first` of the batch.
    pub(super) fn adapter_gradient(
        &self,
        x: &[f32],
        first: usize,
        dy: &[f32],
        mut grad: &mut [f32],
        scratch: &mut LinearScratch,
    ) {
        let outputs = self.outputs();
        let rows = dy.len() / outputs;
        for (start, width, pair) in self.parts() {
            let (own, rest) = std::mem::take(&mut grad).split_at_mut(pair.len());
            grad = rest;
            if pair.rank > 0 {
                let dy = Mat::strided(&dy[start..], rows, width, outputs);
                pair.gradient(x, first, dy, own, &mut scratch.lora);
            }
        }
    }
}

impl Drop for Adapted<'_> {
    fn drop(&mut self) {
        give_back(std::mem::take(&mut self.copy));
        self.linear.weight.release();
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use candle_core::{Device, Tensor};

    use super::*;
    use crate::adapter::Lora;
    use crate::layers::parts::Matrix;
    use crate::mapped::MappedFile;

    const WIDTH: usize = 256;

    fn some(count: usize, step: f32) -> Vec<f32> {
        (0..count).map(|i| (i as f32 * step).sin()).collect()
    }

    /// With few rows a large weight is used as it lies, the adapter apart from it; with many in a copy.
    #[test]
    fn the_gradient_of_the_input_is_the_same_with_a_copy_and_without() {
        let weight = some(WIDTH * WIDTH, 0.7);
        let weight = Tensor::from_vec(weight, (WIDTH, WIDTH), &Device::Cpu).unwrap();
        let linear = Linear::new([&LinearWeights {
            weight: weight.into(),
            bias: None,
        }])
        .unwrap();
        let vector = some(2 * 4 * WIDTH, 0.3);
        let (rows, dy) = (3, some(3 * WIDTH, 0.9));
        let gradient = |all| {
            let lora = Lora::new(4, 8.0).unwrap();
            let mut pairs = Pairs::new(Some(lora), &vector);
            let adapted = linear.adapted(&mut pairs, Pass::Backward { rows: all });
            let mut dx = vec![0.0; rows * WIDTH];
            adapted.input_gradient(&dy, 0, &mut dx, &mut LinearScratch::default());
            (adapted.copy.is_empty(), dx)
        };
        let ((in_place, few), (copied, many)) = (gradient(rows), gradient(2 * WIDTH));
        assert_eq!((in_place, copied), (true, false));
        let top = many.iter().fold(0.0f32, |top, dx| top.max(dx.abs()));
        for (few, many) in few.iter().zip(&many) {
            assert!((few - many).abs() < 1e-4 * top, "{few} {many}");
        }
    }

    /// Matrices that do not follow each other in a mapped file are parts, others one; all give the same bits.
    #[cfg(target_endian = "little")]
    #[test]
    fn weights_in_a_file_give_the_bits_of_those_in_memory() {
        let values = some(3 * WIDTH * WIDTH, 0.7);
        let path = std::env::temp_dir().join(format!("sft-linear-{}", std::process::id()));
        let bytes: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        std::fs::write(&path, bytes).unwrap();
        let file = MappedFile::new(&File::open(&path).unwrap()).unwrap();
        std::fs::remove_file(&path).unwrap();
        let bytes = 4 * WIDTH * WIDTH;
        let in_file = |i: usize| Matrix::File {
            values: file.floats((i * bytes) as u64, bytes).unwrap(),
            outputs: WIDTH,
            inputs: WIDTH,
        };
        let in_memory = |i: usize| Matrix::from(in_file(i).tensor().unwrap());
        let vector = some(3 * 2 * 4 * WIDTH, 0.3);
        let (rows, x, dy) = (3, some(3 * WIDTH, 0.9), some(3 * 3 * WIDTH, 0.8));
        let bits = |matrix: &dyn Fn(usize) -> Matrix, order: [usize; 3], all| {
            let linears = order.map(|i| LinearWeights {
                weight: matrix(i),
                bias: None,
            });
            let linear = Linear::new(&linears).unwrap();
            let lora = Lora::new(4, 8.0).unwrap();
            let adapted = |pass| linear.adapted(&mut Pairs::new(Some(lora), &vector), pass);
            let (mut y, mut dx) = (vec![0.0; rows * 3 * WIDTH], vec![0.0; rows * WIDTH]);
            adapted(Pass::Forward).forward(&x, 0, None, &mut y);
            let backward = adapted(Pass::Backward { rows: all });
            backward.input_gradient(&dy, 0, &mut dx, &mut LinearScratch::default());
            (y, dx)
        };
        for (order, all) in [[0, 1, 2], [1, 0, 2]]
            .into_iter()
            .flat_map(|order| [(order, rows), (order, 4 * WIDTH)])
        {
            let same = bits(&in_file, order, all) == bits(&in_memory, order, all);
            assert!(same, "{order:?}, {all} rows");
        }
    }
}
