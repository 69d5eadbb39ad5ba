//! A mini-batch going up: a frame, and what the server needs beside it.

use super::bytes::{Reader, put_u32, put_varint};
use crate::adapter::ModelSpec;
use crate::data::{Labels, SampleId};
use crate::split::{LabelSide, RoundPlan};
use crate::{Error, Result};

/// The kinds of labels.
const NO_LABELS: u8 = 0;
const CLASSES: u8 = 1;
const TOKENS: u8 = 2;

/// A mini-batch at the cut: the compressed activation, and what the server needs beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activation {
    /// The mini-batch's number in the round, from 0.
    pub step: u32,
    /// Which samples these are.
    pub samples: Vec<SampleId>,
    /// Tokens of each sample; none where all have the model's number.
    pub lengths: Option<Vec<u32>>,
    /// The class of each sample, or in language modelling the token after each of its tokens; none where
    /// that stays on the device.
    pub labels: Option<Labels>,
    /// The compressed activation `[B, S, D]`.
    pub frame: Vec<u8>,
}

impl Activation {
    /// The most tokens of a sample.
    ///
    /// # Errors
    /// Lengths for a model whose samples have all tokens, or none for another; a sample without
    /// tokens, or of more than the plan has.
    pub(in crate::split) fn tokens(&self, plan: &RoundPlan, spec: &ModelSpec) -> Result<usize> {
        let Some(lengths) = self.lengths.as_ref().filter(|_| spec.grid.is_none()) else {
            if self.lengths.is_none() == spec.grid.is_some() {
                return Ok(spec.tokens);
            }
            let reason = "sent lengths for a model of images, or none for one of texts";
            return Err(Error::protocol(reason));
        };
        let most = plan.tokens.unwrap_or(spec.tokens).min(spec.tokens);
        let wrong = |&&length: &&u32| length == 0 || length as usize > most;
        if let Some(length) = lengths.iter().find(wrong) {
            let reason = format!("sent a sample of {length} tokens, expected 1 to {most}");
            return Err(Error::protocol(reason));
        }
        Ok(lengths.iter().copied().max().unwrap_or(0) as usize)
    }

    /// Checks that labels are there if they are to be on the server, and only then.
    ///
    /// # Errors
    /// Labels that are to stay on the device, or none.
    pub(in crate::split) fn check_labels(&self, plan: &RoundPlan) -> Result<()> {
        let reason = match (plan.labels, &self.labels) {
            (LabelSide::Server, Some(_)) | (LabelSide::Device, None) => return Ok(()),
            (LabelSide::Server, None) => "sent no labels, which the plan wants",
            (LabelSide::Device, Some(_)) => "sent labels, which are to stay with it",
        };
        Err(Error::protocol(reason))
    }

    /// Checks that labels are of the kind that is trained for, as many as there must be, and each below the
    /// number of `answers`.
    ///
    /// # Errors
    /// The first of these that they are not.
    pub(in crate::split) fn check_answers(
        &self,
        labels: &Labels,
        answers: usize,
        tells_tokens: bool,
    ) -> Result<()> {
        let (kind, values, wanted) = match (labels, tells_tokens) {
            (Labels::Classes(classes), false) => ("class", classes, self.samples.len()),
            (Labels::Tokens(tokens), true) => ("next token", tokens, self.real_tokens()),
            (_, tokens) => {
                let wanted = if tokens { "next tokens" } else { "classes" };
                let reason = format!("sent labels of another kind, expected {wanted}");
                return Err(Error::protocol(reason));
            }
        };
        if values.len() != wanted || labels.counted() == 0 {
            let (got, counted) = (values.len(), labels.counted());
            let reason = format!("sent {got} labels of which {counted} count, expected {wanted}");
            return Err(Error::protocol(reason));
        }
        let ignored = |label: u32| tells_tokens && label == Labels::IGNORED;
        let wrong = |&&label: &&u32| label as usize >= answers && !ignored(label);
        if let Some(label) = values.iter().find(wrong) {
            let reason = format!("sent the {kind} {label}, the head has {answers}");
            return Err(Error::protocol(reason));
        }
        Ok(())
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        put_u32(out, self.step);
        put_varint(out, self.samples.len() as u64);
        self.samples
            .iter()
            .for_each(|&sample| put_varint(out, sample));
        out.push(u8::from(self.lengths.is_some()));
        let lengths = self.lengths.iter().flatten();
        lengths.for_each(|&length| put_varint(out, length.into()));
        out.push(match self.labels {
            None => NO_LABELS,
            Some(Labels::Classes(_)) => CLASSES,
            Some(Labels::Tokens(_)) => TOKENS,
        });
        out.extend(self.label_bytes());
        out.extend(&self.frame);
    }

    /// The tokens of all samples that have their own numbers of them.
    fn real_tokens(&self) -> usize {
        let lengths = self.lengths.iter().flatten();
        lengths.map(|&length| length as usize).sum()
    }

    pub(super) fn label_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match &self.labels {
            None => (),
            Some(Labels::Classes(classes)) => {
                for &class in classes {
                    put_u32(&mut out, class);
                }
            }
            // One more than the token, so that the commonest, the ignored, is the shortest.
            Some(Labels::Tokens(tokens)) => {
                let tokens = tokens.iter().map(|token| token.wrapping_add(1));
                tokens.for_each(|token| put_varint(&mut out, token.into()));
            }
        }
        out
    }

    pub(super) fn read(body: &mut Reader<'_>) -> Result<Self> {
        let step = body.u32()?;
        // Every sample takes a byte for its number.
        let count = body.count(1)?;
        let samples = (0..count).map(|_| body.varint()).collect::<Result<_>>()?;
        let each = body.flag("lengths")?.then_some(0..count);
        let lengths = each.map(|each| each.map(|_| body.varint_u32()).collect::<Result<_>>());
        let lengths = lengths.transpose()?;
        let labels = match body.byte()? {
            NO_LABELS => None,
            CLASSES => {
                body.has(count, 4)?;
                let classes = (0..count).map(|_| body.u32()).collect::<Result<_>>()?;
                Some(Labels::Classes(classes))
            }
            TOKENS => Some(Labels::Tokens(read_tokens(lengths.as_deref(), body)?)),
            other => {
                let reason = format!("sent labels of the unknown kind {other}");
                return Err(Error::protocol(reason));
            }
        };
        Ok(Self {
            step,
            samples,
            lengths,
            labels,
            frame: body.rest().to_vec(),
        })
    }
}

/// The token after each token of samples of these lengths.
fn read_tokens(lengths: Option<&[u32]>, body: &mut Reader<'_>) -> Result<Vec<u32>> {
    let Some(lengths) = lengths else {
        let reason = "sent next tokens without the lengths of the samples";
        return Err(Error::protocol(reason));
    };
    let count = lengths.iter().map(|&length| u64::from(length)).sum();
    body.has(usize::try_from(count).unwrap_or(usize::MAX), 1)?;
    let token = |_| Ok(body.varint_u32()?.wrapping_sub(1));
    (0..count).map(token).collect()
}
