//! The device's side of Algorithm 1.

use sft_compress::{Compressor, Decompressor, Direction};

use super::adapters::Held;
use super::coded::{Crossing, finite};
use super::extent::Extent;
use super::local_data::{Loaded, LocalData};
use super::message::{Activation, Failure, FailureKind, Hello, Message, Tensors};
use super::transport::{Connection, Transport, unexpected};
use super::{Bases, DeviceHalf, RoundPlan, Work};
use crate::adapter::{NamedShape, cut_into, device_layout, device_lengths, device_vectors};
use crate::data::{Batch, Inputs, Labels};
use crate::model::{Hidden, Model};
use crate::{Error, Result};

/// A device and all that it knows: its half of the model, its samples, its codecs' memory.
pub struct DeviceSide<'a> {
    /// Its number among the devices, from 0.
    pub number: u32,
    /// The model, of which it runs the embedding and the first blocks.
    pub model: &'a dyn Model,
    /// Its own samples.
    pub local: LocalData<'a>,
    /// What its codecs remember of earlier rounds; new ones follow the plan.
    pub codecs: Option<DeviceCodecs>,
}

/// A device's ends of the streams of messages.
pub struct DeviceCodecs {
    /// What they are relative to.
    pub bases: Bases,
    /// Activations, going up.
    pub up: Box<dyn Compressor>,
    /// Gradients, coming down.
    pub down: Box<dyn Decompressor>,
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
        let (up, down) = (bases.up.as_ref(), bases.down.as_ref());
        Ok(Self {
            up: plan.activation.compressor(up, memory, feedback)?,
            down: plan.gradient.decompressor(down, 0)?,
            held: Held::default(),
            update: plan.update_compressor(),
            bases,
        })
    }
}

impl DeviceSide<'_> {
    /// Takes part in one round.
    ///
    /// # Errors
    /// A connection that failed, a plan that does not fit the model, a sample that cannot be read,
    /// values that are not finite, or a run that was stopped.
    pub fn round<T: Transport>(&mut self, connection: &mut Connection<T>) -> Result<()> {
        let plan = say_hello(self.introduction(), self.model, &self.local, connection)?;
        let cut = match plan.work {
            Work::Split { cut } => cut,
            Work::Calibrate { cut, samples } => {
                return self.calibrate(&plan, cut, samples, connection);
            }
            _ => {
                let reason = "plans the whole model for a device that is split";
                return Err(Error::protocol(reason));
            }
        };
        let (spec, lora) = (self.model.spec(), plan.lora(self.model.spec())?);
        let layout = device_layout(spec, lora, cut);
        let mut codecs = self.codecs_of(&plan, connection)?;
        let start = if plan.device_is_frozen() {
            Vec::new()
        } else {
            let start = receive_adapters(connection)?;
            codecs.held.receive(&start, &plan, &layout)?
        };
        let vectors = cut_into(&start, &device_lengths(spec, lora, cut));
        let (embedding, blocks) = (&vectors[0], &vectors[1..]);
        let mut half = DeviceHalf::new(self.model, lora, embedding, blocks, plan.optimizer)?;
        self.local
            .each_batch(&plan, self.model.device(), |loaded| {
                self.step(&plan, &loaded, &mut half, &mut codecs, connection)
            })?;
        if !plan.device_is_frozen() {
            let update = self.update(&plan, &half, &mut codecs, &layout)?;
            connection.send(&Message::Update(update))?;
        }
        self.codecs = Some(codecs);
        Ok(())
    }

    /// What training made of the half's adapters.
    fn update(
        &self,
        plan: &RoundPlan,
        half: &DeviceHalf<'_>,
        codecs: &mut DeviceCodecs,
        layout: &[NamedShape],
    ) -> Result<Tensors> {
        let (embedding, blocks) = half.adapters()?;
        let trained: Vec<_> = device_vectors(&embedding, &blocks).collect();
        let trained = trained.concat();
        finite(plan, self.number, &trained, "the device's adapter")?;
        let DeviceCodecs { held, update, .. } = codecs;
        held.update(&trained, update.as_mut(), plan, layout)
    }

    /// Its number, the name of its bases, and the checksum of the adapters that it holds.
    fn introduction(&self) -> (u32, u32, Option<u32>) {
        let codecs = self.codecs.as_ref();
        let bases = codecs.map_or(0, |codecs| codecs.bases.name());
        (
            self.number,
            bases,
            codecs.and_then(|codecs| codecs.held.checksum()),
        )
    }

    /// The codecs of a plan: its own if they are relative to the same bases, else new ones.
    fn codecs_of<T: Transport>(
        &mut self,
        plan: &RoundPlan,
        connection: &mut Connection<T>,
    ) -> Result<DeviceCodecs> {
        let own = match self.codecs.take() {
            Some(own) if own.bases.name() == plan.bases => return Ok(own),
            own => own,
        };
        let bases = match plan.bases {
            0 => Bases::default(),
            _ => receive_bases(plan, connection)?,
        };
        let new = DeviceCodecs::new(plan, bases)?;
        Ok(match own {
            Some(DeviceCodecs { held, update, .. }) => DeviceCodecs {
                held,
                update,
                ..new
            },
            None => new,
        })
    }

    /// Shows the server some activations of its half without adapters.
    fn calibrate<T: Transport>(
        &self,
        plan: &RoundPlan,
        cut: usize,
        samples: usize,
        connection: &mut Connection<T>,
    ) -> Result<()> {
        let (spec, lora) = (self.model.spec(), plan.lora(self.model.spec())?);
        let lengths = device_lengths(spec, lora, cut);
        let zeros: Vec<Vec<f32>> = lengths
            .into_iter()
            .map(|length| vec![0.0; length])
            .collect();
        let half = DeviceHalf::new(self.model, lora, &zeros[0], &zeros[1..], plan.optimizer)?;
        let mut compressor = plan.activation.compressor(None, 0, false)?;
        let samples = &self.local.samples[..samples.min(self.local.samples.len())];
        for (number, samples) in (0..).zip(samples.chunks(plan.batch)) {
            let batch = self.local.data.training_batch(samples, plan.seed)?;
            let inputs = batch.inputs.to_device(self.model.device())?;
            let hidden = half.forward(&inputs, plan.step(number, plan.lr, samples.len()))?;
            let crossing = Crossing {
                plan,
                device: self.number,
                step: number,
                epoch: 0,
                samples: &batch.samples,
                extent: Extent::of(&hidden)?,
            };
            let frame = crossing.compress(&mut *compressor, Direction::Up, &hidden.state);
            connection.send(&Message::Activation(Activation {
                step: number,
                lengths: hidden.lengths,
                // Nothing is learnt from them here.
                labels: Labels::Classes(vec![0; batch.samples.len()]),
                frame: frame.map_err(|error| blame_samples(error, &batch))?,
                samples: batch.samples,
            }))?;
        }
        Ok(())
    }

    fn step<T: Transport>(
        &self,
        plan: &RoundPlan,
        Loaded { number, batch }: &Loaded,
        half: &mut DeviceHalf<'_>,
        codecs: &mut DeviceCodecs,
        connection: &mut Connection<T>,
    ) -> Result<()> {
        let samples = self.local.samples.len();
        let step = plan.step(*number, plan.lr, samples);
        let hidden = half.forward(&batch.inputs, step)?;
        let crossing = Crossing {
            plan,
            device: self.number,
            step: *number,
            epoch: plan.epoch(*number, samples),
            samples: &batch.samples,
            extent: Extent::of(&hidden)?,
        };
        let reply = exchange(&crossing, &hidden, batch, codecs, connection);
        let reply = reply.map_err(|error| blame_samples(error, batch))?;
        if plan.device_is_frozen() {
            return received(&reply, *number);
        }
        let mut reply = gradient_frame(reply, *number)?;
        let gradient = loop {
            let down = codecs.down.as_mut();
            let device = self.model.device();
            if let Some(gradient) = crossing.decompress(down, Direction::Down, &reply, device)? {
                break gradient;
            }
            down.reset();
            reply = lost_reference(*number, connection)?;
        };
        half.backward(&hidden, &gradient, step)
    }
}

/// Introduces a device that holds these adapters, and receives what it is to do.
pub(crate) fn say_hello<T: Transport>(
    (device, bases, held): (u32, u32, Option<u32>),
    model: &dyn Model,
    local: &LocalData<'_>,
    connection: &mut Connection<T>,
) -> Result<RoundPlan> {
    connection.send(&Message::Hello(Hello {
        device,
        samples: local.samples.len() as u64,
        model: model.spec().fingerprint(),
        bases,
        held,
    }))?;
    match connection.receive()? {
        Message::Plan(plan) => plan.check(model.spec()).map(|()| *plan),
        other => Err(unexpected(&other, "a plan")),
    }
}

/// The bases that a plan names.
fn receive_bases<T: Transport>(plan: &RoundPlan, connection: &mut Connection<T>) -> Result<Bases> {
    match connection.receive()? {
        Message::Bases(bases) if bases.name() == plan.bases => Ok(*bases),
        Message::Bases(_) => Err(Error::protocol("sent other bases than it plans")),
        other => Err(unexpected(&other, "bases")),
    }
}

/// What the round starts with.
pub(crate) fn receive_adapters<T: Transport>(connection: &mut Connection<T>) -> Result<Tensors> {
    match connection.receive()? {
        Message::Adapters(start) => Ok(start),
        other => Err(unexpected(&other, "adapters")),
    }
}

/// The error that `error` is where an activation is not finite because a sample is not.
fn blame_samples(error: Error, batch: &Batch) -> Error {
    let (Error::Diverged { .. }, Inputs::Pixels(pixels)) = (&error, &batch.inputs) else {
        return error;
    };
    let is_finite = |row: usize| -> Result<bool> {
        let values = pixels.get(row)?.flatten_all()?.to_vec1::<f32>()?;
        Ok(values.iter().all(|value| value.is_finite()))
    };
    let bad = (0..batch.samples.len()).find(|&row| matches!(is_finite(row), Ok(false)));
    bad.map_or(error, |row| {
        let sample = batch.samples[row];
        let reason = format!("must be finite, got another value in sample {sample}");
        Error::argument("data", reason)
    })
}

/// Sends an activation, and anew if the server lost what it builds on; what comes back.
fn exchange<T: Transport>(
    crossing: &Crossing<'_>,
    hidden: &Hidden,
    batch: &Batch,
    codecs: &mut DeviceCodecs,
    connection: &mut Connection<T>,
) -> Result<Message> {
    let mut resent = false;
    loop {
        let up = codecs.up.as_mut();
        connection.send(&Message::Activation(Activation {
            step: crossing.step,
            samples: batch.samples.clone(),
            lengths: hidden.lengths.clone(),
            labels: batch.labels.clone(),
            frame: crossing.compress(up, Direction::Up, &hidden.state)?,
        }))?;
        match connection.receive()? {
            Message::Error(failure) if failure.kind == FailureKind::LostReference && !resent => {
                up.reset();
                resent = true;
            }
            other => return Ok(other),
        }
    }
}

/// Asks for a gradient that builds on nothing.
fn lost_reference<T: Transport>(step: u32, connection: &mut Connection<T>) -> Result<Vec<u8>> {
    connection.send(&Message::Error(Failure {
        kind: FailureKind::LostReference,
        reason: format!("the gradient of mini-batch {step} builds on what is not there"),
    }))?;
    gradient_frame(connection.receive()?, step)
}

/// Checks that the server has a mini-batch of which it sends no gradient.
fn received(message: &Message, step: u32) -> Result<()> {
    match *message {
        Message::Received(got) if got == step => Ok(()),
        Message::Received(got) => {
            let reason = format!("received mini-batch {got}, expected {step}");
            Err(Error::protocol(reason))
        }
        _ => Err(unexpected(
            message,
            "no more than that it received the mini-batch",
        )),
    }
}

fn gradient_frame(message: Message, step: u32) -> Result<Vec<u8>> {
    match message {
        Message::Gradient(down) if down.step == step => Ok(down.frame),
        Message::Gradient(down) => {
            let got = down.step;
            Err(Error::protocol(format!(
                "sent the gradient of mini-batch {got} for {step}"
            )))
        }
        other => Err(unexpected(&other, "a gradient")),
    }
}
