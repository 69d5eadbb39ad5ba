//! Both ends of the streams of messages between a device and the server.

use std::sync::Arc;

use sft_compress::{Compressor, Decompressor, Stateful as _};

use super::adapters::Held;
use super::{Bases, CutCodec, RoundPlan};
use crate::Result;

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

    /// What they remember: of activations, gradients, the adapters held, updates, features, their
    /// gradients; empty where that is nothing.
    ///
    /// # Errors
    /// A codec whose memory cannot be saved.
    pub fn save(&self) -> Result<[Arc<[u8]>; 6]> {
        Ok([
            self.up.save()?.into(),
            self.down.save()?.into(),
            self.held.save()?.into(),
            self.update.save()?.into(),
            self.features.save()?.into(),
            self.feature_gradient.save()?.into(),
        ])
    }

    /// Replaces what they remember by what [`Self::save`] gave.
    ///
    /// # Errors
    /// Bytes that other codecs saved.
    pub fn restore(&mut self, memory: &[Arc<[u8]>; 6]) -> Result<()> {
        self.up.restore(&memory[0])?;
        self.down.restore(&memory[1])?;
        self.held.restore(&memory[2])?;
        self.update.restore(&memory[3])?;
        self.features.restore(&memory[4])?;
        Ok(self.feature_gradient.restore(&memory[5])?)
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

    /// What they remember: of activations, gradients, the adapters held, features, their gradients; empty
    /// where that is nothing.
    ///
    /// # Errors
    /// A codec whose memory cannot be saved.
    pub fn save(&self) -> Result<[Arc<[u8]>; 5]> {
        Ok([
            self.up.save()?.into(),
            self.down.save()?.into(),
            self.held.save()?.into(),
            self.features.save()?.into(),
            self.feature_gradient.save()?.into(),
        ])
    }

    /// Replaces what they remember by what [`Self::save`] gave.
    ///
    /// # Errors
    /// Bytes that other codecs saved.
    pub fn restore(&mut self, memory: &[Arc<[u8]>; 5]) -> Result<()> {
        self.up.restore(&memory[0])?;
        self.down.restore(&memory[1])?;
        self.held.restore(&memory[2])?;
        self.features.restore(&memory[3])?;
        Ok(self.feature_gradient.restore(&memory[4])?)
    }
}
