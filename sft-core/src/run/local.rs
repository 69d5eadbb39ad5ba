//! One device's part of a round, on the device and on the server.

use std::sync::atomic::Ordering;
use std::sync::mpsc::sync_channel;

use candle_core::Tensor;
use rand::seq::SliceRandom;
use sft_compress::{Codec, TensorView, decode};

use super::{Job, Settings};
use crate::adapter::{Adapters, device_vectors};
use crate::data::{Batch, Inputs, Labels};
use crate::model::Hidden;
use crate::split::{
    ActivationMessage, AdapterMessage, Counted, DeviceHalf, GradientMessage, Link, ServerHalf,
    Step, Traffic, WholeModel,
};
use crate::{Error, Result, seed};

/// What a device's part of a round leaves behind.
pub(super) struct Part {
    pub(super) device: usize,
    pub(super) adapters: Adapters,
    /// Sum of the losses of all samples seen.
    pub(super) loss: f64,
    pub(super) samples: usize,
    pub(super) traffic: Traffic,
}

/// A whole model that a device of FL trains.
pub(super) trait Whole {
    /// Trains on a mini-batch and returns its mean loss.
    fn step(&mut self, inputs: &Inputs, labels: &Labels, step: Step) -> Result<f32>;

    /// What training has changed so far.
    fn adapters(&self) -> Result<Adapters>;
}

impl Whole for WholeModel<'_> {
    fn step(&mut self, inputs: &Inputs, labels: &Labels, step: Step) -> Result<f32> {
        WholeModel::step(self, inputs, labels, step)
    }

    fn adapters(&self) -> Result<Adapters> {
        WholeModel::adapters(self)
    }
}

/// Which samples make up a mini-batch.
struct BatchOrder {
    /// From 0, within the round.
    number: u64,
    epoch: u64,
    indices: Vec<usize>,
}

/// A mini-batch in memory.
struct Loaded {
    number: u64,
    batch: Batch,
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
    pub(super) fn whole<W: Whole>(
        self,
        start: &Adapters,
        model: impl FnOnce(&Adapters) -> Result<W>,
    ) -> Result<Part> {
        let down = AdapterMessage::encode(start.vectors())?;
        let mut model = model(&start.with_vectors(down.decode(&start.lengths())?))?;
        let (mut loss, mut samples) = (0.0, 0);
        self.each_batch(|Loaded { number, batch }| {
            let step = self.step(number, self.job.settings.lr);
            let mean = model.step(&batch.inputs, &batch.labels, step)?;
            self.finite(&[mean], "the loss")?;
            loss += f64::from(mean) * batch.labels.len() as f64;
            samples += batch.labels.len();
            Ok(())
        })?;
        let trained = model.adapters()?;
        self.all_finite(&trained)?;
        let up = AdapterMessage::encode(trained.vectors())?;
        let adapters = start.with_vectors(up.decode(&trained.lengths())?);
        let traffic = Traffic {
            adapter_up: up.bytes(),
            adapter_down: down.bytes(),
            ..Traffic::default()
        };
        Ok(Part {
            device: self.device,
            adapters,
            loss,
            samples,
            traffic,
        })
    }

    /// The device's side of Algorithm 1.
    fn run_device(self, link: &mut impl Link) -> Result<()> {
        let settings = &self.job.settings;
        let (model, lora) = (self.job.model, settings.lora);
        let mut lengths = vec![lora.embedding_parameters(model.spec())];
        let blocks = self.job.cut(self.device);
        lengths.resize(1 + blocks, lora.block_parameters(model.spec()));
        let vectors = link.receive_adapter()?.decode(&lengths)?;
        let mut half = DeviceHalf::new(model, lora, &vectors[0], &vectors[1..], settings.rule())?;
        let (codec, _) = settings.codecs();
        self.each_batch(|Loaded { number, batch }| {
            let step = self.step(number, settings.lr);
            let activation = half.forward(&batch.inputs, step)?;
            let (direction, name) = (seed::UPLINK, "the activation");
            let frame = self.encode(codec, &activation.state, direction, number, name)?;
            let Labels::Classes(labels) = batch.labels;
            let reply = link.exchange(&ActivationMessage { frame, labels })?;
            half.backward(&activation, &self.tensor(&reply.frame)?, step)
        })?;
        let (embedding, blocks) = half.adapters()?;
        for vector in device_vectors(&embedding, &blocks) {
            self.finite(vector, "the device's adapter")?;
        }
        link.send_adapter(&AdapterMessage::encode(device_vectors(
            &embedding, &blocks,
        ))?)
    }

    /// Calls `train` with the round's mini-batches, the next one being loaded meanwhile.
    fn each_batch(self, mut train: impl FnMut(Loaded) -> Result<()>) -> Result<()> {
        std::thread::scope(|scope| {
            // One batch waits in the channel while the loader makes the one after it.
            let (send, loaded) = sync_channel(1);
            scope.spawn(move || {
                for order in self.batches() {
                    let batch = self.load(order);
                    let failed = batch.is_err();
                    // Training that ended early has dropped its side.
                    if send.send(batch).is_err() || failed {
                        break;
                    }
                }
            });
            for batch in loaded {
                if self.job.stop.load(Ordering::Relaxed) {
                    return Err(Error::Stopped);
                }
                train(batch?)?;
                (self.job.on_batch)();
            }
            Ok(())
        })
    }

    /// What the mini-batches of the round hold, newly shuffled in every local epoch.
    fn batches(self) -> impl Iterator<Item = BatchOrder> + use<'a> {
        let (settings, local) = (&self.job.settings, &self.job.partition[self.device]);
        let epochs = (0..settings.local_epochs as u64).flat_map(move |epoch| {
            let mut order = local.clone();
            order.shuffle(&mut self.rng(&[seed::ORDER, epoch]));
            let batches = order.chunks(settings.batch).map(<[usize]>::to_vec);
            batches.map(|indices| (epoch, indices)).collect::<Vec<_>>()
        });
        (0..)
            .zip(epochs)
            .map(|(number, (epoch, indices))| BatchOrder {
                number,
                epoch,
                indices,
            })
    }

    fn load(self, order: BatchOrder) -> Result<Loaded> {
        let BatchOrder {
            number,
            epoch,
            indices,
        } = order;
        let data = self.job.train;
        let seed = seed::derive(self.seed(), &[seed::AUGMENT, epoch]);
        let mut batch = data.training_batch(&indices, seed)?;
        batch.inputs = batch.inputs.to_device(self.job.model.device())?;
        Ok(Loaded { number, batch })
    }

    /// What the step of a mini-batch needs, at this peak learning rate.
    fn step(self, batch: u64, peak: f64) -> Step {
        let Settings {
            schedule, rounds, ..
        } = self.job.settings;
        let batches = self.job.batches(self.device) as u64;
        Step {
            learning_rate: peak * schedule.factor(self.round, rounds, batch, batches),
            dropout_seed: seed::derive(self.seed(), &[seed::DROPOUT, batch]),
        }
    }

    fn tensor(self, frame: &[u8]) -> Result<Tensor> {
        let decoded = decode(frame)?;
        let shape = decoded.shape().to_vec();
        let device = self.job.model.device();
        Ok(Tensor::from_vec(decoded.into_data(), shape, device)?)
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
        let (device, server) = start.blocks.split_at(turn.job.cut(turn.device));
        let (model, lora) = (turn.job.model, settings.lora);
        let device = device_vectors(&start.embedding, device);
        let device: Vec<_> = device.collect();
        Ok(Self {
            turn,
            half: ServerHalf::new(model, lora, server, &start.head, settings.rule())?,
            lengths: device.iter().map(|vector| vector.len()).collect(),
            broadcast: AdapterMessage::encode(device)?,
            uploaded: Vec::new(),
            loss: 0.0,
            samples: 0,
            step: 0,
        })
    }

    fn finish(self, traffic: Traffic) -> Result<Part> {
        let (upper, head) = self.half.adapters()?;
        let mut blocks = self.uploaded;
        let embedding = blocks.remove(0);
        blocks.extend(upper);
        let adapters = Adapters {
            embedding,
            blocks,
            head,
        };
        self.turn.all_finite(&adapters)?;
        Ok(Part {
            device: self.turn.device,
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
        let activation = self.turn.tensor(&up.frame)?;
        let step = self.turn.step(self.step, self.turn.job.settings.lr_server);
        let step = self.half.step(
            &Hidden::even(activation),
            &Labels::Classes(up.labels.clone()),
            step,
        )?;
        self.turn.finite(&[step.loss], "the loss")?;
        let (_, codec) = self.turn.job.settings.codecs();
        let direction = seed::DOWNLINK;
        let frame =
            self.turn
                .encode(codec, &step.gradient, direction, self.step, "the gradient")?;
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
