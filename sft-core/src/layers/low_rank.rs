//! A LoRA adapter in candle's operations, and without a graph where candle would compute gradients
//! of what is frozen.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};

use crate::adapter::{Dropout, Lora, Place};

/// The adapter of one linear layer.
#[derive(Clone)]
pub(crate) struct LowRank {
    /// `[r, inputs]`
    a: Tensor,
    /// `[outputs, r]`
    b: Tensor,
    scale: f64,
    dropout: Option<Dropout>,
}

impl LowRank {
    /// The adapter of a layer that lies in a flat vector from `start` on; none where the
    /// layer has none.
    pub(crate) fn new(
        lora: Lora,
        place: Place,
        [inputs, outputs]: [usize; 2],
        vector: &Tensor,
        start: usize,
    ) -> Result<Option<Self>> {
        let rank = lora.rank_of(place);
        if rank == 0 {
            return Ok(None);
        }
        let part = |start: usize, rows: usize, columns: usize| {
            let part = vector.narrow(0, start, rows * columns)?;
            part.reshape((rows, columns))
        };
        Ok(Some(Self {
            a: part(start, rank, inputs)?,
            b: part(start + rank * inputs, outputs, rank)?,
            scale: lora.scale(),
            dropout: lora.mask(place),
        }))
    }

    /// What the adapter adds to the layer's output for the rows of `x`: `s x A^T B^T`.
    pub(crate) fn change(&self, x: &Tensor) -> Result<Tensor> {
        let low = self.masked(x)?.matmul(&self.a.t()?)?;
        low.matmul(&self.b.t()?)? * self.scale
    }

    /// The gradients of `x` and of the flat vector, from that of the output.
    pub(crate) fn gradients(&self, x: &Tensor, dy: &Tensor) -> Result<(Tensor, Tensor)> {
        let x = self.masked(x)?;
        let low = x.matmul(&self.a.t()?)?;
        let db = (dy.t()?.matmul(&low)? * self.scale)?;
        let dlow = (dy.matmul(&self.b)? * self.scale)?;
        let da = dlow.t()?.matmul(&x)?;
        let vector = Tensor::cat(&[da.flatten_all()?, db.flatten_all()?], 0)?;
        Ok((self.masked(&dlow.matmul(&self.a)?)?, vector))
    }

    /// `x` with the mask's factors on its elements.
    fn masked(&self, x: &Tensor) -> Result<Tensor> {
        let Some(dropout) = self.dropout else {
            return Ok(x.clone());
        };
        let mut factors = vec![1.0; x.elem_count()];
        dropout.apply(&mut factors);
        x * Tensor::from_vec(factors, x.shape(), x.device())?
    }
}

/// A value with its gradients as one operation on the CPU: nothing else enters the graph.
///
/// `backward` gives the gradients of `x`, where it is in a graph, and of the adapter, from that of
/// the value.
pub(super) fn with_gradients(
    value: &Tensor,
    [x, adapter]: [&Tensor; 2],
    backward: impl Fn(&Tensor) -> Result<(Option<Tensor>, Tensor)> + Send + Sync + 'static,
) -> Result<Tensor> {
    let value = value.detach();
    if !x.track_op() && !adapter.track_op() {
        return Ok(value);
    }
    x.apply_op2(adapter, WithGradients { value, backward })
}

struct WithGradients<F> {
    value: Tensor,
    backward: F,
}

impl<F: Fn(&Tensor) -> Result<(Option<Tensor>, Tensor)> + Send + Sync> CustomOp2
    for WithGradients<F>
{
    fn name(&self) -> &'static str {
        "adapted-layer"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let values = self.value.flatten_all()?.to_vec1()?;
        Ok((CpuStorage::F32(values), self.value.shape().clone()))
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (dx, dadapter) = (self.backward)(&dy.detach())?;
        Ok((dx, Some(dadapter)))
    }
}
