//! Language modelling: the next token of each token, by the model's own frozen head.
//!
//! The logits `[T, V]` of a batch are many times what the rest of the model needs. They are made for
//! some rows at a time, and as the head is frozen, what a chunk gives the gradient of the features can
//! be had at once: nothing of the chunk is kept for a backward pass.

use candle_core::{D, Result as TensorResult, Tensor, bail};
use rayon::prelude::*;

use super::Score;
use crate::data::Labels;
use crate::kernels::{Mat, MatMut, cross_entropy_rows, matmul};
use crate::layers::{Backend, with_gradient, with_slices};
use crate::{Error, Result};

/// Logits at once: 16 MiB a thread, in rows of the vocabulary. The chunks depend on nothing else, so neither
/// does any sum.
const CHUNK_LOGITS: usize = 1 << 22;
/// The fewest rows of a chunk: with fewer a product is about reading the head.
const FEWEST_ROWS: usize = 16;

/// The head of a language model, `[V, D]`, where it is computed.
#[derive(Debug)]
pub(crate) struct LanguageHead {
    weight: Tensor,
    backend: Backend,
}

/// What some rows give.
struct Chunk {
    losses: Vec<f32>,
    right: usize,
    /// `[C, D]`, where it is wanted.
    gradient: Vec<f32>,
}

/// A row of the features, and the token after it.
type Target = (usize, u32);

impl LanguageHead {
    pub(crate) fn new(weight: Tensor, backend: &Backend) -> Self {
        Self {
            weight,
            backend: backend.clone(),
        }
    }

    /// Tokens of the vocabulary, V.
    pub(crate) fn vocabulary(&self) -> usize {
        self.weight.dims().first().copied().unwrap_or(0)
    }

    /// The logits `[T, V]` of features `[T, D]`.
    pub(crate) fn logits(&self, features: &Tensor) -> Result<Tensor> {
        Ok(features.matmul(&self.weight.t()?)?)
    }

    /// The mean cross-entropy of the tokens that count, a scalar; differentiable in the features
    /// `[T, D]`, on a backend of candle's operations also in the head.
    ///
    /// # Errors
    /// Labels of another kind or number, a token beyond the vocabulary, or none that counts.
    pub(crate) fn loss(&self, features: &Tensor, labels: &Labels) -> Result<Tensor> {
        let targets = self.targets(features, labels)?;
        match &self.backend {
            Backend::Candle(_) => Ok(self.composed(features, &targets)?),
            Backend::Engine { .. } => Ok(self.fused(features, &targets)?),
        }
    }

    /// How well the tokens that count are told.
    ///
    /// # Errors
    /// As [`Self::loss`].
    pub(crate) fn score(&self, features: &Tensor, labels: &Labels) -> Result<Score> {
        let targets = self.targets(features, labels)?;
        if let Backend::Candle(_) = &self.backend {
            let logits = self.logits(&counted(features, &targets)?)?;
            let found = logits.argmax(D::Minus1)?.to_vec1::<u32>()?;
            let right = found.iter().zip(&targets).filter(|(a, (_, b))| *a == b);
            let mean = f64::from(self.composed(features, &targets)?.to_scalar::<f32>()?);
            return Ok(Score {
                right: right.count(),
                counted: targets.len(),
                loss: mean * targets.len() as f64,
            });
        }
        let chunks = self.chunks(&features.detach(), &targets, None)?;
        Ok(Score {
            right: chunks.iter().map(|chunk| chunk.right).sum(),
            counted: targets.len(),
            loss: sum(&chunks),
        })
    }

    fn targets(&self, features: &Tensor, labels: &Labels) -> Result<Vec<Target>> {
        let Labels::Tokens(tokens) = labels else {
            let reason = "must be next tokens for a language model, got classes";
            return Err(Error::argument("labels", reason));
        };
        let (got, rows) = (tokens.len(), features.dim(0)?);
        let accepted = format!("one for each of {rows} tokens");
        Error::require(got == rows, "labels", got, &accepted)?;
        let targets = tokens.iter().copied().enumerate();
        let targets: Vec<_> = targets
            .filter(|(_, target)| *target != Labels::IGNORED)
            .collect();
        let vocabulary = self.vocabulary();
        let wrong = targets.iter().find(|(_, t)| *t as usize >= vocabulary);
        if let Some((_, token)) = wrong {
            let reason = format!("must be below {vocabulary}, the vocabulary, got {token}");
            return Err(Error::argument("labels", reason));
        }
        Error::require(!targets.is_empty(), "labels", 0, "at least one that counts")?;
        Ok(targets)
    }

    /// The loss in candle's operations.
    fn composed(&self, features: &Tensor, targets: &[Target]) -> TensorResult<Tensor> {
        let logits = counted(features, targets)?.matmul(&self.weight.t()?)?;
        let tokens: Vec<_> = targets.iter().map(|(_, token)| *token).collect();
        let tokens = Tensor::new(tokens, logits.device())?;
        candle_nn::loss::cross_entropy(&logits, &tokens)
    }

    /// The loss with its gradient, chunk by chunk.
    fn fused(&self, features: &Tensor, targets: &[Target]) -> TensorResult<Tensor> {
        let (rows, width) = features.dims2()?;
        let count = targets.len();
        let scale = features.track_op().then_some(1.0 / count as f32);
        let chunks = self.chunks(&features.detach(), targets, scale)?;
        let mean = (sum(&chunks) / count as f64) as f32;
        let mut gradient = vec![0.0; if scale.is_some() { rows * width } else { 0 }];
        let parts = chunks.iter().flat_map(|c| c.gradient.chunks_exact(width));
        for ((row, _), part) in targets.iter().zip(parts) {
            gradient[row * width..][..width].copy_from_slice(part);
        }
        if scale.is_none() {
            return Tensor::new(mean, features.device());
        }
        let gradient = Tensor::from_vec(gradient, (rows, width), features.device())?;
        with_gradient(features, mean, gradient)
    }

    /// What chunks of targets give, each with the gradient of its features where there is a `scale`
    /// for it.
    fn chunks(
        &self,
        features: &Tensor,
        targets: &[Target],
        scale: Option<f32>,
    ) -> TensorResult<Vec<Chunk>> {
        let (vocabulary, width) = self.weight.dims2()?;
        if features.dim(1)? != width {
            bail!(
                "the head reads {width} features, got {:?}",
                features.shape()
            )
        }
        let rows = (CHUNK_LOGITS / vocabulary.max(1)).max(FEWEST_ROWS);
        let features = features.contiguous()?;
        let tensors = [&features, &self.weight.contiguous()?];
        with_slices(tensors, |[features, weight]| {
            let weight = Mat::new(weight, vocabulary, width);
            let chunk = |targets: &[Target]| chunk(features, weight, targets, scale);
            targets.par_chunks(rows).map(chunk).collect()
        })
    }
}

/// The rows of features that count.
fn counted(features: &Tensor, targets: &[Target]) -> TensorResult<Tensor> {
    let rows: Vec<_> = targets.iter().map(|(row, _)| *row as u32).collect();
    features.index_select(&Tensor::new(rows, features.device())?, 0)
}

fn chunk(features: &[f32], weight: Mat<'_>, targets: &[Target], scale: Option<f32>) -> Chunk {
    let (vocabulary, width, count) = (weight.rows(), weight.cols(), targets.len());
    let rows = targets
        .iter()
        .map(|(row, _)| &features[row * width..][..width]);
    let rows = rows.collect::<Vec<_>>().concat();
    let tokens: Vec<_> = targets.iter().map(|(_, token)| *token).collect();
    let mut logits = vec![0.0; count * vocabulary];
    let out = MatMut::new(&mut logits, count, vocabulary);
    matmul(out, Mat::new(&rows, count, width), weight.t(), 0.0, 1.0);
    let is_top = |(row, &token): (&[f32], &u32)| {
        let own = row[token as usize];
        let (before, after) = row.split_at(token as usize);
        before.iter().all(|&other| other < own) && after.iter().all(|&other| other <= own)
    };
    let right = logits.chunks_exact(vocabulary).zip(&tokens);
    let right = right.filter(|pair| is_top(*pair)).count();
    let mut losses = vec![0.0; count];
    let factor = scale.unwrap_or(0.0);
    cross_entropy_rows(&mut logits, vocabulary, &tokens, factor, &mut losses);
    let mut gradient = vec![0.0; scale.map_or(0, |_| count * width)];
    if scale.is_some() {
        let out = MatMut::new(&mut gradient, count, width);
        matmul(out, Mat::new(&logits, count, vocabulary), weight, 0.0, 1.0);
    }
    Chunk {
        losses,
        right,
        gradient,
    }
}

/// The sum of the losses in their order.
fn sum(chunks: &[Chunk]) -> f64 {
    let losses = chunks.iter().flat_map(|chunk| &chunk.losses);
    losses.map(|&loss| f64::from(loss)).sum()
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;
    use crate::adapter::normal;
    use crate::parallel::with_threads;
    use crate::seed;

    const SIZES: [usize; 3] = [61, 12, 70_000];

    fn some(shape: (usize, usize), seed: u64) -> Tensor {
        let mut rng = seed::rng(seed, &[]);
        let values = (0..shape.0 * shape.1).map(|_| 2.0 * normal(&mut rng) as f32);
        Tensor::from_vec(values.collect(), shape, &Device::Cpu).unwrap()
    }

    /// A vocabulary of which a chunk holds a part of the rows, and a small one.
    fn cases() -> impl Iterator<Item = (Tensor, Var, Labels)> {
        [SIZES, [7, 5, 9]]
            .into_iter()
            .map(|[tokens, width, vocabulary]| {
                let target = |i: usize| match i % 3 {
                    0 => Labels::IGNORED,
                    _ => (i * 7919 % vocabulary) as u32,
                };
                let labels = Labels::Tokens((0..tokens).map(target).collect());
                let features = Var::from_tensor(&some((tokens, width), 1)).unwrap();
                (some((vocabulary, width), 2), features, labels)
            })
    }

    fn heads(weight: &Tensor) -> [LanguageHead; 2] {
        let backends = [Backend::default(), Backend::Candle(Device::Cpu)];
        backends.map(|backend| LanguageHead::new(weight.clone(), &backend))
    }

    #[test]
    fn chunks_give_the_loss_and_the_gradient_of_all_logits_at_once() {
        for (weight, features, labels) in cases() {
            let outcome = |head: LanguageHead| {
                let loss = head.loss(&features, &labels).unwrap();
                let gradient = (loss.clone() * 3.0).unwrap().backward().unwrap();
                let gradient = gradient.get(&features).unwrap().flatten_all().unwrap();
                let score = head.score(&features, &labels).unwrap();
                let loss = loss.to_scalar::<f32>().unwrap();
                (loss, gradient.to_vec1::<f32>().unwrap(), score)
            };
            let [got, want] = heads(&weight).map(outcome);
            assert!(
                (got.0 - want.0).abs() < 1e-5 * want.0,
                "{} {}",
                got.0,
                want.0
            );
            let largest = want
                .1
                .iter()
                .fold(0.0f32, |top, value| top.max(value.abs()));
            for (got, want) in got.1.iter().zip(&want.1) {
                assert!((got - want).abs() < 1e-5 * largest, "{got} {want}");
            }
            assert_eq!((got.2.right, got.2.counted), (want.2.right, want.2.counted));
            assert_eq!(got.2.counted, labels.counted());
            assert!((got.2.loss - want.2.loss).abs() < 1e-5 * want.2.loss);
        }
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        for (weight, features, labels) in cases() {
            let with = |threads| {
                with_threads(threads, || {
                    let [head, _] = heads(&weight);
                    let loss = head.loss(&features, &labels)?;
                    let gradient = loss.backward()?;
                    let gradient = gradient.get(&features).unwrap().flatten_all()?;
                    Ok((loss.to_scalar::<f32>()?, gradient.to_vec1::<f32>()?))
                })
                .unwrap()
            };
            assert_eq!(with(1), with(3));
        }
    }

    #[test]
    fn labels_that_do_not_fit_are_refused() {
        let features = some((3, 5), 1);
        let refusal = |labels: Labels| {
            let [engine, candle] = heads(&some((9, 5), 2)).map(|head| {
                let error = head.loss(&features, &labels).unwrap_err();
                error.to_string()
            });
            assert_eq!(engine, candle);
            engine
        };
        let ignored = Labels::IGNORED;
        for (labels, part) in [
            (Labels::Classes(vec![1, 2, 3]), "got classes"),
            (
                Labels::Tokens(vec![1, 2]),
                "one for each of 3 tokens, got 2",
            ),
            (
                Labels::Tokens(vec![1, 9, ignored]),
                "below 9, the vocabulary, got 9",
            ),
            (
                Labels::Tokens(vec![ignored; 3]),
                "at least one that counts, got 0",
            ),
        ] {
            let error = refusal(labels);
            assert!(error.contains(part), "{error}");
        }
    }
}
