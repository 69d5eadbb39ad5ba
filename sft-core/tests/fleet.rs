//! Rounds with devices elsewhere: who fails in the middle leaves no trace, and rounds of too few are done anew.

mod common;

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use common::{Bench, NEVER, settings};
use sft_compress::Codec;
use sft_core::run::{Call, Fleet, Job, Run, Scheme, Settings, finetune};
use sft_core::split::message::Message;
use sft_core::split::{Connection, DeviceSide, InMemory, LocalData, Serve, Traffic};
use sft_core::{Error, Result};

/// Devices of this process that reach their sides as those elsewhere do.
struct Elsewhere<'a> {
    bench: &'a Bench,
    quorum: usize,
    /// Devices that are not there in a round.
    absent: Vec<(usize, usize)>,
    /// After how many messages a device fails in a round, each once.
    fails: Mutex<HashMap<(usize, usize), usize>>,
    calls: Mutex<Vec<Call>>,
}

impl<'a> Elsewhere<'a> {
    fn new(bench: &'a Bench, quorum: usize) -> Self {
        Self {
            bench,
            quorum,
            absent: Vec::new(),
            fails: Mutex::default(),
            calls: Mutex::default(),
        }
    }

    fn run(&self) -> Result<Run> {
        let job = Job {
            fleet: Some(self),
            ..self.bench.job()
        };
        finetune(&job, job.start()?, &mut |_| Ok(()))
    }
}

/// A side that is borrowed, and after so many messages not reached any more.
struct Reached<'a>(&'a mut (dyn Serve + Send), usize);

impl Serve for Reached<'_> {
    fn handle(&mut self, message: Message) -> Result<Vec<Message>> {
        if self.1 == 0 {
            return Err(Error::Link {
                peer: "the device".into(),
                reason: "broke".into(),
            });
        }
        self.1 -= 1;
        self.0.handle(message)
    }

    fn is_done(&self) -> bool {
        self.0.is_done()
    }
}

impl Fleet for Elsewhere<'_> {
    fn gather(&self, round: usize, drawn: &[usize], _: &AtomicBool) -> Result<Vec<usize>> {
        let here = |device: &usize| !self.absent.contains(&(round, *device));
        Ok(drawn.iter().copied().filter(here).collect())
    }

    fn take_part(&self, call: Call, side: &mut (dyn Serve + Send)) -> Result<Traffic> {
        self.calls.lock().unwrap().push(call);
        let fails = self
            .fails
            .lock()
            .unwrap()
            .remove(&(call.round, call.device));
        let reached = Reached(side, fails.unwrap_or(usize::MAX));
        let mut connection = Connection::new(InMemory::new(reached));
        let mut device = DeviceSide {
            number: call.device as u32,
            model: &self.bench.vit,
            head: None,
            local: LocalData {
                data: &self.bench.train,
                samples: &self.bench.partition[call.device],
                on_batch: &|| (),
                stop: &NEVER,
            },
            codecs: None,
        };
        device.round(&mut connection)?;
        let traffic = connection.traffic();
        assert!(connection.into_transport().into_server().is_done());
        Ok(traffic)
    }

    fn quorum(&self) -> usize {
        self.quorum
    }
}

/// Three devices, and codecs without memory: these devices keep none.
fn bench() -> Bench {
    let settings = Settings {
        activation: Codec::paper(0.4, 8).unwrap().into(),
        gradient: Codec::paper(0.2, 4).unwrap().into(),
        adapter_codec: Codec::raw(),
        rounds: 3,
        ..settings(Scheme::Sft)
    };
    Bench::new(settings, 5)
}

/// A run without the times that it took.
fn timeless(mut run: Run) -> Run {
    run.rounds.iter_mut().for_each(|record| record.wall_s = 0.0);
    run
}

#[test]
fn devices_elsewhere_give_the_run_in_memory() {
    let bench = bench();
    let fleet = Elsewhere::new(&bench, 3);
    assert!(timeless(fleet.run().unwrap()) == timeless(bench.run().unwrap()));
    let calls = fleet.calls.lock().unwrap();
    assert!(calls.iter().all(|call| call.since == call.round - 1));
}

#[test]
fn who_fails_in_the_middle_of_a_round_leaves_no_trace() {
    let bench = bench();
    let absent = Elsewhere {
        absent: vec![(2, 1)],
        ..Elsewhere::new(&bench, 1)
    };
    let want = timeless(absent.run().unwrap());
    assert_eq!(
        (&want.rounds[1].devices[..], &want.rounds[1].late[..]),
        (&[0, 2][..], &[1][..])
    );
    assert!(want.adapters != bench.run().unwrap().adapters);
    let messages = 1 + bench.partition[1]
        .len()
        .div_ceil(bench.job().settings.batch);
    for after in 0..=messages {
        let fleet = Elsewhere::new(&bench, 1);
        fleet.fails.lock().unwrap().insert((2, 1), after);
        let run = timeless(fleet.run().unwrap());
        assert!(run.adapters == want.adapters, "after {after} messages");
        assert_eq!(run.rounds[1].late, [1], "after {after} messages");
        let since = fleet
            .calls
            .lock()
            .unwrap()
            .iter()
            .rfind(|call| call.device == 1)
            .unwrap()
            .since;
        assert_eq!(since, 1);
    }
}

#[test]
fn a_round_of_too_few_is_done_anew_and_does_not_count() {
    let bench = bench();
    let fleet = Elsewhere::new(&bench, 3);
    fleet
        .fails
        .lock()
        .unwrap()
        .extend([((2, 0), 2), ((3, 2), 1)]);
    assert!(timeless(fleet.run().unwrap()) == timeless(bench.run().unwrap()));
    let rounds: Vec<_> = fleet
        .calls
        .lock()
        .unwrap()
        .iter()
        .map(|call| call.round)
        .collect();
    let of = |round| rounds.iter().filter(|&&other| other == round).count();
    assert_eq!([of(1), of(2), of(3)], [3, 6, 6]);
    let never = Elsewhere {
        absent: vec![(2, 0)],
        ..Elsewhere::new(&bench, 3)
    };
    let error = never.run().unwrap_err();
    assert!(
        matches!(error, Error::Absent { round: 2, ended: 2 }),
        "{error}"
    );
}

#[test]
fn where_fewer_are_drawn_than_the_quorum_all_of_them_are_one() {
    let mut bench = bench();
    bench.settings.participation = 0.34;
    let fleet = Elsewhere::new(&bench, 3);
    let run = fleet.run().unwrap();
    assert!(run.rounds.iter().all(|record| record.devices.len() == 1));
    assert!(timeless(run) == timeless(bench.run().unwrap()));
}

#[test]
fn whole_models_stay_in_memory() {
    let bench = Bench::new(settings(Scheme::FlLora), 2);
    let error = Elsewhere::new(&bench, 1).run().unwrap_err().to_string();
    assert!(
        error.contains("scheme must be sft, sft-raw or sl"),
        "{error}"
    );
}
