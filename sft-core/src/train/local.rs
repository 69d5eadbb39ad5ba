//! One device's part of a round, on the device and on the server.

use candle_core::{Device, Tensor};
use rand::seq::SliceRandom;
use sft_compress::{Codec, TensorView, decode};

use super::Job;
use crate::link::{ActivationMessage, AdapterMessage, Counted, GradientMessage, Link, Traffic};
use crate::split::{DeviceHalf, ServerHalf};
use crate::{Adapters, Error, Result, seed};

/// What a device's part of a round leaves behind.
pub(super) struct Part {
    pub(super) adapters: Adapters,
    /// Sum of the losses of all samples seen.
    pub(super) loss: f64,
    pub(super) samples: usize,
    pub(super) traffic: Traffic,
}

/// A device in a round.
#[derive(Clone, Copy)]
pub(super) struct Turn<'a> {
    pub(super) job: &'a Job<'a>,
    /// From 1.
    pub(super) round: usize,
    pub(super) device: usize,
}

impl<'a> Turn<'a> {
    /// Split training from `start` over an in-process link.
    pub(super) fn split(self, start: &Adapters) -> Result<Part> {
        let mut link = Counted::new(Session::new(self, start)?);
        self.run_device(&mut link)?;
        let traffic = link.traffic();
        link.into_inner().finish(traffic)
    }

    /// Local training of the whole model from `start`, as in FL.
    pub(super) fn whole(self, start: &Adapters) -> Result<Part> {
        let settings = &self.job.settings;
        let down = AdapterMessage::encode(start.vectors())?;
        let start = Adapters::from_vectors(down.decode(&start.lengths())?);
        let rate = settings.lr * settings.decay(self.round);
        let model = self.job.model;
        let (lora, optimizer) = (settings.lora, settings.optimizer);
        let mut half = ServerHalf::new(model, lora, &start.blocks, &start.head, optimizer, rate)?;
        let (mut loss, mut samples) = (0.0, 0);
        for (_, batch) in self.batches() {
            let labels = self.labels(&batch);
            let embedded = model.embed(&self.job.train.inputs(&batch)?)?;
            let step = half.step(&embedded, &labels, false)?;
            self.finite(&[step.loss], "the loss")?;
            loss += f64::from(step.loss) * batch.len() as f64;
            samples += batch.len();
            self.job.batch_done();
        }
        let trained = half.adapters()?;
        self.all_finite(&trained)?;
        let up = AdapterMessage::encode(trained.vectors())?;
        let adapters = Adapters::from_vectors(up.decode(&trained.lengths())?);
        let traffic = Traffic {
            adapter_up: up.bytes(),
            adapter_down: down.bytes(),
            ..Traffic::default()
        };
        Ok(Part {
            adapters,
            loss,
            samples,
            traffic,
        })
    }

    /// The device's side of Algorithm 1.
    fn run_device(self, link: &mut impl Link) -> Result<()> {
        let settings = &self.job.settings;
        let model = self.job.model;
        let lengths = vec![settings.lora.parameters(model.linears()); settings.cut];
        let blocks = link.receive_adapter()?.decode(&lengths)?;
        let rate = settings.lr * settings.decay(self.round);
        let mut half = DeviceHalf::new(model, settings.lora, &blocks, settings.optimizer, rate)?;
        let (codec, _) = settings.codecs();
        for (step, batch) in self.batches() {
            let activation = half.forward(&self.job.train.inputs(&batch)?)?;
            let frame = self.encode(codec, &activation, seed::UPLINK, step, "the activation")?;
            let up = ActivationMessage {
                frame,
                labels: self.labels(&batch),
            };
            let gradient = tensor(&link.exchange(&up)?.frame)?;
            half.backward(&activation, &gradient)?;
            self.job.batch_done();
        }
        let blocks = half.adapters()?;
        for block in &blocks {
            self.finite(block, "the device's adapter")?;
        }
        link.send_adapter(&AdapterMessage::encode(blocks.iter().map(Vec::as_slice))?)
    }

    /// The mini-batches of the round with their numbers, newly shuffled in every local epoch.
    fn batches(self) -> impl Iterator<Item = (u64, Vec<usize>)> + use<'a> {
        let (settings, local) = (&self.job.settings, &self.job.partition[self.device]);
        let epochs = (0..settings.local_epochs as u64).flat_map(move |epoch| {
            let mut order = local.clone();
            order.shuffle(&mut self.rng(&[seed::ORDER, epoch]));
            let batches = order.chunks(settings.batch).map(<[usize]>::to_vec);
            batches.collect::<Vec<_>>()
        });
        (0..).zip(epochs)
    }

    fn labels(self, batch: &[usize]) -> Vec<u32> {
        batch.iter().map(|&i| self.job.train.label(i)).collect()
    }

    fn rng(self, key: &[u64]) -> rand_chacha::ChaCha8Rng {
        seed::rng(self.seed(), key)
    }

    fn seed(self) -> u64 {
        seed::derive(
            self.job.settings.seed,
            &[self.round as u64, self.device as u64],
        )
    }

    fn encode(
        self,
        codec: Codec,
        tensor: &Tensor,
        direction: u64,
        step: u64,
        name: &'static str,
    ) -> Result<Vec<u8>> {
        let values = tensor.flatten_all()?.to_vec1::<f32>()?;
        self.finite(&values, name)?;
        let seed = seed::derive(self.seed(), &[direction, step]);
        Ok(codec.encode(TensorView::new(&values, tensor.dims())?, seed)?)
    }

    fn finite(self, values: &[f32], tensor: &'static str) -> Result<()> {
        if values.iter().all(|v| v.is_finite()) {
            return Ok(());
        }
        let Self { round, device, .. } = self;
        Err(Error::Diverged {
            round,
            device,
            tensor,
        })
    }

    fn all_finite(self, adapters: &Adapters) -> Result<()> {
        adapters
            .vectors()
            .try_for_each(|values| self.finite(values, "an adapter"))
    }
}

/// The server's side of Algorithm 1 for one device, reached in memory.
struct Session<'a> {
    turn: Turn<'a>,
    half: ServerHalf<'a>,
    broadcast: AdapterMessage,
    lengths: Vec<usize>,
    uploaded: Vec<Vec<f32>>,
    loss: f64,
    samples: usize,
    step: u64,
}

impl<'a> Session<'a> {
    fn new(turn: Turn<'a>, start: &Adapters) -> Result<Self> {
        let settings = &turn.job.settings;
        let (device, server) = start.blocks.split_at(settings.cut);
        let rate = settings.lr_server * settings.decay(turn.round);
        let (model, lora) = (turn.job.model, settings.lora);
        Ok(Self {
            turn,
            half: ServerHalf::new(model, lora, server, &start.head, settings.optimizer, rate)?,
            broadcast: AdapterMessage::encode(device.iter().map(Vec::as_slice))?,
            lengths: device.iter().map(Vec::len).collect(),
            uploaded: Vec::new(),
            loss: 0.0,
            samples: 0,
            step: 0,
        })
    }

    fn finish(self, traffic: Traffic) -> Result<Part> {
        let Adapters { blocks, head } = self.half.adapters()?;
        let blocks = [self.uploaded, blocks].concat();
        let adapters = Adapters { blocks, head };
        self.turn.all_finite(&adapters)?;
        Ok(Part {
            adapters,
            loss: self.loss,
            samples: self.samples,
            traffic,
        })
    }
}

impl Link for Session<'_> {
    fn receive_adapter(&mut self) -> Result<AdapterMessage> {
        Ok(self.broadcast.clone())
    }

    fn exchange(&mut self, up: &ActivationMessage) -> Result<GradientMessage> {
        let activation = tensor(&up.frame)?;
        let step = self.half.step(&activation, &up.labels, true)?;
        self.turn.finite(&[step.loss], "the loss")?;
        // The cut is a variable of the graph, so its gradient is there.
        let gradient = step.gradient.ok_or(Error::NoGradient(0))?;
        let (_, codec) = self.turn.job.settings.codecs();
        let direction = seed::DOWNLINK;
        let frame = self
            .turn
            .encode(codec, &gradient, direction, self.step, "the gradient")?;
        self.loss += f64::from(step.loss) * up.labels.len() as f64;
        self.samples += up.labels.len();
        self.step += 1;
        Ok(GradientMessage { frame })
    }

    fn send_adapter(&mut self, up: &AdapterMessage) -> Result<()> {
        self.uploaded = up.decode(&self.lengths)?;
        Ok(())
    }
}

fn tensor(frame: &[u8]) -> Result<Tensor> {
    let decoded = decode(frame)?;
    let shape = decoded.shape().to_vec();
    Ok(Tensor::from_vec(decoded.into_data(), shape, &Device::Cpu)?)
}
