//! Rounds over messages: in memory and over a socket, with lost memories and strangers.

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use common::protocol::{
    device, frozen_bench, frozen_plan, in_memory, labels_below, plain, server_side,
};
use common::{Bench, plan, settings};
use sft_compress::{
    Codec, Compressor, Context, Decompressor, Error as CodecError, ErrorKind, Stateful, Tensor,
    TensorView,
};
use sft_core::adapter::Adapters;
use sft_core::run::Scheme;
use sft_core::split::message::{HEADER_BYTES, Message};
use sft_core::split::{
    Bases, Connection, CutCodec, DeviceCodecs, InMemory, RoundPlan, Serve, ServerCodecs,
    ServerSide, Traffic, Transport,
};
use sft_core::{Error, Result};

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
    for plan in [plan(), labels_below(plan())] {
        let (_, traffic) = over_a_socket(&plan);
        assert!(traffic.up > 0 && traffic.down > 0 && traffic.adapter_up > 0);
        assert!(traffic.protocol_up > 0 && traffic.protocol_down > 0);
    }
}

#[test]
fn a_frozen_half_sends_activations_alone_and_gets_nothing() {
    let (adapters, traffic) = over_a_socket(&frozen_plan());
    let lengths: Vec<usize> = adapters.blocks.iter().map(Vec::len).collect();
    assert!(lengths[..2] == [0, 0] && lengths[2] > 0 && lengths[3] > 0);
    assert!(traffic.up > 0);
    let crossed = [traffic.down, traffic.adapter_up, traffic.adapter_down];
    assert_eq!(crossed, [0, 0, 0]);
    // The plan, and 18 bytes for each of 5 mini-batches, twice.
    let plan = Message::Plan(frozen_plan().into()).encode().unwrap();
    assert_eq!(traffic.protocol_down, plan.len() as u64 + 10 * 18);
}

/// Of a frozen half that has the labels the head crosses, features come down, and nothing else.
#[test]
fn a_frozen_half_with_the_labels_trains_the_head() {
    let plan = RoundPlan {
        adapter_codec: Codec::raw(),
        features: Codec::raw(),
        ..labels_below(frozen_plan())
    };
    let (adapters, traffic) = over_a_socket(&plan);
    let start = frozen_bench(2).job().start().unwrap().adapters;
    assert!(adapters.head != start.head && adapters.blocks[3] != start.blocks[3]);
    let head = (12 * 3 + 3) * 4;
    for crossed in [traffic.adapter_up, traffic.adapter_down] {
        assert!((head..head + 60).contains(&crossed), "{crossed}");
    }
    // 5 mini-batches of 20 samples in all, twice.
    let features = 40 * 12 * 4;
    assert!(
        (features..features + 250).contains(&traffic.down),
        "{traffic:?}"
    );
}

/// A round over a socket, which is checked to be that in memory.
fn over_a_socket(plan: &RoundPlan) -> (Adapters, Traffic) {
    let bench = frozen_bench(plan.frozen_blocks);
    let (want, traffic) = in_memory(&bench, plan, None);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let got = std::thread::scope(|scope| {
        let server = scope.spawn(|| {
            let mut socket = Socket(listener.accept().unwrap().0);
            let mut session = server_side(&bench, plan.clone(), plain(plan));
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

/// Ends the round early at the third mini-batch.
struct Early<'a>(ServerSide<'a>, usize);

impl Serve for Early<'_> {
    fn handle(&mut self, message: Message) -> Result<Vec<Message>> {
        if matches!(message, Message::Activation(_)) {
            self.1 += 1;
            if self.1 == 3 {
                self.0.end_early();
            }
        }
        self.0.handle(message)
    }

    fn is_done(&self) -> bool {
        self.0.is_done()
    }
}

#[test]
fn a_round_that_ends_early_keeps_what_was_done() {
    for plan in [plan(), frozen_plan(), labels_below(plan())] {
        let bench = frozen_bench(plan.frozen_blocks);
        let (whole, _) = in_memory(&bench, &plan, None);
        let side = Early(server_side(&bench, plan.clone(), plain(&plan)), 0);
        let mut connection = Connection::new(InMemory::new(side));
        device(&bench, None).round(&mut connection).unwrap();
        let side = connection.into_transport().into_server();
        assert!(side.is_done());
        let (update, _) = side.0.finish().unwrap();
        assert_eq!(update.samples, 2 * plan.batch);
        let start = bench.job().start().unwrap().adapters;
        assert!(update.adapters != start && update.adapters != whole);
    }
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

/// The same of every stream where the labels are on the device, frozen or not.
#[test]
fn lost_features_are_sent_again_too() {
    for frozen_blocks in [0, 2] {
        let bench = frozen_bench(frozen_blocks);
        let raw = labels_below(RoundPlan {
            activation: CutCodec::raw(),
            gradient: CutCodec::raw(),
            features: Codec::raw(),
            frozen_blocks,
            ..plan()
        });
        let (want, without) = in_memory(&bench, &raw, None);
        let numbered = |loses| Box::new(Numbered { next: 0, loses });
        for [up, down, features, back] in [
            [None; 4],
            [None, None, Some(2), None],
            [None, None, None, Some(3)],
            [
                Some(2),
                Some(2).filter(|_| frozen_blocks == 0),
                Some(2),
                Some(2),
            ],
        ] {
            let codecs = (
                DeviceCodecs {
                    up: numbered(None),
                    down: numbered(down),
                    features: numbered(features),
                    feature_gradient: numbered(None),
                    ..DeviceCodecs::new(&raw, Bases::default()).unwrap()
                },
                ServerCodecs {
                    up: numbered(up),
                    down: numbered(None),
                    features: numbered(None),
                    feature_gradient: numbered(back),
                    ..plain(&raw)
                },
            );
            let (got, traffic) = in_memory(&bench, &raw, Some(codecs));
            assert!(got == want, "{up:?}, {down:?}, {features:?}, {back:?}");
            let more = [
                traffic.up > without.up + 100,
                traffic.down > without.down + 100,
            ];
            let again = [up.or(back).is_some(), down.or(features).is_some()];
            assert_eq!(more, again, "sent again");
        }
    }
}
