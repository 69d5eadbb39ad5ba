//! A run from its configuration to its files.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::content::{by_content, contents};
use super::folder::{Folder, checkpoint};
use super::generate::{Generated, go_on};
use super::inputs::{Inputs, of};
use super::saved::saved_adapters;
use super::{
    Fleet, Job, Progress, RoundRecord, Run, RunConfig, Scheme, Settings, Wireless, finetune,
    load_checkpoint, save_checkpoint,
};
use crate::adapter::{Adapters, Head, save_peft};
use crate::data::mean_tokens;
use crate::model::not_finite;
use crate::{Error, Result};

/// What a scheme did: its part of `run.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SchemeRun {
    /// The scheme.
    #[serde(rename = "name")]
    pub scheme: Scheme,
    /// Modelled memory of the device that holds the most blocks, bytes.
    pub device_memory_bytes: f64,
    /// One record per round.
    pub rounds: Vec<RoundRecord>,
    /// How the tuned model goes on from some test samples, where that was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub generated: Vec<Generated>,
}

/// What one scheme is asked to do.
pub struct Setup {
    /// The trainer's settings.
    pub settings: Settings,
    /// Devices, server and channel.
    pub wireless: Wireless,
    /// The head to start from: the model's own where it has the right classes, else a new one.
    pub head: Head,
}

/// A configuration with the model and the data that it is carried out on.
pub struct Session<'a> {
    config: RunConfig,
    inputs: &'a Inputs,
    partition: Vec<Vec<usize>>,
    named_by_scheme: bool,
    fleet: Option<&'a dyn Fleet>,
    /// What the inputs hold, once it was asked for.
    contents: OnceLock<Map<String, Value>>,
}

impl<'a> Session<'a> {
    /// Spreads the data over the devices.
    ///
    /// # Errors
    /// A field outside its range.
    pub fn new(config: &RunConfig, inputs: &'a Inputs) -> Result<Self> {
        config.check()?;
        let train = inputs.train.as_ref();
        Ok(Self {
            partition: config.partition.split(train, config.devices, config.seed)?,
            config: config.for_model(inputs.model.spec()),
            inputs,
            named_by_scheme: true,
            fleet: None,
            contents: OnceLock::new(),
        })
    }

    /// The same with results in folders `adapters` and `merged`, for a run of one scheme, in place
    /// of `adapters-SCHEME` and `merged-SCHEME`.
    #[must_use]
    pub fn without_scheme_names(self) -> Self {
        Self {
            named_by_scheme: false,
            ..self
        }
    }

    /// The same with the devices in other processes.
    #[must_use]
    pub fn with_fleet(self, fleet: &'a dyn Fleet) -> Self {
        Self {
            fleet: Some(fleet),
            ..self
        }
    }

    /// The configuration, with what the model decides of it.
    pub fn config(&self) -> &RunConfig {
        &self.config
    }

    /// The indices of each device's training samples.
    pub fn partition(&self) -> &[Vec<usize>] {
        &self.partition
    }

    /// Carries out every scheme of the configuration in turn, until `stop` is set.
    ///
    /// All is checked before the first starts. Where the configuration names a folder, it gets
    /// `adapters-SCHEME` (of `fl-full` `merged-SCHEME`), and the checkpoints, one of a stopped
    /// scheme among them. A scheme that did not finish a round leaves nothing there.
    ///
    /// # Errors
    /// A field outside its range, a file that is not what it should be, a folder that holds
    /// another run or that one is writing to, and what [`finetune`] fails with.
    pub fn run(&self, progress: &dyn Progress, stop: &AtomicBool) -> Result<Vec<SchemeRun>> {
        let schemes = self.config.scheme.iter();
        let setups = schemes.map(|&scheme| self.setup(scheme));
        let setups = setups.collect::<Result<Vec<_>>>()?;
        let starts = setups.iter().map(|setup| self.start(setup));
        let starts = starts.collect::<Result<Vec<_>>>()?;
        // What is trained on is what is there now.
        let contents = self.contents()?;
        let folder = self.config.folder();
        let folder = folder.map(|path| Folder::make(path, &self.config, contents));
        let _folder = folder.transpose().map_err(of("out"))?;
        let each = setups.iter().zip(starts);
        let started = each.take_while(|_| !stop.load(Ordering::Relaxed));
        let runs = started.map(|(setup, start)| self.scheme(setup, start, progress, stop));
        runs.collect()
    }

    /// What one scheme is asked to do, checked.
    ///
    /// # Errors
    /// A field outside its range, or parts that do not fit together.
    pub fn setup(&self, scheme: Scheme) -> Result<Setup> {
        let pretrained = self.inputs.pretrained.as_ref();
        let unwritten = |argument, kept: &str| {
            let refused = |why| Error::argument(argument, format!("must {kept}: {why}"));
            pretrained.check_merged().map_err(refused)
        };
        if self.config.merged {
            unwritten("merged", "be off")?;
        }
        if scheme == Scheme::FlFull && self.config.folder().is_some() {
            unwritten("scheme", "not be fl-full with a folder for what it tunes")?;
        }
        let settings = self.config.settings(scheme, self.inputs.model.spec())?;
        let classes = self.inputs.train.classes();
        let spec = self.inputs.model.spec();
        let (rank, train) = (settings.lora.rank(), self.inputs.train.as_ref());
        let model =
            pretrained.transformer(classes, rank, mean_tokens(train).unwrap_or(spec.tokens));
        let samples: Vec<usize> = self.partition.iter().map(Vec::len).collect();
        let channel = self.config.channel()?;
        let wireless = Wireless::new(model, channel, &samples, &settings)?
            .with_gradient_checkpointing(self.config.gradient_checkpointing)?;
        let setup = Setup {
            wireless: if classes == 0 {
                wireless.with_frozen_head()?
            } else {
                wireless
            },
            head: self.head()?,
            settings,
        };
        self.job(&setup, &|| (), &AtomicBool::new(false))
            .validate()?;
        Ok(setup)
    }

    /// The head to start from.
    fn head(&self) -> Result<Head> {
        let (classes, spec) = (self.inputs.train.classes(), self.inputs.model.spec());
        match (&self.config.class_words, self.inputs.pretrained.head()) {
            _ if classes == 0 => self.language_head(),
            (Some(words), _) => self.head_of_words(words),
            (None, Some(head)) if head.classes == classes => Ok(head.clone()),
            _ => {
                let head = Head::new(classes, spec.width, self.config.seed);
                Ok(if spec.head_bias {
                    head
                } else {
                    head.without_bias()
                })
            }
        }
    }

    /// No head of its own, where the model tells next tokens and nothing was asked for that only a head for
    /// classes has.
    fn language_head(&self) -> Result<Head> {
        self.config.refuse_settings_of_classes()?;
        if self.inputs.model.language_head()?.is_none() {
            let reason =
                "must be a language model to tell next tokens, got one without such a head";
            return Err(Error::argument("model", reason));
        }
        Ok(Head::none())
    }

    fn head_of_words(&self, words: &[String]) -> Result<Head> {
        let (got, classes) = (words.len(), self.inputs.train.classes());
        let accepted = format!("one for each of {classes} classes");
        Error::require(got == classes, "class_words", got, &accepted)?;
        self.inputs.pretrained.head_of_words(words)
    }

    fn job<'s>(
        &'s self,
        setup: &'s Setup,
        on_batch: &'s (dyn Fn() + Sync),
        stop: &'s AtomicBool,
    ) -> Job<'s> {
        Job {
            model: self.inputs.model.as_ref(),
            base: Some(self.inputs.pretrained.as_ref()),
            head: &setup.head,
            train: self.inputs.train.as_ref(),
            partition: &self.partition,
            device_cuts: self.config.device_cuts.as_deref(),
            device_ranks: self.config.device_ranks.as_deref(),
            test: self.inputs.test.as_ref(),
            settings: setup.settings,
            wireless: &setup.wireless,
            fleet: self.fleet,
            on_batch,
            stop,
        }
    }

    /// A scheme before its first round, or where a checkpoint left it.
    fn start(&self, setup: &Setup) -> Result<Run> {
        let scheme = setup.settings.scheme;
        if let Some(folder) = &self.config.resume {
            let path = checkpoint(folder, scheme);
            if path.exists() {
                let run = load_checkpoint(&path, &self.deciding_rounds()?, &self.partition);
                return run.map_err(of("resume"));
            }
            if !(Scheme::ALL.iter()).any(|&any| checkpoint(folder, any).exists()) {
                let reason = "no checkpoint-*.safetensors to go on from";
                return Err(of("resume")(Error::file(folder, reason)));
            }
        }
        let start = self.job(setup, &|| (), &AtomicBool::new(false)).start()?;
        match &self.config.adapters {
            Some(folder) if scheme != Scheme::FlFull => {
                let (spec, lora) = (self.inputs.model.spec(), setup.settings.lora);
                let adapters = saved_adapters(folder, spec, lora, &setup.head);
                let adapters = adapters.map_err(of("adapters"))?;
                Ok(Run { adapters, ..start })
            }
            _ => Ok(start),
        }
    }

    /// Fine-tunes by one scheme, with checkpoints, and keeps what it tuned.
    fn scheme(
        &self,
        setup: &Setup,
        start: Run,
        progress: &dyn Progress,
        stop: &AtomicBool,
    ) -> Result<SchemeRun> {
        let on_batch = || progress.batch();
        let (job, config) = (self.job(setup, &on_batch, stop), &self.config);
        let scheme = setup.settings.scheme;
        progress.scheme(scheme, job.batches_after(start.rounds.len()));
        let run = finetune(&job, start, &mut |run| {
            if let Some(record) = run.rounds.last() {
                progress.round(record);
            }
            let last = config.checkpoint_every.is_some() && job.is_finished(run);
            if last || config.checkpoint_is_due(run.rounds.len()) {
                self.save(scheme, run)?;
            }
            Ok(())
        });
        let run = run.map_err(|error| self.blame_weights(error))?;
        if !run.rounds.is_empty() {
            if !job.is_finished(&run) {
                self.save(scheme, &run)?;
            }
            self.keep(&setup.settings, &run.adapters)?;
        }
        Ok(SchemeRun {
            scheme,
            device_memory_bytes: self.device_memory_bytes(setup)?,
            generated: if stop.load(Ordering::Relaxed) {
                Vec::new()
            } else {
                self.generated(&setup.settings, &run.adapters)?
            },
            rounds: run.rounds,
        })
    }

    /// How a tuned model goes on from test samples.
    fn generated(&self, settings: &Settings, adapters: &Adapters) -> Result<Vec<Generated>> {
        let Inputs {
            pretrained,
            model,
            test,
            ..
        } = self.inputs;
        let (count, most) = (self.config.generate, self.config.max_new_tokens);
        match pretrained.text_input().filter(|_| count > 0) {
            Some(input) => {
                let adapted = (model.as_ref(), settings.lora, adapters);
                go_on(adapted, test.as_ref(), input, count, most)
            }
            None => Ok(Vec::new()),
        }
    }

    /// The error that `error` is where training diverged because the weights were never finite.
    fn blame_weights(&self, error: Error) -> Error {
        let name = match error {
            Error::Diverged { .. } => not_finite(self.inputs.pretrained.as_ref()),
            _ => Ok(None),
        };
        match name {
            Ok(Some(name)) => {
                let reason = format!("must hold finite weights, got another value in {name}");
                Error::argument("model", reason)
            }
            _ => error,
        }
    }

    /// Digests of model, training data, test data and the adapters to start from, by name, read when
    /// asked for first: the `contents` of `run.json`.
    ///
    /// # Errors
    /// A file that cannot be read any more.
    pub fn contents(&self) -> Result<&Map<String, Value>> {
        if let Some(known) = self.contents.get() {
            return Ok(known);
        }
        let contents = contents(&self.config, self.inputs)?;
        Ok(self.contents.get_or_init(|| contents))
    }

    /// What decides each round of a scheme, beside the partition: the configuration and the
    /// contents of model, data and adapters.
    fn deciding_rounds(&self) -> Result<Map<String, Value>> {
        Ok(by_content(self.config.deciding_rounds(), self.contents()?))
    }

    /// Writes a checkpoint, where there is a folder.
    fn save(&self, scheme: Scheme, run: &Run) -> Result<()> {
        let Some(folder) = self.config.folder() else {
            return Ok(());
        };
        let (path, deciding) = (checkpoint(folder, scheme), self.deciding_rounds()?);
        save_checkpoint(&path, &deciding, &self.partition, run).map_err(of("out"))
    }

    /// Writes what was tuned, where there is a folder.
    fn keep(&self, settings: &Settings, adapters: &Adapters) -> Result<()> {
        let Some(folder) = self.config.folder() else {
            return Ok(());
        };
        let (scheme, lora) = (settings.scheme, settings.lora);
        let suffix = format!("-{}", scheme.name());
        let suffix = if self.named_by_scheme { &suffix } else { "" };
        let named = |what: &str| folder.join(format!("{what}{suffix}"));
        let full = scheme == Scheme::FlFull;
        if !full {
            let (spec, names) = (self.inputs.model.spec(), self.config.peft_names);
            let pooler = self.inputs.pretrained.pooler()?;
            let saved = save_peft(&named("adapters"), spec, lora, adapters, pooler, names);
            saved.map_err(of("out"))?;
        }
        if full || self.config.merged {
            let lora = (!full).then_some(lora);
            let merged = self
                .inputs
                .pretrained
                .save_merged(&named("merged"), lora, adapters);
            merged.map_err(of("out"))?;
        }
        Ok(())
    }

    /// Modelled memory of the device that holds the most.
    fn device_memory_bytes(&self, setup: &Setup) -> Result<f64> {
        let deepest = self.config.device_cuts.iter().flatten().copied().max();
        let cut = deepest.unwrap_or(setup.settings.cut);
        setup.wireless.device_memory_bytes(&setup.settings, cut)
    }
}
