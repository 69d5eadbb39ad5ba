//! Both ends of the streams of messages between a device and the server.

use sft_compress::{Compressor, Decompressor, Stateful as _};

use super::adapters::Held;
use super::{Bases, CutCodec, RoundPlan};
use crate::Result;

/// What the codecs of one side remember between rounds.
#[derive(Clone, Debug, PartialEq)]
pub struct Remembered<const STREAMS: usize> {
    /// The adapters that the device holds.
    pub held: Held,
    /// Of each stream of messages, as its codec [saves](sft_compress::Stateful::save) it; empty where that
    /// is nothing.
    pub streams: [Vec<u8>; STREAMS],
}

impl<const STREAMS: usize> Remembered<STREAMS> {
    /// Whether that is nothing.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty() && self.streams.iter().all(Vec::is_empty)
    }
}

impl<const STREAMS: usize> Default for Remembered<STREAMS> {
    /// Nothing.
    fn default() -> Self {
        Self {
            held: Held::default(),
            streams: std::array::from_fn(|_| Vec::new()),
        }
    }
}

/// A device's ends of the streams of messages.
pub struct DeviceCodecs {
    /// What they are relative to.
    pub bases: Bases,
    /// Activations, going up.
    pub up: Box<dyn Compressor>,
    /// Gradients, coming down.
    pub down: Box<dyn Decompressor>,
    /// Features, coming down.
    pub features: Box<dyn Decompressor>,
    /// Their gradients, going up.
    pub feature_gradient: Box<dyn Compressor>,
    /// The adapters that it started its last round with.
    pub held: Held,
    /// What its updates dropped.
    pub update: Box<dyn Compressor>,
}

impl DeviceCodecs {
    /// Those that a plan names, which remember nothing.
    ///
    /// # Errors
    /// A transform codec without its basis.
    pub fn new(plan: &RoundPlan, bases: Bases) -> Result<Self> {
        let (memory, feedback) = (plan.sample_memory_bytes, plan.error_feedback);
        let features = CutCodec::from(plan.features);
        let (up, down) = (bases.up.as_ref(), bases.down.as_ref());
        Ok(Self {
            up: plan.activation.compressor(up, memory, feedback)?,
            down: plan.gradient.decompressor(down, 0)?,
            features: features.decompressor(None, 0)?,
            feature_gradient: features.compressor(None, 0, feedback)?,
            held: Held::default(),
            update: plan.update_compressor(),
            bases,
        })
    }

    /// What they remember of activations, gradients, updates, features and their gradients.
    ///
    /// # Errors
    /// A codec whose memory cannot be saved.
    pub fn save(&self) -> Result<Remembered<5>> {
        let streams = [
            self.up.save()?,
            self.down.save()?,
            self.update.save()?,
            self.features.save()?,
            self.feature_gradient.save()?,
        ];
        let held = self.held.clone();
        Ok(Remembered { held, streams })
    }

    /// Replaces what they remember by what [`Self::save`] gave.
    ///
    /// # Errors
    /// Bytes that other codecs saved.
    pub fn restore(&mut self, memory: &Remembered<5>) -> Result<()> {
        let [up, down, update, features, feature_gradient] = &memory.streams;
        self.held = memory.held.clone();
        self.up.restore(up)?;
        self.down.restore(down)?;
        self.update.restore(update)?;
        self.features.restore(features)?;
        Ok(self.feature_gradient.restore(feature_gradient)?)
    }
}

/// The server's ends of the streams of messages with a device.
pub struct ServerCodecs {
    /// What they are relative to.
    pub bases: Bases,
    /// Activations, coming up.
    pub up: Box<dyn Decompressor>,
    /// Gradients, going down.
    pub down: Box<dyn Compressor>,
    /// Features, going down.
    pub features: Box<dyn Compressor>,
    /// Their gradients, coming up.
    pub feature_gradient: Box<dyn Decompressor>,
    /// The adapters that the device holds.
    pub held: Held,
}

impl ServerCodecs {
    /// Those that a plan names, which remember nothing.
    ///
    /// # Errors
    /// A transform codec without its basis.
    pub fn new(plan: &RoundPlan, bases: Bases) -> Result<Self> {
        let (memory, features) = (plan.sample_memory_bytes, CutCodec::from(plan.features));
        let (up, down) = (bases.up.as_ref(), bases.down.as_ref());
        Ok(Self {
            up: plan.activation.decompressor(up, memory)?,
            down: plan.gradient.compressor(down, 0, plan.error_feedback)?,
            features: features.compressor(None, 0, plan.error_feedback)?,
            feature_gradient: features.decompressor(None, 0)?,
            held: Held::default(),
            bases,
        })
    }

    /// What they remember of activations, gradients, features and their gradients.
    ///
    /// # Errors
    /// A codec whose memory cannot be saved.
    pub fn save(&self) -> Result<Remembered<4>> {
        let streams = [
            self.up.save()?,
            self.down.save()?,
            self.features.save()?,
            self.feature_gradient.save()?,
        ];
        let held = self.held.clone();
        Ok(Remembered { held, streams })
    }

    /// Replaces what they remember by what [`Self::save`] gave.
    ///
    /// # Errors
    /// Bytes that other codecs saved.
    pub fn restore(&mut self, memory: &Remembered<4>) -> Result<()> {
        let [up, down, features, feature_gradient] = &memory.streams;
        self.held = memory.held.clone();
        self.up.restore(up)?;
        self.down.restore(down)?;
        self.features.restore(features)?;
        Ok(self.feature_gradient.restore(feature_gradient)?)
    }
}
