//! A tiny random model and data that it can learn.
#![allow(dead_code, unreachable_pub)]
// Settings are written where they are used.
#![allow(clippy::large_types_passed_by_value)]

pub mod language;
#[cfg(feature = "net")]
pub mod links;
pub mod protocol;
pub mod texts;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use candle_core::{Device, Tensor};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};
use sft_compress::Codec;
use sft_core::Result;
use sft_core::adapter::{Adapters, Head, Lora, TargetModules, Targets};
use sft_core::data::{Batch, Data, ImageInput, Inputs, Labels};
use sft_core::model::{Backend, PretrainedVit, Vit, VitConfig, VitWeights};
use sft_core::optim::Optimizer;
use sft_core::optim::{Decay, Schedule};
use sft_core::run::{Channel, Job, Run, Scheme, Settings, Wireless, finetune};
use sft_core::split::{LabelSide, RoundPlan, Work};

pub fn config() -> VitConfig {
    VitConfig {
        hidden_size: 12,
        num_hidden_layers: 4,
        num_attention_heads: 3,
        intermediate_size: 20,
        image_size: 6,
        patch_size: 2,
        num_channels: 2,
        ..VitConfig::default()
    }
}

/// Values from N(0, `deviation`^2).
pub fn random(shape: &[usize], deviation: f32, seed: u64) -> Tensor {
    let normal = Normal::new(0.0, deviation).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let values: Vec<f32> = (0..shape.iter().product())
        .map(|_| normal.sample(&mut rng))
        .collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// Every weight and bias random, gains around 1.
pub fn tensors(config: &VitConfig, seed: u64) -> HashMap<String, Tensor> {
    let tensor = |(i, (name, shape)): (usize, (String, Vec<usize>))| {
        let values = random(&shape, 0.3, seed + i as u64);
        let gain = name.contains("norm") && name.ends_with("weight");
        (
            name,
            if gain {
                (values + 1.0).unwrap()
            } else {
                values
            },
        )
    };
    config
        .parameters()
        .into_iter()
        .enumerate()
        .map(tensor)
        .collect()
}

pub fn weights(config: &VitConfig, seed: u64) -> VitWeights {
    VitWeights::new(config, &tensors(config, seed)).unwrap()
}

pub fn vit(config: &VitConfig) -> Vit {
    Vit::new(config, &weights(config, 7), Backend::default()).unwrap()
}

/// The weights of [`vit`] as a file would give them.
pub fn base(config: &VitConfig) -> PretrainedVit {
    PretrainedVit {
        config: config.clone(),
        weights: weights(config, 7),
        head: None,
        input: ImageInput {
            side: config.image_size,
            mean: vec![0.5; config.num_channels],
            std: vec![0.5; config.num_channels],
            fit: None,
        },
    }
}

/// Never set.
pub static NEVER: AtomicBool = AtomicBool::new(false);

/// The whole run of a job.
pub fn run(job: &Job<'_>) -> Result<Run> {
    finetune(job, job.start()?, &mut |_| Ok(()))
}

/// The places of target modules in the tiny model.
pub fn targets(modules: &str) -> Targets {
    let modules: TargetModules = modules.parse().unwrap();
    modules.resolve(&config().spec()).unwrap()
}

/// Inputs of a model as they are.
pub struct InMemory {
    pub inputs: Tensor,
    pub labels: Vec<u32>,
    pub classes: usize,
}

impl InMemory {
    /// Noise around one random image per class.
    pub fn new(count: usize, classes: usize, seed: u64) -> Self {
        let config = config();
        let shape = [config.num_channels, config.image_size, config.image_size];
        let label = |i: usize| (i * 7 % classes) as u32;
        let image = |i: usize| {
            let class = random(&shape, 1.0, 1000 + u64::from(label(i)));
            (class + random(&shape, 0.3, seed + i as u64)).unwrap()
        };
        let images: Vec<_> = (0..count).map(image).collect();
        Self {
            inputs: Tensor::stack(&images, 0).unwrap(),
            labels: (0..count).map(label).collect(),
            classes,
        }
    }
}

impl InMemory {
    /// All of it.
    pub fn whole(&self) -> Batch {
        Batch {
            inputs: Inputs::Pixels(self.inputs.clone()),
            labels: Labels::Classes(self.labels.clone()),
            samples: (0..self.labels.len() as u64).collect(),
        }
    }
}

impl Data for InMemory {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn label(&self, index: usize) -> u32 {
        self.labels[index]
    }

    fn batch(&self, samples: &[usize]) -> Result<Batch> {
        let indices: Vec<u32> = samples.iter().map(|&i| i as u32).collect();
        let indices = Tensor::new(indices, &Device::Cpu)?;
        let pixels = self.inputs.index_select(&indices, 0)?;
        Ok(Batch::images(self, samples, pixels))
    }
}

/// What a model wants of images of this size.
pub fn image_input(side: usize, channels: usize) -> ImageInput {
    ImageInput {
        side,
        mean: vec![0.5; channels],
        std: vec![0.25; channels],
        fit: None,
    }
}

/// The model's input for some samples.
pub fn tensor(data: &dyn Data, indices: &[usize]) -> Tensor {
    data.batch(indices)
        .unwrap()
        .inputs
        .pixels()
        .unwrap()
        .clone()
}

pub fn settings(scheme: Scheme) -> Settings {
    Settings {
        scheme,
        cut: 2,
        lora: Lora::new(3, 6.0).unwrap(),
        activation: Codec::paper(0.4, 8).unwrap().into(),
        gradient: Codec::paper(0.2, 4).unwrap().into(),
        labels: LabelSide::Server,
        features: Codec::for_error(0.01).unwrap(),
        sample_memory_bytes: 0,
        error_feedback: false,
        adapter_codec: Codec::for_error(0.1).unwrap(),
        aggregation: sft_core::run::Aggregation::Average,
        rounds: 2,
        local_epochs: 2,
        batch: 4,
        optimizer: Optimizer::sgd(0.9),
        lr: 0.02,
        lr_server: 0.03,
        schedule: Schedule::new(Decay::Exponential(0.9)),
        clip_norm: None,
        participation: 1.0,
        deadline_s: None,
        evaluate_through_cut: false,
        target_accuracy: None,
        seed: 3,
        threads: 2,
    }
}

/// What a device is told, cut behind the second block.
pub fn plan() -> RoundPlan {
    let settings = settings(Scheme::Sft);
    RoundPlan {
        round: 1,
        rounds: None,
        work: Work::Split { cut: 2 },
        rank: 3,
        alpha: 6.0,
        targets: "all-linear".parse().unwrap(),
        frozen_blocks: 0,
        lora_dropout: 0.0,
        optimizer: settings.optimizer.into(),
        lr: 0.02,
        schedule: settings.schedule,
        labels: LabelSide::Server,
        batch: 4,
        tokens: None,
        local_epochs: 2,
        activation: Codec::paper(0.4, 8).unwrap().into(),
        gradient: Codec::paper(0.2, 4).unwrap().into(),
        features: Codec::raw(),
        bases: 0,
        sample_memory_bytes: 0,
        error_feedback: false,
        adapter_codec: Codec::for_error(0.1).unwrap(),
        seed: 11,
    }
}

/// Everything a job borrows.
pub struct Bench {
    pub vit: Vit,
    pub base: PretrainedVit,
    pub head: Head,
    pub train: InMemory,
    pub test: InMemory,
    pub partition: Vec<Vec<usize>>,
    pub wireless: Wireless,
    pub settings: Settings,
    /// What its job starts from, once it was asked for.
    pub start: OnceLock<Adapters>,
}

impl Bench {
    /// `devices` devices with different numbers of samples, and batches that do not divide them.
    pub fn new(settings: Settings, devices: usize) -> Self {
        let (config, classes) = (config(), 3);
        let (train, test) = (
            InMemory::new(30, classes, 1),
            InMemory::new(20, classes, 500),
        );
        let mut partition = vec![Vec::new(); devices];
        for i in 0..30 {
            partition[(i * i) % devices].push(i);
        }
        partition.retain(|part| !part.is_empty());
        let samples: Vec<usize> = partition.iter().map(Vec::len).collect();
        let channel = Channel {
            bandwidth_hz: 30e6,
            snr_db: 17.0,
            rayleigh: true,
        };
        let model = config.transformer(classes, settings.lora.rank());
        Self {
            vit: vit(&config),
            base: base(&config),
            head: Head::new(classes, config.hidden_size, 5),
            train,
            test,
            partition,
            wireless: Wireless::new(model, channel, &samples, &settings).unwrap(),
            settings,
            start: OnceLock::new(),
        }
    }

    pub fn job(&self) -> Job<'_> {
        Job {
            model: &self.vit,
            base: Some(&self.base),
            head: &self.head,
            train: &self.train,
            partition: &self.partition,
            device_cuts: None,
            device_ranks: None,
            test: &self.test,
            settings: self.settings,
            wireless: &self.wireless,
            fleet: None,
            on_batch: &|| (),
            stop: &NEVER,
        }
    }

    /// The whole run from its start.
    pub fn run(&self) -> Result<Run> {
        run(&self.job())
    }
}

/// A folder of its own that goes away with the test.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        /// Tests of one process run at the same time, some with the same name.
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let unique = format!("sft-{name}-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(unique);
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    /// Writes a file, and the folders above it.
    pub fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
