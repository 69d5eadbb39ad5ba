//! The device's side of Algorithm 1.

use std::ops::ControlFlow;

use super::codecs::DeviceCodecs;
use super::coded::{Crossing, Stream, finite};
use super::exchange::{exchange, received, understand};
use super::extent::Extent;
use super::hello::say_hello;
use super::local_data::{Loaded, LocalData};
use super::message::{Activation, Coded, Message, Tensors};
use super::transport::{Connection, Transport, unexpected};
use super::{Bases, DeviceHalf, HeadStep, LabelSide, RoundPlan, Step, Work};
use crate::adapter::{Head, NamedShape, cut_into, device_lengths};
use crate::data::{Batch, Inputs, Labels};
use crate::model::Model;
use crate::{Error, Result};

/// A device and all that it knows: its half of the model, its samples, its codecs' memory.
pub struct DeviceSide<'a> {
    /// Its number among the devices, from 0.
    pub number: u32,
    /// The model, of which it runs the embedding and the first blocks.
    pub model: &'a dyn Model,
    /// The head, which it trains where the labels stay with it: its sizes, and what is frozen of it.
    pub head: Option<&'a Head>,
    /// Its own samples.
    pub local: LocalData<'a>,
    /// What its codecs remember of earlier rounds; new ones follow the plan. After a round that failed they
    /// are in the middle of it: who goes on must [restore](DeviceCodecs::restore) what they were.
    pub codecs: Option<DeviceCodecs>,
}

/// What a device's part of a round was.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum DevicePart {
    /// Activations of a few samples, which a basis is learnt from.
    Calibrated,
    /// Training; the sum of the losses of all labels seen that count, and their number, where it has the
    /// labels.
    Trained(Option<(f64, usize)>),
}

impl DeviceSide<'_> {
    /// Takes part in one round.
    ///
    /// # Errors
    /// A connection that failed, a plan that does not fit the model, a sample that cannot be read,
    /// values that are not finite, or a run that was stopped.
    pub fn round<T: Transport>(&mut self, connection: &mut Connection<T>) -> Result<DevicePart> {
        let plan = say_hello(self.introduction(), self.model, &self.local, connection)?;
        let cut = match plan.work {
            Work::Split { cut } => cut,
            Work::Calibrate { cut, samples } => {
                self.calibrate(&plan, cut, samples, connection)?;
                return Ok(DevicePart::Calibrated);
            }
            _ => {
                let reason = "plans the whole model for a device that is split";
                return Err(Error::protocol(reason));
            }
        };
        let mut codecs = self.codecs_of(&plan, connection)?;
        let seen = self.train(&plan, cut, &mut codecs, connection);
        self.codecs = Some(codecs);
        Ok(DevicePart::Trained(seen?))
    }

    /// The round's mini-batches, and what became of the adapters.
    fn train<T: Transport>(
        &self,
        plan: &RoundPlan,
        cut: usize,
        codecs: &mut DeviceCodecs,
        connection: &mut Connection<T>,
    ) -> Result<Option<(f64, usize)>> {
        let lora = plan.lora(self.model.spec())?;
        let head = plan.device_head(self.head)?;
        let (layout, lengths) = plan.device_share(self.model.spec(), cut, head)?;
        let start = if plan.device_trains() {
            let start = receive_adapters(connection)?;
            codecs.held.receive(&start, plan, &layout)?
        } else {
            Vec::new()
        };
        let vectors = cut_into(&start, &lengths);
        let (blocks, trained) = vectors.split_at(1 + cut);
        let (embedding, blocks) = (&blocks[0], &blocks[1..]);
        let head = head.map(|head| head.with_trained(trained.iter().cloned()));
        let (head, optimizer) = (head.as_ref(), plan.optimizer);
        let mut half = DeviceHalf::new(self.model, lora, embedding, blocks, head, optimizer)?;
        let mut seen = head.map(|_| (0.0, 0));
        self.local.each_batch(plan, self.model.device(), |loaded| {
            let ControlFlow::Continue(mean) =
                self.step(plan, &loaded, &mut half, codecs, connection)?
            else {
                return Ok(ControlFlow::Break(()));
            };
            if let (Some((sum, all)), Some(mean)) = (&mut seen, mean) {
                let counted = loaded.batch.labels.counted();
                *sum += f64::from(mean) * counted as f64;
                *all += counted;
            }
            Ok(ControlFlow::Continue(()))
        })?;
        if plan.device_trains() {
            let update = self.update(plan, &half, codecs, &layout)?;
            connection.send(&Message::Update(update))?;
        }
        Ok(seen)
    }

    /// What training made of all that is trained here.
    fn update(
        &self,
        plan: &RoundPlan,
        half: &DeviceHalf<'_>,
        codecs: &mut DeviceCodecs,
        layout: &[NamedShape],
    ) -> Result<Tensors> {
        let trained = half.values()?;
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
        let half = DeviceHalf::new(
            self.model,
            lora,
            &zeros[0],
            &zeros[1..],
            None,
            plan.optimizer,
        )?;
        let above = plan.labels == LabelSide::Server;
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
            let frame = crossing.compress(&mut *compressor, Stream::Activation, &hidden.state);
            connection.send(&Message::Activation(Activation {
                step: number,
                lengths: hidden.lengths,
                // Nothing is learnt from them here.
                labels: above.then(|| Labels::Classes(vec![0; batch.samples.len()])),
                frame: frame.map_err(|error| blame_samples(error, &batch))?,
                samples: batch.samples,
            }))?;
        }
        Ok(())
    }

    /// A training step; the mean loss of the mini-batch, where the labels are here. A break where the
    /// server has enough.
    fn step<T: Transport>(
        &self,
        plan: &RoundPlan,
        Loaded { number, batch }: &Loaded,
        half: &mut DeviceHalf<'_>,
        codecs: &mut DeviceCodecs,
        connection: &mut Connection<T>,
    ) -> Result<ControlFlow<(), Option<f32>>> {
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
        let labels = (plan.labels == LabelSide::Server).then(|| batch.labels.clone());
        let activation = |frame| {
            Message::Activation(Activation {
                step: *number,
                samples: batch.samples.clone(),
                lengths: hidden.lengths.clone(),
                labels: labels.clone(),
                frame,
            })
        };
        let (up, state) = (codecs.up.as_mut(), &hidden.state);
        let sent = exchange(
            &crossing,
            (Stream::Activation, state),
            up,
            activation,
            connection,
        );
        let mut reply = sent.map_err(|error| blame_samples(error, batch))?;
        if matches!(&reply, Message::Enough(step) if step == number) {
            return Ok(ControlFlow::Break(()));
        }
        let mut head = None;
        if plan.labels == LabelSide::Device {
            let (done, next) =
                self.head((&crossing, step), batch, half, codecs, reply, connection)?;
            (head, reply) = (Some(done), next);
        }
        let gradient = if plan.device_is_frozen() {
            received(&reply, *number).map(|()| None)
        } else {
            let (down, device) = (codecs.down.as_mut(), self.model.device());
            let stream = Stream::Gradient;
            understand(&crossing, stream, down, (reply, device), connection).map(Some)
        };
        let loss = head.as_ref().map(|head| head.loss);
        half.backward(&hidden, gradient?.as_ref(), head, step)?;
        Ok(ControlFlow::Continue(loss))
    }

    /// What the head makes of the server's features, and what the server says to their gradient.
    fn head<T: Transport>(
        &self,
        (crossing, step): (&Crossing<'_>, Step),
        batch: &Batch,
        half: &DeviceHalf<'_>,
        codecs: &mut DeviceCodecs,
        reply: Message,
        connection: &mut Connection<T>,
    ) -> Result<(HeadStep, Message)> {
        let of_tokens = matches!(batch.labels, Labels::Tokens(_));
        let crossing = Crossing {
            extent: crossing.extent.features(of_tokens),
            ..*crossing
        };
        let (decompressor, device) = (codecs.features.as_mut(), self.model.device());
        let reply = (reply, device);
        let features = understand(&crossing, Stream::Features, decompressor, reply, connection)?;
        let done = half.head(&features, &batch.labels, step)?;
        finite(crossing.plan, self.number, &[done.loss], "the loss")?;
        let step = crossing.step;
        let message = |frame| Message::FeatureGradient(Coded { step, frame });
        let tensor = (Stream::FeatureGradient, &done.gradient);
        let compressor = codecs.feature_gradient.as_mut();
        let reply = exchange(&crossing, tensor, compressor, message, connection)?;
        Ok((done, reply))
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
