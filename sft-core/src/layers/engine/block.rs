//! A block put together from its parts, forward and backward, for one piece of a batch.

use candle_core::Result;

use super::attention::{AdaptedAttention, Attention, AttentionScratch};
use super::branch::{Branch, BranchScratch};
use super::buffer::{Buffer, sized, slice};
use super::linear::{Linear, Pass};
use super::lora::Pairs;
use super::mlp::{AdaptedMlp, Mlp, MlpScratch};
use super::piece::{Piece, Tokens, Wanted, places};
use crate::layers::parts::BlockWeights;

/// The frozen parts of a block.
#[derive(Debug)]
pub(super) struct Block {
    attention_branch: Branch,
    attention: Attention,
    mlp_branch: Branch,
    mlp: Mlp,
}

/// What the forward pass of a piece keeps for the backward pass, for `T` rows before the block
/// and `W` wanted after it.
#[derive(Debug, Default)]
pub(super) struct Saved {
    /// What the attention keeps of `T` rows.
    attention: Buffer,
    /// What the attention's last linear wrote, `[W, D]`.
    attention_out: Buffer,
    /// What the MLP keeps of `W` rows.
    mlp: Buffer,
    /// What the MLP's last linear wrote, `[W, D]`, where that is needed.
    mlp_out: Buffer,
}

/// What one piece's forward and backward pass need beside what is saved.
#[derive(Default)]
pub(super) struct Scratch {
    /// The wanted rows before the block.
    residual: Buffer,
    /// The stream with the attention, with the MLP.
    middle: [Buffer; 2],
    output: [Buffer; 2],
    /// What a branch reads, and the gradient of that.
    input: Buffer,
    dinput: Buffer,
    written: Buffer,
    /// Gradients of the stream after the attention, and of its sum with it.
    dmiddle: Buffer,
    dsum: Buffer,
    branch: BranchScratch,
    attention: AttentionScratch,
    mlp: MlpScratch,
}

impl Block {
    pub(super) fn new(weights: &BlockWeights) -> Result<Self> {
        let order = weights.order;
        Ok(Self {
            attention_branch: Branch::new(
                order,
                &weights.attention_norm,
                weights.attention_out_norm.as_ref(),
                weights.attention_scale.as_ref(),
            )?,
            attention: Attention::new(&weights.attention)?,
            mlp_branch: Branch::new(
                order,
                &weights.mlp_norm,
                weights.mlp_out_norm.as_ref(),
                weights.mlp_scale.as_ref(),
            )?,
            mlp: Mlp::new(&weights.mlp)?,
        })
    }

    /// Features of a row, D.
    pub(super) fn width(&self) -> usize {
        self.attention_branch.width()
    }

    /// Inputs and outputs of the linears that may be adapted, in the adapter's order.
    pub(super) fn sizes(&self) -> impl Iterator<Item = [usize; 2]> {
        let linears = self.attention.linears().into_iter();
        linears.chain(self.mlp.linears()).flat_map(Linear::sizes)
    }

    /// Memory of the weights.
    pub(super) fn bytes(&self) -> usize {
        let branches = self.attention_branch.bytes() + self.mlp_branch.bytes();
        branches + self.attention.bytes() + self.mlp.bytes()
    }
}

/// A block with its adapters, ready for one pass over samples up to some length.
pub(super) struct AdaptedBlock<'a> {
    block: &'a Block,
    attention: AdaptedAttention<'a>,
    mlp: AdaptedMlp<'a>,
}

impl<'a> AdaptedBlock<'a> {
    pub(super) fn new(block: &'a Block, positions: usize, pairs: Pairs<'a>, pass: Pass) -> Self {
        Self::with(block, positions, pairs, [pass; 2])
    }

    /// Ready to compute what is kept of a piece once more, but not the block's output.
    pub(super) fn again(block: &'a Block, positions: usize, pairs: Pairs<'a>) -> Self {
        let last = if block.mlp_branch.needs_written() {
            Pass::Forward
        } else {
            Pass::Unused
        };
        Self::with(block, positions, pairs, [Pass::Forward, last])
    }

    /// Ready for a pass through all linears but the last, and one through that.
    fn with(
        block: &'a Block,
        positions: usize,
        mut pairs: Pairs<'a>,
        [pass, last]: [Pass; 2],
    ) -> Self {
        Self {
            block,
            attention: block.attention.adapted(positions, &mut pairs, pass),
            mlp: block.mlp.adapted(&mut pairs, [pass, last]),
        }
    }

    /// Features of a row, D.
    pub(super) fn width(&self) -> usize {
        self.block.width()
    }

    /// Length of the adapter vector.
    pub(super) fn parameters(&self) -> usize {
        self.attention.parameters() + self.mlp.parameters()
    }

    /// Computes what is kept of a piece and, where there is room for it, the block's output.
    pub(super) fn forward(
        &self,
        piece: Piece<'_>,
        saved: &mut Saved,
        y: Option<&mut [f32]>,
        scratch: &mut Scratch,
    ) {
        let attend = |input: Piece<'_>,
                      added: Option<&[f32]>,
                      own: &mut Buffer,
                      written: &mut [f32],
                      scratch: &mut AttentionScratch| {
            self.attention.forward(input, added, own, written, scratch);
        };
        self.run(piece, saved, y, scratch, attend);
    }

    /// The block's output for the rows `x` of further tokens of one sample; `seen` is what the attention
    /// keeps of the earlier ones, and gets these.
    pub(super) fn extend(&self, x: &[f32], seen: &mut Vec<f32>, scratch: &mut Scratch) -> Vec<f32> {
        let rows = x.len() / self.width();
        let piece = Piece {
            x,
            first: 0,
            samples: &[Wanted::All.of(rows)],
        };
        let mut y = vec![0.0; x.len()];
        let attend = |input: Piece<'_>,
                      added: Option<&[f32]>,
                      _: &mut Buffer,
                      written: &mut [f32],
                      scratch: &mut AttentionScratch| {
            self.attention
                .extend(input.x, added, seen, written, scratch);
        };
        self.run(piece, &mut Saved::default(), Some(&mut y), scratch, attend);
        y
    }

    /// Both branches, the attention by `attend`: from its input, what is added, what it keeps and room for
    /// what it writes.
    fn run(
        &self,
        piece: Piece<'_>,
        saved: &mut Saved,
        y: Option<&mut [f32]>,
        scratch: &mut Scratch,
        attend: impl FnOnce(Piece<'_>, Option<&[f32]>, &mut Buffer, &mut [f32], &mut AttentionScratch),
    ) {
        let (branch, len) = (&self.block.attention_branch, piece.wanted() * self.width());
        let residual = wanted(piece, self.width(), &mut scratch.residual);
        let input = piece.with(branch.input(piece.x, &mut scratch.input));
        let added = branch.is_direct().then_some(residual);
        let written = sized(&mut saved.attention_out, len);
        let (own, attention) = (&mut saved.attention, &mut scratch.attention);
        attend(input, added, own, written, attention);
        let middle = branch.after(residual, written, &mut scratch.middle);

        let (branch, first) = (&self.block.mlp_branch, piece.first);
        let input = piece.with(branch.input(middle, &mut scratch.input));
        self.mlp.hidden(input, &mut saved.mlp);
        let added = branch.is_direct().then_some(middle);
        let mut output = |out: &mut [f32]| {
            self.mlp
                .output(&saved.mlp, first, added, out, &mut scratch.mlp);
        };
        let written = match y {
            Some(y) if branch.writes_output() => return output(y),
            None if !branch.needs_written() => return,
            _ if branch.needs_written() => sized(&mut saved.mlp_out, len),
            _ => slice(&mut scratch.written, len),
        };
        output(written);
        if let Some(y) = y {
            y.copy_from_slice(branch.after(middle, written, &mut scratch.output));
        }
    }

    /// Writes the adapter's gradient and, where there is room for it, that of the piece; uses up
    /// what was saved.
    pub(super) fn backward(
        &self,
        piece: Piece<'_>,
        saved: &mut Saved,
        dy: &[f32],
        grad: &mut [f32],
        dx: Option<&mut [f32]>,
        scratch: &mut Scratch,
    ) {
        let attention_branch = &self.block.attention_branch;
        let (dattention, dmlp) = grad.split_at_mut(self.attention.parameters());
        let residual = wanted(piece, self.width(), &mut scratch.residual);
        let written = saved.attention_out.as_slice();
        let middle = attention_branch.after(residual, written, &mut scratch.middle);

        let branch = &self.block.mlp_branch;
        let input = piece.with(branch.input(middle, &mut scratch.input));
        let dmiddle = slice(&mut scratch.dmiddle, dy.len());
        let dinput = slice(&mut scratch.dinput, dy.len());
        let dout = branch.backward(middle, &saved.mlp_out, dy, dmiddle, &mut scratch.branch);
        let (own, mlp) = (&mut saved.mlp, &mut scratch.mlp);
        self.mlp.backward(input, own, dout, dmlp, dinput, mlp);
        branch.input_gradient(middle, dinput, dmiddle);

        let branch = attention_branch;
        let input = piece.with(branch.input(piece.x, &mut scratch.input));
        let dsum = slice(&mut scratch.dsum, dy.len());
        let dout = branch.backward(residual, written, dmiddle, dsum, &mut scratch.branch);
        let (own, attention) = (&saved.attention, &mut scratch.attention);
        let Some(dx) = dx else {
            return (self.attention).backward(input, own, dout, dattention, None, attention);
        };
        let dinput = slice(&mut scratch.dinput, dx.len());
        let room = Some(&mut *dinput);
        self.attention
            .backward(input, own, dout, dattention, room, attention);
        pass_residual(piece.samples, self.width(), dsum, dx);
        branch.input_gradient(piece.x, dinput, dx);
    }
}

/// The rows of a piece whose hidden state is wanted after the block.
fn wanted<'x>(piece: Piece<'x>, width: usize, room: &'x mut Buffer) -> &'x [f32] {
    let len = piece.wanted() * width;
    if len == piece.x.len() {
        return piece.x;
    }
    let out = slice(room, len);
    for (tokens, row, place) in places(piece.samples) {
        let (len, row) = (tokens.wanted * width, row + tokens.from);
        out[place * width..][..len].copy_from_slice(&piece.x[row * width..][..len]);
    }
    out
}

/// Writes the gradient that the residual stream carries past the attention.
fn pass_residual(samples: &[Tokens], width: usize, dsum: &[f32], dx: &mut [f32]) {
    for (tokens, row, place) in places(samples) {
        let dx = &mut dx[row * width..][..tokens.all * width];
        let (before, others) = dx.split_at_mut(tokens.from * width);
        let (wanted, behind) = others.split_at_mut(tokens.wanted * width);
        before.fill(0.0);
        wanted.copy_from_slice(&dsum[place * width..][..wanted.len()]);
        behind.fill(0.0);
    }
}
