//! The server's side of Algorithm 1 for one device in one round.

use candle_core::Tensor;
use sft_compress::Stateful;

use super::codecs::ServerCodecs;
use super::coded::{Crossing, Stream, finite};
use super::exchange::lost;
use super::extent::Extent;
use super::hello::check_hello;
use super::memory::Serve;
use super::message::{Activation, Coded, FailureKind, Hello, Message};
use super::stage::{Stage, Waits};
use super::transport::unexpected;
use super::{RoundPlan, ServerHalf, Work};
use crate::adapter::{Adapters, NamedShape, cut_into};
use crate::data::SampleId;
use crate::model::{Hidden, Model};
use crate::{Error, Result};

/// What a device's part of a round leaves on the server.
pub struct Update {
    /// The device, from 0.
    pub device: usize,
    /// What both sides trained.
    pub adapters: Adapters,
    /// Sum of the losses of all labels seen that count; 0 where the device has the labels, and alone
    /// knows it.
    pub loss: f64,
    /// These labels, each as often as it was seen: one a sample, or next tokens; 0 likewise.
    pub counted: usize,
    /// Samples, each as often as it was trained on: fewer than the round has where it ended early.
    pub samples: usize,
}

/// The server's side for one device in one round: messages in, messages out.
///
/// It knows the plan, its half of the model and the global adapters; of the device only what that
/// says.
pub struct ServerSide<'a> {
    device: u32,
    plan: RoundPlan,
    lr: f64,
    model: &'a dyn Model,
    half: ServerHalf<'a>,
    /// The global adapters, of which the device has those of so many blocks.
    start: &'a Adapters,
    cut: usize,
    layout: Vec<NamedShape>,
    lengths: Vec<usize>,
    codecs: ServerCodecs,
    stage: Stage,
}

impl Serve for ServerSide<'_> {
    fn handle(&mut self, message: Message) -> Result<Vec<Message>> {
        let hello = match (message, self.stage.hello) {
            (Message::Hello(hello), None) => return self.welcome(hello),
            (message, Some(hello)) => (message, hello),
            (other, None) => return Err(unexpected(&other, "hello")),
        };
        let waits = self.stage.waits.is_some();
        match hello {
            (message, _) if self.stage.update.is_some() => {
                Err(unexpected(&message, "nothing after its update"))
            }
            (Message::Activation(up), hello) if !waits && !self.stage.told => {
                Ok(vec![self.take(&up, hello)?])
            }
            (Message::FeatureGradient(back), hello) if waits => Ok(vec![self.go_on(&back, hello)?]),
            (Message::Error(failure), hello)
                if failure.kind == FailureKind::LostReference && waits =>
            {
                self.codecs.features.reset();
                Ok(vec![self.features(hello)?])
            }
            (Message::Error(failure), hello)
                if failure.kind == FailureKind::LostReference && !self.plan.device_is_frozen() =>
            {
                self.codecs.down.reset();
                Ok(vec![self.gradient(hello)?])
            }
            (Message::Update(update), _) if self.plan.device_trains() && !waits => {
                let (held, plan, layout) = (&mut self.codecs.held, &self.plan, &self.layout);
                if let Some(start) = self.stage.start.take() {
                    held.receive(&start, plan, layout)?;
                }
                let values = held.updated(&update, plan, layout)?;
                self.stage.update = Some(cut_into(&values, &self.lengths));
                self.stage.gradient = None;
                self.half.end();
                Ok(Vec::new())
            }
            (other, _) if waits => Err(unexpected(&other, "the gradient of features")),
            (other, _) => Err(unexpected(&other, "an activation")),
        }
    }

    fn is_done(&self) -> bool {
        if self.plan.device_trains() {
            return self.stage.update.is_some();
        }
        let samples = self.stage.hello.map(|hello| hello.samples as usize);
        let ended = |samples| self.stage.step as usize >= self.plan.batches(samples);
        self.stage.told || samples.is_some_and(ended)
    }

    fn end_early(&mut self) {
        self.stage.early = true;
    }
}

impl<'a> ServerSide<'a> {
    /// A session by a plan that splits the model, from the global adapters; `lr` is the server's
    /// peak learning rate.
    ///
    /// # Errors
    /// A plan or adapters that do not fit the model.
    pub fn new(
        device: u32,
        plan: RoundPlan,
        lr: f64,
        model: &'a dyn Model,
        start: &'a Adapters,
        codecs: ServerCodecs,
    ) -> Result<Self> {
        plan.check(model.spec())?;
        let Work::Split { cut } = plan.work else {
            let reason = "must split the model for a session of the server";
            return Err(Error::argument("plan", reason));
        };
        let lora = plan.lora(model.spec())?;
        let cut = cut.min(start.blocks.len());
        let high = &start.blocks[cut..];
        let below = plan.device_head(Some(&start.head))?;
        let (layout, lengths) = plan.device_share(model.spec(), cut, below)?;
        Ok(Self {
            device,
            lr,
            model,
            half: ServerHalf::new(model, lora, high, &start.head, plan.labels, plan.optimizer)?,
            start,
            cut,
            layout,
            lengths,
            plan,
            codecs,
            stage: Stage::default(),
        })
    }

    fn welcome(&mut self, hello: Hello) -> Result<Vec<Message>> {
        check_hello(self.device, self.model.spec(), hello)?;
        self.stage.hello = Some(hello);
        let (codecs, plan) = (&self.codecs, &self.plan);
        let bases =
            (hello.bases != plan.bases).then(|| Message::Bases(Box::new(codecs.bases.clone())));
        let start = plan.device_trains().then(|| {
            let global = plan.device_values(self.start, self.cut)?;
            codecs.held.send(&global, hello.held, plan, &self.layout)
        });
        let start = start.transpose()?;
        self.stage.start.clone_from(&start);
        let start = start.map(Message::Adapters);
        let plan = Message::Plan(plan.clone().into());
        Ok([plan].into_iter().chain(bases).chain(start).collect())
    }

    /// What becomes of an activation: the features where the labels are on the device, else as
    /// [`Self::done`]; or that it cannot be read.
    fn take(&mut self, up: &Activation, hello: Hello) -> Result<Message> {
        self.check(up, hello)?;
        let tokens = up.tokens(&self.plan, self.model.spec())?;
        let padded = [up.samples.len(), tokens, self.model.spec().width];
        let extent = Extent::new(padded, up.lengths.as_deref());
        let crossing = crossing(&self.plan, hello, up.step, &up.samples, extent.clone());
        let (decompressor, device) = (self.codecs.up.as_mut(), self.model.device());
        let state = crossing.decompress(decompressor, Stream::Activation, &up.frame, device)?;
        let Some(state) = state else {
            self.codecs.up.reset();
            return Ok(lost(Stream::Activation, up.step));
        };
        if self.stage.early {
            // It was read for what its codec remembers of it.
            self.stage.told = true;
            return Ok(Message::Enough(up.step));
        }
        let hidden = Hidden {
            state,
            lengths: up.lengths.clone(),
        };
        let step = self.plan.step(up.step, self.lr, hello.samples as usize);
        let samples = up.samples.clone();
        let Some(labels) = &up.labels else {
            let passed = self.half.forward(&hidden, step)?;
            self.stage.waits = Some(Waits {
                passed,
                samples,
                extent,
            });
            return self.features(hello);
        };
        let done = self.half.step(&hidden, labels, step)?;
        finite(&self.plan, self.device, &[done.loss], "the loss")?;
        let counted = labels.counted();
        self.stage.loss += f64::from(done.loss) * counted as f64;
        self.stage.counted += counted;
        self.done(done.gradient, samples, extent, hello)
    }

    /// The message with the features of the mini-batch that waits.
    fn features(&mut self, hello: Hello) -> Result<Message> {
        let Some(Waits {
            passed,
            samples,
            extent,
        }) = &self.stage.waits
        else {
            return Err(Error::protocol("asked for features before any activation"));
        };
        let step = self.stage.step;
        let extent = extent.features(self.half.tells_tokens());
        let crossing = crossing(&self.plan, hello, step, samples, extent);
        let compressor = self.codecs.features.as_mut();
        let frame = crossing.compress(compressor, Stream::Features, &passed.features)?;
        Ok(Message::Features(Coded { step, frame }))
    }

    /// The backward pass from the gradient of the features, as [`Self::done`]; or that it cannot be
    /// read.
    fn go_on(&mut self, back: &Coded, hello: Hello) -> Result<Message> {
        let (step, wanted) = (back.step, self.stage.step);
        let Some(waits) = self.stage.waits.take().filter(|_| step == wanted) else {
            let reason = format!("sent the gradient of features {step}, expected {wanted}");
            return Err(Error::protocol(reason));
        };
        let extent = waits.extent.features(self.half.tells_tokens());
        let crossing = crossing(&self.plan, hello, step, &waits.samples, extent);
        let decompressor = self.codecs.feature_gradient.as_mut();
        let (stream, device) = (Stream::FeatureGradient, self.model.device());
        let gradient = crossing.decompress(decompressor, stream, &back.frame, device)?;
        let Some(gradient) = gradient else {
            self.stage.waits = Some(waits);
            self.codecs.feature_gradient.reset();
            return Ok(lost(stream, step));
        };
        let at = self.plan.step(step, self.lr, hello.samples as usize);
        let gradient = self.half.backward(waits.passed, &gradient, at)?;
        self.done(gradient, waits.samples, waits.extent, hello)
    }

    /// A mini-batch is done: its gradient where the device's blocks train, else that it was received.
    fn done(
        &mut self,
        gradient: Option<Tensor>,
        samples: Vec<SampleId>,
        extent: Extent,
        hello: Hello,
    ) -> Result<Message> {
        let stage = &mut self.stage;
        stage.step += 1;
        stage.samples += samples.len();
        let Some(gradient) = gradient else {
            return Ok(Message::Received(stage.step - 1));
        };
        stage.gradient = Some((gradient, samples, extent));
        self.gradient(hello)
    }

    /// Checks a mini-batch against the plan and the model, before anything is made of it.
    fn check(&self, up: &Activation, hello: Hello) -> Result<()> {
        let wanted = self.stage.step;
        if up.step != wanted {
            let got = up.step;
            let reason = format!("sent mini-batch {got}, expected {wanted}");
            return Err(Error::protocol(reason));
        }
        let all = self.plan.batches(hello.samples as usize);
        if wanted as usize >= all {
            let reason = format!("sent mini-batch {wanted} of a round of {all}");
            return Err(Error::protocol(reason));
        }
        let (count, most) = (up.samples.len(), self.plan.batch);
        if count == 0 || count > most {
            let reason = format!("sent {count} samples at once, expected 1 to {most}");
            return Err(Error::protocol(reason));
        }
        up.check_labels(&self.plan)?;
        let (half, labels) = (&self.half, up.labels.as_ref());
        match labels.zip(half.answers()) {
            Some((labels, answers)) => up.check_answers(labels, answers, half.tells_tokens()),
            None => Ok(()),
        }
    }

    /// The message with the last gradient.
    fn gradient(&mut self, hello: Hello) -> Result<Message> {
        let Some((gradient, samples, extent)) = self.stage.gradient.take() else {
            return Err(Error::protocol(
                "asked for a gradient before any activation",
            ));
        };
        let step = self.stage.step - 1;
        let crossing = crossing(&self.plan, hello, step, &samples, extent.clone());
        let frame = crossing.compress(self.codecs.down.as_mut(), Stream::Gradient, &gradient)?;
        self.stage.gradient = Some((gradient, samples, extent));
        Ok(Message::Gradient(Coded { step, frame }))
    }

    /// What the device sent of all that it trains once it was done; empty ones where that is nothing.
    fn device_adapters(&self) -> Result<Vec<Vec<f32>>> {
        if self.plan.device_trains() {
            let missing = || Error::protocol("left before it sent its update");
            return self.stage.update.clone().ok_or_else(missing);
        }
        let samples = self.stage.hello.map_or(0, |hello| hello.samples);
        let ended =
            self.stage.told || self.stage.step as usize >= self.plan.batches(samples as usize);
        if samples == 0 || !ended {
            return Err(Error::protocol("left before its last mini-batch"));
        }
        Ok(vec![Vec::new(); self.lengths.len()])
    }

    /// What the round left: both sides' adapters, and the memory of the codecs.
    ///
    /// # Errors
    /// A device that sent no update, or values that are not finite.
    pub fn finish(self) -> Result<(Update, ServerCodecs)> {
        let mut blocks = self.device_adapters()?;
        let (upper, head) = self.half.adapters()?;
        let below = self.model.spec().depth - upper.len();
        let embedding = blocks.remove(0);
        let trained = blocks.split_off(below);
        let head = head.unwrap_or_else(|| self.start.head.with_trained(trained));
        blocks.extend(upper);
        let adapters = Adapters {
            embedding,
            blocks,
            head,
        };
        for values in adapters.vectors() {
            finite(&self.plan, self.device, values, "an adapter")?;
        }
        let update = Update {
            device: self.device as usize,
            adapters,
            loss: self.stage.loss,
            counted: self.stage.counted,
            samples: self.stage.samples,
        };
        Ok((update, self.codecs))
    }
}

/// What both sides know of a mini-batch.
fn crossing<'a>(
    plan: &'a RoundPlan,
    hello: Hello,
    step: u32,
    samples: &'a [SampleId],
    extent: Extent,
) -> Crossing<'a> {
    Crossing {
        plan,
        device: hello.device,
        step,
        epoch: plan.epoch(step, hello.samples as usize),
        samples,
        extent,
    }
}
