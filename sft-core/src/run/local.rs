//! One device's part of a round in this process: both sides, and the connection between them.

use super::whole::{Unsplit, WholeServer, train_whole};
use super::{Call, Fleet, Job};
use crate::adapter::Adapters;
use crate::data::most_tokens;
use crate::optim::OptimizerConfig;
use crate::split::calibration::{self, CalibrationSide, ShownActivations};
use crate::split::{
    Bases, Connection, Deadline, DeviceCodecs, DevicePart, DeviceSide, InMemory, LocalData,
    Remembered, RoundPlan, Serve, ServerCodecs, ServerSide, Traffic, Update, Work,
};
use crate::{Error, Result, seed};

/// What a device's part of a round leaves behind.
pub(super) struct Part {
    pub(super) device: usize,
    /// Nothing of a device that was late.
    pub(super) update: Option<Update>,
    /// What crossed, in vain where it was late.
    pub(super) traffic: Traffic,
    /// What its codecs remember, where they do.
    pub(super) codecs: Option<CodecState>,
}

impl Part {
    /// Of a device that was not there, or did nothing that counts.
    pub(super) fn missing(device: usize) -> Self {
        Self {
            device,
            update: None,
            traffic: Traffic::default(),
            codecs: None,
        }
    }
}

/// The memory of a device's codecs on both sides of the cut; the device's is empty where the device is
/// elsewhere.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CodecState {
    /// The device's, as [`DeviceCodecs::save`] gives it.
    pub device: Remembered<5>,
    /// The server's, as [`ServerCodecs::save`] gives it.
    pub server: Remembered<4>,
}

impl CodecState {
    /// The state of codecs, on the server's side alone where the device is elsewhere; none if they
    /// remember nothing.
    fn of(device: Option<&DeviceCodecs>, server: &ServerCodecs) -> Result<Option<Self>> {
        let device = device.map(DeviceCodecs::save).transpose()?;
        let state = Self {
            device: device.unwrap_or_default(),
            server: server.save()?,
        };
        let is_empty = state.device.is_empty() && state.server.is_empty();
        Ok((!is_empty).then_some(state))
    }
}

/// A device in a round.
#[derive(Clone, Copy)]
pub(super) struct Participant<'a> {
    pub(super) job: &'a Job<'a>,
    /// From 1.
    pub(super) round: usize,
    pub(super) device: usize,
    /// The last round that it ended in time, 0 for none.
    pub(super) since: usize,
}

impl<'a> Participant<'a> {
    /// Split training from `start`; `codecs` is what the codecs remember.
    ///
    /// `bases` is what the server has for the device's cut; the device has it if it `knows` it.
    pub(super) fn split(
        self,
        start: &Adapters,
        codecs: Option<&CodecState>,
        (bases, knows): (Bases, bool),
    ) -> Result<Part> {
        let job = self.job;
        let cut = job.cut(self.device);
        let plan = RoundPlan {
            bases: bases.name(),
            ..self.plan(Work::Split { cut })
        };
        let (number, lr) = (self.device as u32, job.settings.lr_server);
        let session = || {
            let mut above = ServerCodecs::new(&plan, bases.clone())?;
            if let Some(state) = codecs {
                above.restore(&state.server)?;
            }
            ServerSide::new(number, plan.clone(), lr, job.model, start, above)
        };
        if let Some(fleet) = job.fleet {
            return self.split_elsewhere(fleet, session);
        }
        let session = session()?;
        let mut below = DeviceCodecs::new(&plan, bases)?;
        if let Some(state) = codecs {
            below.restore(&state.device)?;
        }
        let mut connection = self.connection(session);
        let mut device = DeviceSide {
            number,
            model: job.model,
            head: Some(&start.head),
            local: self.local(),
            codecs: knows.then_some(below),
        };
        let done = match device.round(&mut connection) {
            Err(Error::Late { .. }) => return Ok(self.late(connection.traffic())),
            done => done?,
        };
        let traffic = connection.traffic();
        let server = connection.into_transport().into_server();
        let (mut update, above) = server.into_side().finish()?;
        if let DevicePart::Trained(Some((loss, counted))) = done {
            (update.loss, update.counted) = (loss, counted);
        }
        Ok(Part {
            device: self.device,
            update: Some(update),
            traffic,
            codecs: CodecState::of(device.codecs.as_ref(), &above)?,
        })
    }

    /// The same with the device in another process; one that failed is told of as late.
    fn split_elsewhere<'s>(
        self,
        fleet: &dyn Fleet,
        session: impl FnOnce() -> Result<ServerSide<'s>> + Send,
    ) -> Result<Part> {
        let mut session = in_turn(fleet, session)?;
        let done = self.call(fleet, &mut session).and_then(|traffic| {
            in_turn(fleet, || {
                let (update, above) = session.finish()?;
                Ok((update, traffic, CodecState::of(None, &above)?))
            })
        });
        match done {
            Ok((update, traffic, codecs)) => Ok(Part {
                device: self.device,
                update: Some(update),
                traffic,
                codecs,
            }),
            Err(Error::Stopped) => Err(Error::Stopped),
            Err(error) => {
                let (round, device) = (self.round, self.device);
                tracing::warn!(round, device, %error, "device left out of the round");
                Ok(Part::missing(device))
            }
        }
    }

    /// Lets a device that is elsewhere take part with a side of the server.
    fn call(self, fleet: &dyn Fleet, side: &mut (dyn Serve + Send)) -> Result<Traffic> {
        let call = Call {
            device: self.device,
            round: self.round,
            since: self.since,
        };
        fleet.take_part(call, side)
    }

    /// Some activations as the server sees them, of up to so many samples, and what they cost.
    pub(super) fn calibrate(self, samples: usize) -> Result<(ShownActivations, Traffic)> {
        let (job, number) = (self.job, self.device as u32);
        let cut = job.cut(self.device);
        let plan = RoundPlan {
            activation: calibration::first_codec(job.model.spec()),
            ..self.plan(Work::Calibrate { cut, samples })
        };
        let mut side = CalibrationSide::new(number, plan, job.model.spec())?;
        if let Some(fleet) = job.fleet {
            let traffic = self.call(fleet, &mut side)?;
            return Ok((side.into_shown(), traffic));
        }
        let mut connection = Connection::new(InMemory::new(side));
        let mut device = DeviceSide {
            number,
            model: job.model,
            head: None,
            local: self.local(),
            codecs: None,
        };
        device.round(&mut connection)?;
        let traffic = connection.traffic();
        Ok((
            connection.into_transport().into_server().into_shown(),
            traffic,
        ))
    }

    /// Local training of the whole model from `start`, as in FL.
    pub(super) fn whole<W: Unsplit>(
        self,
        work: Work,
        start: &Adapters,
        model: impl FnOnce(&Adapters, OptimizerConfig) -> Result<W>,
    ) -> Result<Part> {
        let (job, number) = (self.job, self.device as u32);
        let (plan, layout) = (self.plan(work), job.whole_layout(self.device, start)?);
        let server = WholeServer::new(number, plan, job.model.spec(), layout.clone(), start)?;
        let mut connection = self.connection(server);
        let local = self.local();
        let device = (number, job.model);
        let trained = train_whole(device, &local, &layout, start, model, &mut connection);
        let (loss, counted) = match trained {
            Err(Error::Late { .. }) => return Ok(self.late(connection.traffic())),
            trained => trained?,
        };
        let traffic = connection.traffic();
        let server = connection.into_transport().into_server();
        let adapters = server.into_side().finish(start)?;
        let update = Update {
            device: self.device,
            adapters,
            loss,
            counted,
            samples: job.partition[self.device].len() * job.settings.local_epochs,
        };
        Ok(Part {
            device: self.device,
            update: Some(update),
            traffic,
            codecs: None,
        })
    }

    /// A connection to a server's side, which waits as long as the settings say.
    fn connection<S: Serve>(self, side: S) -> Connection<InMemory<Deadline<S>>> {
        let seconds = self.job.settings.deadline_s;
        Connection::new(InMemory::new(Deadline::new(
            side,
            self.device as u32,
            seconds,
        )))
    }

    fn late(self, traffic: Traffic) -> Part {
        Part {
            traffic,
            ..Part::missing(self.device)
        }
    }

    fn local(self) -> LocalData<'a> {
        LocalData {
            data: self.job.train,
            samples: &self.job.partition[self.device],
            on_batch: self.job.on_batch,
            stop: self.job.stop,
        }
    }

    /// What the device is told.
    pub(super) fn plan(self, work: Work) -> RoundPlan {
        let settings = &self.job.settings;
        let lora = self.job.lora(self.device);
        let (activation, gradient) = settings.codecs(self.job.model.spec());
        RoundPlan {
            round: self.round,
            rounds: (settings.schedule.depends_on_rounds()).then_some(settings.rounds),
            work,
            rank: lora.rank(),
            alpha: lora.alpha(),
            targets: lora.targets().modules(self.job.model.spec()),
            frozen_blocks: lora.frozen_blocks(),
            lora_dropout: lora.dropout(),
            optimizer: settings.optimizer_config(),
            lr: settings.lr,
            schedule: settings.schedule,
            labels: settings.labels,
            batch: settings.batch,
            tokens: most_tokens(self.job.train),
            local_epochs: settings.local_epochs,
            activation,
            gradient,
            features: settings.feature_codec(),
            bases: 0,
            sample_memory_bytes: settings.sample_memory_bytes,
            error_feedback: settings.error_feedback,
            adapter_codec: settings.adapter_codec(),
            seed: seed::derive(settings.seed, &[self.round as u64, self.device as u64]),
        }
    }
}

/// Works when it is its turn.
fn in_turn<T: Send>(fleet: &dyn Fleet, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let (mut work, mut done) = (Some(work), Err(Error::Stopped));
    fleet.work(&mut || {
        if let Some(work) = work.take() {
            done = work();
        }
    })?;
    done
}
