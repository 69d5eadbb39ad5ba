use super::{DeviceAdaptersKind, FadingKind, OptimizerKind, RunConfig, ScheduleKind};
use crate::adapter::{Lora, ModelSpec};
use crate::data::Augment;
use crate::optim::{Decay, Optimizer, Schedule};
use crate::run::settings::MAX_THREADS;
use crate::run::{Channel, Scheme, Settings};
use crate::{Error, Result};

impl RunConfig {
    /// The same with what a model decides where it was left open: the steps of `transform`.
    #[must_use]
    pub fn for_model(&self, spec: &ModelSpec) -> Self {
        Self {
            activation: self.activation.for_activations_of(spec),
            gradient: self.gradient.for_gradients_of(spec),
            ..self.clone()
        }
    }

    /// What the trainer is asked to do by one scheme, for a model of which `spec` tells the layers.
    ///
    /// # Errors
    /// A field outside its range, or a target that the model does not have.
    pub fn settings(&self, scheme: Scheme, spec: &ModelSpec) -> Result<Settings> {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let cores = || cores().min(MAX_THREADS);
        let settings = Settings {
            scheme,
            cut: self.cut,
            lora: self
                .lora(spec)?
                .with_frozen_blocks(self.frozen_blocks(scheme)),
            activation: self.activation,
            gradient: self.gradient,
            labels: self.labels,
            features: self.features,
            sample_memory_bytes: self.sample_memory_bytes()?,
            error_feedback: self.error_feedback,
            adapter_codec: self.adapter_codec,
            aggregation: self.aggregation,
            rounds: self.rounds,
            local_epochs: self.local_epochs,
            batch: self.batch,
            optimizer: self.optimizer(),
            clip_norm: self.clip_norm,
            lr: self.lr,
            lr_server: self.lr_server.unwrap_or(self.lr),
            schedule: self.schedule(),
            participation: self.participation,
            deadline_s: self.deadline_s,
            evaluate_through_cut: self.evaluate_through_cut,
            target_accuracy: self.target_accuracy,
            seed: self.seed,
            threads: self.threads.unwrap_or_else(cores),
        };
        for &cut in self.device_cuts.iter().flatten() {
            settings.validate_cut("device_cuts", cut, spec.depth)?;
        }
        settings.validate(spec.depth)?;
        Ok(settings)
    }

    /// The channel that the devices share.
    ///
    /// # Errors
    /// A bandwidth that is not positive or a ratio that is not finite.
    pub fn channel(&self) -> Result<Channel> {
        let (bandwidth_hz, snr_db) = (self.bandwidth_hz, self.snr_db);
        if !(bandwidth_hz > 0.0 && bandwidth_hz.is_finite()) {
            let reason = format!("must be finite and positive, got {bandwidth_hz}");
            return Err(Error::argument("bandwidth_hz", reason));
        }
        if !(-300.0..=300.0).contains(&snr_db) {
            let reason = format!("must be in -300..=300, got {snr_db}");
            return Err(Error::argument("snr_db", reason));
        }
        Ok(Channel {
            bandwidth_hz,
            snr_db,
            rayleigh: self.fading == FadingKind::Rayleigh,
        })
    }

    fn sample_memory_bytes(&self) -> Result<usize> {
        let (mb, most) = (self.sample_memory_mb, 1_000_000);
        Error::require(
            mb <= most,
            "sample_memory_mb",
            mb,
            &format!("at most {most}"),
        )?;
        Ok(mb.saturating_mul(1_000_000))
    }

    /// How training images are changed at random, if they are.
    pub fn augmentation(&self) -> Option<Augment> {
        self.augment.then(Augment::default)
    }

    /// Blocks without adapters: where devices have none, those of the device that holds the most.
    fn frozen_blocks(&self, scheme: Scheme) -> usize {
        if !scheme.is_split() || self.device_adapters == DeviceAdaptersKind::Lora {
            return 0;
        }
        let deepest = self.device_cuts.iter().flatten().copied().max();
        deepest.unwrap_or(self.cut)
    }

    fn lora(&self, spec: &ModelSpec) -> Result<Lora> {
        let ranks = self.device_ranks.iter().flatten().copied();
        let rank = ranks.max().unwrap_or(self.rank);
        let alpha = self.alpha.unwrap_or(rank as f64);
        Lora::of(spec, rank, alpha, &self.targets, self.lora_dropout)
    }

    fn optimizer(&self) -> Optimizer {
        match self.optimizer {
            OptimizerKind::Sgd => Optimizer::Sgd {
                momentum: self.momentum,
                weight_decay: self.weight_decay.unwrap_or(0.0),
            },
            OptimizerKind::Adamw => Optimizer::AdamW {
                weight_decay: self.weight_decay.unwrap_or(0.01),
            },
        }
    }

    fn schedule(&self) -> Schedule {
        Schedule {
            warmup_rounds: self.warmup_rounds,
            decay: match self.schedule {
                ScheduleKind::Constant => Decay::Constant,
                ScheduleKind::Exponential => Decay::Exponential(self.lr_decay),
                ScheduleKind::Cosine => Decay::Cosine,
            },
        }
    }
}
