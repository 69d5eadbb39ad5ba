//! Floating-point operations of one mini-batch (section V-C of the paper).
//!
//! Symbols: `B` samples, `S` tokens, `D` width, `p_L` adapter parameters of a block and
//! `g = BS(8D² + 4·D·D_mlp) + 4BS²D`, which is `24BSD² + 4BS²D` for `D_mlp = 4D`.

use serde::{Deserialize, Serialize};

use crate::system::{Flops, Part, Placement, Training, Transformer};

/// Operations of a forward and a backward pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pass {
    /// FLOP of the forward pass.
    pub forward: f64,
    /// FLOP of the backward pass.
    pub backward: f64,
}

impl Pass {
    /// FLOP of both passes.
    pub fn total(self) -> f64 {
        self.forward + self.backward
    }

    fn times(self, n: f64) -> Self {
        Self {
            forward: n * self.forward,
            backward: n * self.backward,
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            forward: self.forward + other.forward,
            backward: self.backward + other.backward,
        }
    }
}

/// Operations of one mini-batch on either side of the link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BatchFlops {
    /// On the device, `Φ_c`.
    pub device: Pass,
    /// On the server, `Φ_s`; zero for federated placements.
    pub server: Pass,
}

impl Flops {
    /// Operations of one frozen block with adapters: forward `g`, backward `2g` as
    /// [`Flops::Paper`]; forward `g + 2BSp_L`, backward `g + 4BS²D + 4BSp_L` as
    /// [`Flops::Exact`].
    pub fn block(self, model: &Transformer, batch: usize) -> Pass {
        if let Some(counts) = model.counts {
            return counted(counts.block, batch);
        }
        let (linear, attention) = block_forward(model, batch);
        let forward = linear + attention;
        let lora = 2.0 * tokens(model, batch) * model.lora_parameters_per_block();
        match self {
            Self::Paper => Pass {
                forward,
                backward: 2.0 * forward,
            },
            Self::Exact => Pass {
                forward: forward + lora,
                backward: linear + 2.0 * attention + 2.0 * lora,
            },
        }
    }

    /// Operations of the frozen embedding: none as [`Flops::Paper`]; forward `2BSP²CD`, no
    /// backward, as [`Flops::Exact`].
    pub fn embedding(self, model: &Transformer, batch: usize) -> Pass {
        if let Some(counts) = model.counts {
            return counted(counts.embedding, batch);
        }
        match self {
            Self::Paper => Pass::default(),
            Self::Exact => Pass {
                forward: patch_projection(model, batch),
                backward: 0.0,
            },
        }
    }

    /// Operations of the trained head: forward `2BSDK` as [`Flops::Paper`], `2BDK` as
    /// [`Flops::Exact`]; backward twice that.
    pub fn head(self, model: &Transformer, batch: usize) -> Pass {
        if let Some(counts) = model.counts {
            return counted(counts.head, batch);
        }
        let rows = match self {
            Self::Paper => tokens(model, batch),
            Self::Exact => batch as f64,
        };
        let forward = 2.0 * rows * model.width as f64 * model.classes as f64;
        Pass {
            forward,
            backward: 2.0 * forward,
        }
    }

    /// Operations of one mini-batch of `batch` samples on device and server.
    pub fn mini_batch(self, model: &Transformer, placement: Placement, batch: usize) -> BatchFlops {
        match (placement, self) {
            (Placement::Split { cut }, _) => self.split(model, cut, batch),
            (Placement::FlFull, Self::Exact) => on_device(trained_model(model, batch)),
            (Placement::FlFull | Placement::FlLora, _) => {
                let front = self.front(model, model.blocks, batch);
                on_device(front.plus(self.head(model, batch)))
            }
        }
    }

    fn split(self, model: &Transformer, cut: usize, batch: usize) -> BatchFlops {
        let head = self.head(model, batch);
        let front = self.front(model, cut, batch);
        let back = self
            .block(model, batch)
            .times(model.blocks as f64 - cut as f64);
        match self {
            Self::Paper => BatchFlops {
                device: front.plus(head),
                server: back.plus(Pass {
                    forward: 0.0,
                    ..head
                }),
            },
            Self::Exact => BatchFlops {
                device: front,
                server: back.plus(head),
            },
        }
    }

    /// Embedding and the first `blocks` blocks; block 1 needs no gradient of its query, key and
    /// value input, `6BSD²` less.
    fn front(self, model: &Transformer, blocks: usize, batch: usize) -> Pass {
        let mut pass = self
            .embedding(model, batch)
            .plus(self.block(model, batch).times(blocks as f64));
        pass.backward -= self.first_inputs(model, batch);
        pass
    }

    /// Operations of the gradient of a block's query, key and value input, `6BSD²`, which the first
    /// block with an adapter needs not, where they are counted apart.
    fn first_inputs(self, model: &Transformer, batch: usize) -> f64 {
        if self == Self::Paper || model.counts.is_some() {
            return 0.0;
        }
        let d = model.width as f64;
        6.0 * tokens(model, batch) * d * d
    }

    /// Split training of a mini-batch whose device's half, and all of the `frozen` first blocks, are
    /// frozen: no backward pass there, as [`Flops::Exact`] no adapters either, and no gradient at
    /// the cut.
    fn frozen_split(
        self,
        model: &Transformer,
        cut: usize,
        frozen: usize,
        batch: usize,
    ) -> BatchFlops {
        let mut flops = self.split(model, cut, batch);
        let (device, server) = (cut as f64, frozen.saturating_sub(cut) as f64);
        flops.device.backward = 0.0;
        flops.server.backward -= server * self.block(model, batch).backward;
        flops.server.backward -= self.first_inputs(model, batch);
        if self == Self::Exact && model.counts.is_none() {
            let lora = 2.0 * tokens(model, batch) * model.lora_parameters_per_block();
            flops.device.forward -= device * lora;
            flops.server.forward -= server * lora;
        }
        flops
    }
}

/// Operations of one mini-batch by the settings of a training; with the labels on the device head and
/// loss are counted there and nowhere else, with checkpointing the forward pass of a block that is
/// trained once more in its backward pass.
pub(super) fn mini_batch(
    model: &Transformer,
    training: &Training,
    placement: Placement,
) -> BatchFlops {
    let (flops, batch) = (training.flops, training.batch);
    let frozen = training.device_is_frozen(placement);
    let mut passes = match placement {
        Placement::Split { cut } if frozen => {
            flops.frozen_split(model, cut, training.frozen_blocks, batch)
        }
        _ => flops.mini_batch(model, placement, batch),
    };
    if training.head_is_on_device(placement) {
        let head = flops.head(model, batch);
        passes.server.backward -= head.backward;
        if flops == Flops::Exact {
            passes.server.forward -= head.forward;
            passes.device.forward += head.forward;
        }
        if flops == Flops::Exact || frozen {
            passes.device.backward += head.backward;
        }
    }
    if training.gradient_checkpointing {
        let again = again(model, training, placement);
        passes.device.backward += again.device.forward;
        passes.server.backward += again.server.forward;
    }
    passes
}

/// The forward passes of the blocks that have a backward pass.
fn again(model: &Transformer, training: &Training, placement: Placement) -> BatchFlops {
    let blocks = |model: &Transformer, blocks: usize| {
        let block = training.flops.block(model, training.batch);
        block.times(blocks as f64)
    };
    match placement {
        Placement::Split { cut } => {
            let frozen = training.device_is_frozen(placement);
            let device = if frozen { 0 } else { cut };
            let above = cut.max(training.frozen_blocks);
            BatchFlops {
                device: blocks(model, device),
                server: blocks(model, model.blocks.saturating_sub(above)),
            }
        }
        Placement::FlLora => on_device(blocks(model, model.blocks)),
        Placement::FlFull => on_device(blocks(&model.with_lora(0, model.qkv), model.blocks)),
    }
}

fn on_device(device: Pass) -> BatchFlops {
    BatchFlops {
        device,
        server: Pass::default(),
    }
}

/// Every parameter trained: weight and input gradients everywhere but at the image.
fn trained_model(model: &Transformer, batch: usize) -> Pass {
    if let Some(counts) = model.counts {
        let blocks = counted(counts.block, batch).times(model.blocks as f64);
        let forward = blocks.forward + counted(counts.embedding, batch).forward;
        let trained = Pass {
            forward,
            backward: 2.0 * forward,
        };
        return trained.plus(counted(counts.head, batch));
    }
    let (linear, attention) = block_forward(model, batch);
    let embedding = patch_projection(model, batch);
    let blocks = Pass {
        forward: linear + attention,
        backward: 2.0 * (linear + attention),
    };
    blocks
        .times(model.blocks as f64)
        .plus(Flops::Exact.head(model, batch))
        .plus(Pass {
            forward: embedding,
            backward: embedding,
        })
}

/// A mini-batch through a counted part.
fn counted(part: Part, batch: usize) -> Pass {
    Pass {
        forward: batch as f64 * part.forward_flop as f64,
        backward: batch as f64 * part.backward_flop as f64,
    }
}

/// Forward operations of one block: linear layers and attention products.
fn block_forward(model: &Transformer, batch: usize) -> (f64, f64) {
    let (d, mlp) = (model.width as f64, model.mlp_width as f64);
    let rows = tokens(model, batch);
    let linear = rows * (8.0 * d * d + 4.0 * d * mlp);
    (linear, 4.0 * rows * model.tokens as f64 * d)
}

fn patch_projection(model: &Transformer, batch: usize) -> f64 {
    let (p, c) = (model.patch as f64, model.channels as f64);
    2.0 * tokens(model, batch) * p * p * c * model.width as f64
}

/// Rows of the activation matrix, `B·S`.
fn tokens(model: &Transformer, batch: usize) -> f64 {
    batch as f64 * model.tokens as f64
}
