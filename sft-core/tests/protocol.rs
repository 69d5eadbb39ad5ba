//! Rounds over messages: in memory and over a socket, with lost memories and strangers.

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use common::{Bench, NEVER, plan, settings};
use sft_compress::{
    Codec, Compressor, Context, Decompressor, Error as CodecError, ErrorKind, Stateful, Tensor,
    TensorView,
};
use sft_core::adapter::{Adapters, NamedShape};
use sft_core::data::Labels;
use sft_core::model::Model;
use sft_core::optim::Decay;
use sft_core::run::{Scheme, Settings};
use sft_core::split::message::{
    Activation, Failure, FailureKind, Gradient, HEADER_BYTES, Hello, Message, Tensors,
};
use sft_core::split::{
    Bases, Connection, CutCodec, DeviceCodecs, DeviceSide, InMemory, LocalData, RoundPlan, Serve,
    ServerCodecs, ServerSide, Traffic, Transport, Work,
};
use sft_core::{Error, Result};

fn server_side(bench: &Bench, plan: RoundPlan, codecs: ServerCodecs) -> ServerSide<'_> {
    let start = bench.job().start().unwrap().adapters;
    ServerSide::new(1, plan, 0.03, &bench.vit, &start, codecs).unwrap()
}

fn device(bench: &Bench, codecs: Option<DeviceCodecs>) -> DeviceSide<'_> {
    DeviceSide {
        number: 1,
        model: &bench.vit,
        local: LocalData {
            data: &bench.train,
            samples: &bench.partition[1],
            on_batch: &|| (),
            stop: &NEVER,
        },
        codecs,
    }
}

/// The server's codecs of a plan without bases.
fn plain(plan: &RoundPlan) -> ServerCodecs {
    ServerCodecs::new(plan, Bases::default()).unwrap()
}

/// A round in memory.
fn in_memory(
    bench: &Bench,
    plan: &RoundPlan,
    codecs: Option<(DeviceCodecs, ServerCodecs)>,
) -> (Adapters, Traffic) {
    let (below, above) = match codecs {
        Some((below, above)) => (Some(below), above),
        None => (None, plain(plan)),
    };
    let mut connection = Connection::new(InMemory::new(server_side(bench, plan.clone(), above)));
    device(bench, below).round(&mut connection).unwrap();
    let traffic = connection.traffic();
    let (update, _) = connection.into_transport().into_server().finish().unwrap();
    (update.adapters, traffic)
}

/// A transport that a device on another machine would have.
struct Socket(TcpStream);

impl Socket {
    fn read(&mut self) -> std::io::Result<Vec<u8>> {
        let mut bytes = vec![0; HEADER_BYTES];
        self.0.read_exact(&mut bytes)?;
        let total = Message::total_bytes(&bytes, 1 << 20).map_err(std::io::Error::other)?;
        bytes.resize(total, 0);
        self.0.read_exact(&mut bytes[HEADER_BYTES..])?;
        Ok(bytes)
    }
}

impl Transport for Socket {
    fn send(&mut self, message: Vec<u8>) -> Result<()> {
        self.0
            .write_all(&message)
            .map_err(|e| Error::file("socket", e))
    }

    fn receive(&mut self) -> Result<Vec<u8>> {
        self.read().map_err(|e| Error::file("socket", e))
    }
}

#[test]
fn a_socket_gives_the_bits_that_memory_gives() {
    let (_, traffic) = over_a_socket(0);
    assert!(traffic.up > 0 && traffic.down > 0 && traffic.adapter_up > 0);
    assert!(traffic.protocol_up > 0 && traffic.protocol_down > 0);
}

#[test]
fn a_frozen_half_sends_activations_alone_and_gets_nothing() {
    let (adapters, traffic) = over_a_socket(2);
    let lengths: Vec<usize> = adapters.blocks.iter().map(Vec::len).collect();
    assert!(lengths[..2] == [0, 0] && lengths[2] > 0 && lengths[3] > 0);
    assert!(traffic.up > 0);
    let crossed = [traffic.down, traffic.adapter_up, traffic.adapter_down];
    assert_eq!(crossed, [0, 0, 0]);
    // The plan, and 18 bytes for each of 5 mini-batches, twice.
    let plan = Message::Plan(frozen_plan().into()).encode().unwrap();
    assert_eq!(traffic.protocol_down, plan.len() as u64 + 10 * 18);
}

/// Nothing is trained in the device's two blocks.
fn frozen_plan() -> RoundPlan {
    RoundPlan {
        frozen_blocks: 2,
        ..plan()
    }
}

fn frozen_bench(frozen_blocks: usize) -> Bench {
    let settings = settings(Scheme::Sft);
    let lora = settings.lora.with_frozen_blocks(frozen_blocks);
    Bench::new(Settings { lora, ..settings }, 3)
}

/// A round over a socket, which is checked to be that in memory.
fn over_a_socket(frozen_blocks: usize) -> (Adapters, Traffic) {
    let bench = frozen_bench(frozen_blocks);
    let plan = RoundPlan {
        frozen_blocks,
        ..plan()
    };
    let (want, traffic) = in_memory(&bench, &plan, None);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let got = std::thread::scope(|scope| {
        let server = scope.spawn(|| {
            let mut socket = Socket(listener.accept().unwrap().0);
            let mut session = server_side(&bench, plan.clone(), plain(&plan));
            while let Ok(bytes) = socket.read() {
                for reply in session.handle(Message::decode(&bytes).unwrap()).unwrap() {
                    socket.send(reply.encode().unwrap()).unwrap();
                }
            }
            session.finish().unwrap().0.adapters
        });
        let mut connection = Connection::new(Socket(TcpStream::connect(address).unwrap()));
        device(&bench, None).round(&mut connection).unwrap();
        assert_eq!(connection.traffic(), traffic);
        drop(connection);
        server.join().unwrap()
    });
    assert!(got == want);
    (got, traffic)
}

#[test]
fn neither_side_of_a_frozen_half_takes_what_belongs_to_training() {
    let bench = frozen_bench(2);
    let plan = || Message::Plan(frozen_plan().into());
    let gradient = Message::Gradient(Gradient {
        step: 0,
        frame: vec![1],
    });
    let tensors = Tensors::whole(&[], [[].as_slice()]).unwrap();
    for (sent, name) in [
        (gradient, "sent gradient"),
        (Message::Adapters(tensors.clone()), "sent adapters"),
        (Message::Received(1), "received mini-batch 1, expected 0"),
    ] {
        let error = refused(&bench, vec![plan(), sent]);
        assert!(error.contains(name), "{error}");
    }
    let new = || server_side(&bench, frozen_plan(), plain(&frozen_plan()));
    let welcomed = || {
        let mut session = new();
        session.handle(Message::Hello(hello(&bench))).unwrap();
        session
    };
    let lost = Message::Error(Failure {
        kind: FailureKind::LostReference,
        reason: "the gradient".into(),
    });
    for (sent, reason) in [
        (
            Message::Update(tensors),
            "sent update, expected an activation",
        ),
        (lost, "failed: the gradient"),
    ] {
        let error = welcomed().handle(sent).map(|_| ()).unwrap_err().to_string();
        assert!(error.ends_with(reason), "{error}");
    }
    let mut session = welcomed();
    for step in 0..6 {
        let replies = session.handle(activation(step)).unwrap();
        assert_eq!(replies, [Message::Received(step)]);
    }
    let error = session.handle(activation(6)).map(|_| ()).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("sent mini-batch 6 of a round of 6")
    );
    assert!(session.finish().is_ok());
    let mut begun = welcomed();
    begun.handle(activation(0)).unwrap();
    for early in [begun, welcomed(), new()] {
        let error = early.finish().map(|_| ()).unwrap_err().to_string();
        assert!(
            error.ends_with("left before its last mini-batch"),
            "{error}"
        );
    }
}

fn hello(bench: &Bench) -> Hello {
    Hello {
        device: 1,
        samples: 10,
        model: bench.vit.spec().fingerprint(),
        bases: 0,
        held: None,
    }
}

/// A mini-batch of two samples, as the plan's codec has it.
fn activation(step: u32) -> Message {
    let config = common::config();
    let shape = [2, config.tokens(), config.hidden_size];
    let values = vec![0.5; shape.iter().product()];
    let frame = Codec::paper(0.4, 8)
        .unwrap()
        .encode(TensorView::new(&values, &shape).unwrap(), 0);
    Message::Activation(Activation {
        step,
        samples: vec![1, 2],
        lengths: None,
        labels: Labels::Classes(vec![0, 1]),
        frame: frame.unwrap(),
    })
}

/// Raw frames that say by number which message they follow, as a codec with memory would.
struct Numbered {
    next: u8,
    /// Loses its memory once, before this message.
    loses: Option<u8>,
}

impl Stateful for Numbered {
    fn reset(&mut self) {
        self.next = 0;
    }

    fn save(&self) -> sft_compress::Result<Vec<u8>> {
        Ok(vec![self.next])
    }

    fn restore(&mut self, state: &[u8]) -> sft_compress::Result<()> {
        self.next = state[0];
        Ok(())
    }
}

impl Compressor for Numbered {
    fn compress(
        &mut self,
        tensor: TensorView<'_>,
        context: &Context<'_>,
        message: &mut Vec<u8>,
        decoded: Option<&mut Tensor>,
    ) -> sft_compress::Result<()> {
        Codec::raw().compress(tensor, context, message, decoded)?;
        message.push(self.next);
        self.next += 1;
        Ok(())
    }
}

impl Decompressor for Numbered {
    fn decompress(
        &mut self,
        message: &[u8],
        context: &Context<'_>,
        tensor: &mut Tensor,
    ) -> sft_compress::Result<()> {
        let (number, frame) = message.split_last().unwrap();
        if self.loses == Some(self.next) {
            (self.loses, self.next) = (None, 0);
        }
        // The first message of a stream builds on nothing.
        if *number != 0 && *number != self.next {
            return Err(CodecError::new(
                ErrorKind::LostReference,
                "nothing is there",
            ));
        }
        Codec::raw().decompress(frame, context, tensor)?;
        self.next = number + 1;
        Ok(())
    }
}

#[test]
fn a_lost_memory_costs_a_message_and_changes_no_result() {
    let bench = Bench::new(settings(Scheme::Sft), 3);
    let raw = RoundPlan {
        activation: CutCodec::raw(),
        gradient: CutCodec::raw(),
        ..plan()
    };
    let (want, without) = in_memory(&bench, &raw, None);
    let numbered = |loses| Box::new(Numbered { next: 0, loses });
    for (up, down) in [
        (None, None),
        (Some(2), None),
        (None, Some(3)),
        (Some(1), Some(1)),
    ] {
        let codecs = (
            DeviceCodecs {
                up: numbered(None),
                down: numbered(down),
                ..DeviceCodecs::new(&raw, Bases::default()).unwrap()
            },
            ServerCodecs {
                up: numbered(up),
                down: numbered(None),
                ..plain(&raw)
            },
        );
        let (got, traffic) = in_memory(&bench, &raw, Some(codecs));
        assert!(got == want, "{up:?}, {down:?}");
        let more = [
            traffic.up > without.up + 100,
            traffic.down > without.down + 100,
        ];
        assert_eq!(more, [up.is_some(), down.is_some()], "sent again");
    }
}

/// What a session says to each of some messages after hello.
fn refusal(change: impl FnOnce(&mut Message)) -> String {
    let bench = Bench::new(settings(Scheme::Sft), 3);
    let mut session = server_side(&bench, plan(), plain(&plan()));
    session.handle(Message::Hello(hello(&bench))).unwrap();
    let mut message = activation(0);
    change(&mut message);
    match session.handle(message) {
        Ok(_) => "accepted".into(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_server_takes_what_its_plan_means_and_nothing_else() {
    let changed = |change: fn(&mut Activation)| {
        refusal(|message| {
            let Message::Activation(up) = message else {
                unreachable!()
            };
            change(up);
        })
    };
    assert_eq!(changed(|_| ()), "accepted");
    assert!(changed(|up| up.step = 1).ends_with("sent mini-batch 1, expected 0"));
    let many = changed(|up| (up.samples, up.labels) = (vec![1; 5], Labels::Classes(vec![0; 5])));
    assert!(
        many.ends_with("sent 5 samples at once, expected 1 to 4"),
        "{many}"
    );
    let class = changed(|up| up.labels = Labels::Classes(vec![0, 3]));
    assert!(
        class.ends_with("sent the class 3, the head has 3"),
        "{class}"
    );
    let long = changed(|up| up.lengths = Some(vec![3, 11]));
    assert!(
        long.ends_with("sent lengths for a model of images, or none for one of texts"),
        "{long}"
    );
    // A frame of another shape, though it is whole.
    let other = changed(|up| (up.samples, up.labels) = (vec![1], Labels::Classes(vec![0])));
    assert!(other.contains("shape"), "{other}");
    let damaged = changed(|up| up.frame[10] ^= 1);
    assert!(damaged != "accepted");
    let early = refusal(|message| {
        *message = Message::Error(Failure {
            kind: FailureKind::LostReference,
            reason: String::new(),
        });
    });
    assert!(
        early.ends_with("asked for a gradient before any activation"),
        "{early}"
    );
    let layout = vec![NamedShape {
        name: "mine".into(),
        shape: vec![1],
    }];
    let update = Tensors::whole(&layout, [[1.0].as_slice()]).unwrap();
    let update = refusal(|message| *message = Message::Update(update));
    assert!(update.contains("sent tensors of fingerprint "), "{update}");
    let left = refusal(|message| *message = Message::Leave("the battery is low".into()));
    assert_eq!(left, "the other side left: the battery is low");
}

/// Answers everything with the same messages.
struct Says(Vec<Message>);

impl Serve for Says {
    fn handle(&mut self, _: Message) -> Result<Vec<Message>> {
        Ok(std::mem::take(&mut self.0))
    }
}

/// What a device says to a server that answers with these messages.
fn refused(bench: &Bench, messages: Vec<Message>) -> String {
    let mut connection = Connection::new(InMemory::new(Says(messages)));
    let error = device(bench, None).round(&mut connection).unwrap_err();
    error.to_string()
}

/// What it says to a plan that was changed.
fn refused_plan(bench: &Bench, change: fn(&mut RoundPlan)) -> String {
    let mut plan = plan();
    change(&mut plan);
    refused(bench, vec![Message::Plan(plan.into())])
}

#[test]
fn a_device_takes_no_plan_that_does_not_fit_its_model() {
    let bench = Bench::new(settings(Scheme::Sft), 3);
    let of = |change| refused_plan(&bench, change);
    assert_eq!(
        of(|p| p.work = Work::Split { cut: 4 }),
        "cut must be in 1..=3 for a model of 4 blocks, got 4"
    );
    assert!(of(|p| p.work = Work::Full).contains("plans the whole model"));
    assert_eq!(of(|p| p.batch = 0), "batch must be at least 1, got 0");
    assert_eq!(of(|p| p.rank = 0), "rank must be at least 1, got 0");
    assert!(of(|p| p.rank = 1_000_000_000).starts_with("rank must be at most"));
    assert!(of(|p| p.targets = "wq".parse().unwrap()).starts_with("targets must be"));
    assert!(of(|p| p.lr = -1.0).starts_with("lr must be positive"));
    assert!(of(|_| ()).contains("nothing to say"), "no adapters");
    let other = refused(&bench, vec![Message::Leave("full".into())]);
    assert_eq!(other, "the other side left: full");
}

#[test]
fn a_plan_freezes_the_whole_of_the_device_or_nothing() {
    let bench = Bench::new(settings(Scheme::Sft), 3);
    let of = |change| refused_plan(&bench, change);
    for (refused, message) in [
        (
            of(|p| p.frozen_blocks = 1),
            "frozen_blocks must be 0, or at least 2, the cut layer, got 1",
        ),
        (
            of(|p| p.frozen_blocks = 4),
            "frozen_blocks must be below 4, the model's blocks, got 4",
        ),
        (
            of(|p| (p.work, p.frozen_blocks) = (Work::Adapters, 2)),
            "frozen_blocks must be 0 where the model is not split, got 2",
        ),
        (
            of(|p| (p.targets, p.frozen_blocks) = ("fc1,projection".parse().unwrap(), 2)),
            "targets must name no layer before the blocks where a device has no adapters",
        ),
    ] {
        assert_eq!(refused, message);
    }
}

#[test]
fn a_plan_out_of_range_is_refused_by_name() {
    let bench = Bench::new(settings(Scheme::Sft), 3);
    let of = |change| refused_plan(&bench, change);
    for (refused, message) in [
        (of(|p| p.round = 0), "round must be at least 1, got 0"),
        (
            of(|p| p.round = 1_000_001),
            "round must be at most 1000000, got 1000001",
        ),
        (
            of(|p| (p.round, p.rounds) = (4, Some(3))),
            "round must be at most the rounds, got 4",
        ),
        (
            of(|p| p.rounds = Some(1_000_001)),
            "rounds must be at most 1000000, got 1000001",
        ),
        (
            of(|p| p.batch = 1_000_001),
            "batch must be at most 1000000, got 1000001",
        ),
        (
            of(|p| p.local_epochs = 0),
            "local_epochs must be at least 1, got 0",
        ),
        (
            of(|p| p.local_epochs = 1_000_001),
            "local_epochs must be at most 1000000, got 1000001",
        ),
        (
            of(|p| p.rank = 13),
            "rank must be at most 12, the model's width, got 13",
        ),
        (of(|p| p.alpha = 0.0), "alpha must be positive, got 0"),
        (
            of(|p| p.lora_dropout = 1.0),
            "lora_dropout must be in [0, 1), got 1",
        ),
        (
            of(|p| p.schedule.warmup_rounds = 1e6),
            "warmup_rounds must be in [0, 1000000), got 1000000",
        ),
        (
            of(|p| p.optimizer.clip_norm = Some(0.0)),
            "clip_norm must be positive, got 0",
        ),
    ] {
        assert_eq!(refused, message);
    }
    // What JSON cannot say cannot come over a link, but from a caller.
    let check = |change: fn(&mut RoundPlan)| {
        let mut plan = plan();
        change(&mut plan);
        plan.check(bench.vit.spec()).unwrap_err().to_string()
    };
    for (refused, message) in [
        (check(|p| p.lr = f64::NAN), "lr must be positive, got NaN"),
        (
            check(|p| p.lr = f64::INFINITY),
            "lr must be positive, got inf",
        ),
        (
            check(|p| p.alpha = f64::INFINITY),
            "alpha must be positive, got inf",
        ),
        (
            check(|p| p.schedule.decay = Decay::Exponential(f64::NAN)),
            "lr_decay must be in (0, 1], got NaN",
        ),
    ] {
        assert_eq!(refused, message);
    }
    // Every mini-batch of a round has a number of 32 bits.
    let many = RoundPlan {
        batch: 1,
        local_epochs: 1_000_000,
        ..plan()
    };
    let (mut side, samples) = (device(&bench, None), vec![0; 5000]);
    side.local.samples = &samples;
    let server = server_side(&bench, many.clone(), plain(&many));
    let error = side.round(&mut Connection::new(InMemory::new(server)));
    assert_eq!(
        error.unwrap_err().to_string(),
        "local_epochs must leave a round of at most 4294967295 mini-batches, got 5000000000"
    );
    for seed in [0, u64::MAX] {
        let plan = RoundPlan { seed, ..plan() };
        assert!(plan.check(bench.vit.spec()).is_ok());
    }
}
