use crate::config::Range;
use crate::config::{Code, Config, Quantize, Rounding};
use crate::error::Result;
use crate::format::{self, Header, Method, Shape};
use crate::method::{context, paper, raw};
use crate::select::{Selection, select};
use crate::tensor::TensorView;
use crate::value::{Levels, Noise};

/// What [`write`] works in, kept from one message to the next.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    floats: Vec<f32>,
    selection: Selection,
    context: context::EncodeMemory,
    paper: paper::EncodeMemory,
}

/// Encodes a tensor as one frame, which replaces the content of `frame`.
pub(crate) fn write(
    config: &Config,
    tensor: TensorView<'_>,
    seed: u64,
    frame: &mut Vec<u8>,
    memory: &mut Memory,
) -> Result<()> {
    let (elements, shape) = (tensor.elements(), tensor.shape());
    format::begin(frame);
    let levels = match config.quantize {
        Quantize::Levels { count, range, .. } => Levels { count, range },
        _ => Levels {
            count: 2,
            range: Range::Tensor,
        },
    };
    let header = |method| Header {
        method,
        dtype: elements.dtype(),
        shape: Shape::new(shape),
    };
    if config.code == Code::None {
        header(Method::Raw).write(frame);
        raw::write(frame, elements);
        return format::seal(frame);
    }
    let (floats, found) = (&mut memory.floats, &mut memory.selection);
    let data = select(elements, shape, config, floats, found)?;
    let noise = noise(config.quantize, seed);
    if config.code == Code::Golomb {
        header(Method::Paper(levels)).write(frame);
        paper::write(frame, shape, found, levels, noise, &mut memory.paper);
    } else {
        header(Method::Context(levels.range)).write(frame);
        let memory = &mut memory.context;
        context::write(frame, (data, shape), config.quantize, found, noise, memory);
    }
    format::seal(frame)
}

/// The source of random roundings; none if the nearest point is to be taken.
fn noise(quantize: Quantize, seed: u64) -> Option<Noise> {
    match quantize {
        Quantize::Levels {
            rounding: Rounding::Stochastic,
            ..
        }
        | Quantize::Unbiased { .. } => Some(Noise::new(seed)),
        _ => None,
    }
}
