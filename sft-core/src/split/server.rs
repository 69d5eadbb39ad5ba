//! The server's side of Algorithm 1 for one device in one round.

use candle_core::Tensor;
use sft_compress::{Compressor, Decompressor, Direction};

use super::adapters::Held;
use super::coded::{Crossing, finite};
use super::extent::Extent;
use super::memory::Serve;
use super::message::{Activation, Failure, FailureKind, Gradient, Hello, Message};
use super::transport::unexpected;
use super::{Bases, RoundPlan, ServerHalf, Work};
use crate::adapter::{
    Adapters, ModelSpec, NamedShape, cut_into, device_layout, device_lengths, device_vectors,
};
use crate::data::{Labels, SampleId};
use crate::model::{Hidden, Model};
use crate::{Error, Result};

/// The server's ends of the streams of messages with a device.
pub struct ServerCodecs {
    /// What they are relative to.
    pub bases: Bases,
    /// Activations, coming up.
    pub up: Box<dyn Decompressor>,
    /// Gradients, going down.
    pub down: Box<dyn Compressor>,
    /// The adapters that the device holds.
    pub held: Held,
}

impl ServerCodecs {
    /// Those that a plan names, which remember nothing.
    ///
    /// # Errors
    /// A transform codec without its basis.
    pub fn new(plan: &RoundPlan, bases: Bases) -> Result<Self> {
        let memory = plan.sample_memory_bytes;
        let (up, down) = (bases.up.as_ref(), bases.down.as_ref());
        Ok(Self {
            up: plan.activation.decompressor(up, memory)?,
            down: plan.gradient.compressor(down, 0, plan.error_feedback)?,
            held: Held::default(),
            bases,
        })
    }
}

/// What a device's part of a round leaves on the server.
pub struct Update {
    /// The device, from 0.
    pub device: usize,
    /// What both sides trained.
    pub adapters: Adapters,
    /// Sum of the losses of all labels seen that count.
    pub loss: f64,
    /// These labels, each as often as it was seen: one a sample, or next tokens.
    pub counted: usize,
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
    /// The device's part of the global adapters.
    start: Vec<f32>,
    layout: Vec<NamedShape>,
    lengths: Vec<usize>,
    codecs: ServerCodecs,
    stage: Stage,
}

impl Serve for ServerSide<'_> {
    fn handle(&mut self, message: Message) -> Result<Vec<Message>> {
        let trains = !self.plan.device_is_frozen();
        match (message, self.stage.hello) {
            (Message::Hello(hello), None) => self.welcome(hello),
            (Message::Activation(up), Some(hello)) => Ok(vec![self.train(&up, hello)?]),
            (
                Message::Error(Failure {
                    kind: FailureKind::LostReference,
                    ..
                }),
                Some(hello),
            ) if trains => {
                self.codecs.down.reset();
                Ok(vec![self.gradient(hello)?])
            }
            (Message::Update(update), Some(_)) if trains => {
                let held = &self.codecs.held;
                let values = held.updated(&update, &self.plan, &self.layout)?;
                self.stage.update = Some(cut_into(&values, &self.lengths));
                Ok(Vec::new())
            }
            (other, hello) => {
                let wanted = if hello.is_some() {
                    "an activation"
                } else {
                    "hello"
                };
                Err(unexpected(&other, wanted))
            }
        }
    }
}

/// How far the device is.
#[derive(Default)]
struct Stage {
    hello: Option<Hello>,
    /// The next mini-batch.
    step: u32,
    /// The last gradient, with the samples of its mini-batch.
    gradient: Option<(Tensor, Vec<SampleId>, Extent)>,
    update: Option<Vec<Vec<f32>>>,
    loss: f64,
    counted: usize,
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
        start: &Adapters,
        codecs: ServerCodecs,
    ) -> Result<Self> {
        plan.check(model.spec())?;
        let Work::Split { cut } = plan.work else {
            let reason = "must split the model for a session of the server";
            return Err(Error::argument("plan", reason));
        };
        let (spec, lora) = (model.spec(), plan.lora(model.spec())?);
        let (low, high) = start.blocks.split_at(cut.min(start.blocks.len()));
        Ok(Self {
            device,
            lr,
            model,
            half: ServerHalf::new(model, lora, high, &start.head, plan.optimizer)?,
            start: device_vectors(&start.embedding, low)
                .collect::<Vec<_>>()
                .concat(),
            layout: device_layout(spec, lora, cut),
            lengths: device_lengths(spec, lora, cut),
            plan,
            codecs,
            stage: Stage::default(),
        })
    }

    fn welcome(&mut self, hello: Hello) -> Result<Vec<Message>> {
        check_hello(self.device, self.model.spec(), hello)?;
        self.stage.hello = Some(hello);
        let (codecs, plan) = (&mut self.codecs, &self.plan);
        let bases =
            (hello.bases != plan.bases).then(|| Message::Bases(Box::new(codecs.bases.clone())));
        let start = (!plan.device_is_frozen()).then(|| {
            let held = &mut codecs.held;
            held.send(&self.start, hello.held, plan, &self.layout)
        });
        let start = start.transpose()?.map(Message::Adapters);
        let plan = Message::Plan(plan.clone().into());
        Ok([plan].into_iter().chain(bases).chain(start).collect())
    }

    /// One step of the server's half; the gradient where the device trains, or that the activation
    /// cannot be read.
    fn train(&mut self, up: &Activation, hello: Hello) -> Result<Message> {
        self.check(up, hello)?;
        let tokens = up.tokens(&self.plan, self.model.spec())?;
        let padded = [up.samples.len(), tokens, self.model.spec().width];
        let extent = Extent::new(padded, up.lengths.as_deref());
        let crossing = crossing(&self.plan, hello, up.step, &up.samples, extent.clone());
        let decompressor = self.codecs.up.as_mut();
        let device = self.model.device();
        let state = crossing.decompress(decompressor, Direction::Up, &up.frame, device)?;
        let Some(state) = state else {
            self.codecs.up.reset();
            let step = up.step;
            return Ok(Message::Error(Failure {
                kind: FailureKind::LostReference,
                reason: format!("the activation of mini-batch {step} builds on what is not there"),
            }));
        };
        let hidden = Hidden {
            state,
            lengths: up.lengths.clone(),
        };
        let step = self.plan.step(up.step, self.lr, hello.samples as usize);
        let done = self.half.step(&hidden, &up.labels, step)?;
        finite(&self.plan, self.device, &[done.loss], "the loss")?;
        let stage = &mut self.stage;
        let counted = up.labels.counted();
        stage.loss += f64::from(done.loss) * counted as f64;
        stage.counted += counted;
        stage.step += 1;
        let Some(gradient) = done.gradient else {
            return Ok(Message::Received(up.step));
        };
        stage.gradient = Some((gradient, up.samples.clone(), extent));
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
        self.check_labels(up)
    }

    /// Checks that labels are of the kind that is trained for, as many as there must be, and each among the
    /// answers.
    fn check_labels(&self, up: &Activation) -> Result<()> {
        let answers = self.half.answers();
        let (kind, labels, wanted) = match (&up.labels, self.half.tells_tokens()) {
            (Labels::Classes(classes), false) => ("class", classes, up.samples.len()),
            (Labels::Tokens(tokens), true) => ("next token", tokens, up.real_tokens()),
            (_, tokens) => {
                let wanted = if tokens { "next tokens" } else { "classes" };
                let reason = format!("sent labels of another kind, expected {wanted}");
                return Err(Error::protocol(reason));
            }
        };
        if labels.len() != wanted || up.labels.counted() == 0 {
            let (got, counted) = (labels.len(), up.labels.counted());
            let reason = format!("sent {got} labels of which {counted} count, expected {wanted}");
            return Err(Error::protocol(reason));
        }
        let ignored = |label: u32| self.half.tells_tokens() && label == Labels::IGNORED;
        let wrong = |&&label: &&u32| label as usize >= answers && !ignored(label);
        if let Some(label) = labels.iter().find(wrong) {
            let reason = format!("sent the {kind} {label}, the head has {answers}");
            return Err(Error::protocol(reason));
        }
        Ok(())
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
        let frame = crossing.compress(self.codecs.down.as_mut(), Direction::Down, &gradient)?;
        self.stage.gradient = Some((gradient, samples, extent));
        Ok(Message::Gradient(Gradient { step, frame }))
    }

    /// What the device sent of its half's adapters once it was done; empty ones of a frozen half.
    fn device_adapters(&self) -> Result<Vec<Vec<f32>>> {
        if !self.plan.device_is_frozen() {
            let missing = || Error::protocol("left before it sent its update");
            return self.stage.update.clone().ok_or_else(missing);
        }
        let samples = self.stage.hello.map_or(0, |hello| hello.samples);
        if samples == 0 || (self.stage.step as usize) < self.plan.batches(samples as usize) {
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
        let embedding = blocks.remove(0);
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

/// Checks what a device tells of itself.
pub(crate) fn check_hello(device: u32, spec: &ModelSpec, hello: Hello) -> Result<()> {
    let (ours, theirs) = (spec.fingerprint(), hello.model);
    if ours != theirs {
        let reason = format!("has a model of fingerprint {theirs:08x}, this is {ours:08x}");
        return Err(Error::protocol(reason));
    }
    if hello.device != device || hello.samples == 0 {
        let Hello {
            device: got,
            samples,
            ..
        } = hello;
        let reason = format!("is device {got} with {samples} samples, expected {device} with some");
        return Err(Error::protocol(reason));
    }
    Ok(())
}
