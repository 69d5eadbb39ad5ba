//! Both sides of a round in memory, and messages for them.

use super::{Bench, NEVER, plan, settings};
use sft_compress::{Codec, TensorView};
use sft_core::Result;
use sft_core::adapter::Adapters;
use sft_core::data::Labels;
use sft_core::model::Model;
use sft_core::run::{Scheme, Settings};
use sft_core::split::message::{Activation, Hello, Message};
use sft_core::split::{
    Bases, Connection, DeviceCodecs, DeviceSide, InMemory, LabelSide, LocalData, RoundPlan, Serve,
    ServerCodecs, ServerSide, Traffic,
};

pub fn server_side(bench: &Bench, plan: RoundPlan, codecs: ServerCodecs) -> ServerSide<'_> {
    let start = || bench.job().start().unwrap().adapters;
    let start = bench.start.get_or_init(start);
    ServerSide::new(1, plan, 0.03, &bench.vit, start, codecs).unwrap()
}

pub fn device(bench: &Bench, codecs: Option<DeviceCodecs>) -> DeviceSide<'_> {
    DeviceSide {
        number: 1,
        model: &bench.vit,
        head: Some(&bench.head),
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
pub fn plain(plan: &RoundPlan) -> ServerCodecs {
    ServerCodecs::new(plan, Bases::default()).unwrap()
}

/// A round in memory.
pub fn in_memory(
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

/// The same with the labels, and the head, on the device.
pub fn labels_below(plan: RoundPlan) -> RoundPlan {
    RoundPlan {
        labels: LabelSide::Device,
        ..plan
    }
}

/// Nothing is trained in the device's two blocks.
pub fn frozen_plan() -> RoundPlan {
    RoundPlan {
        frozen_blocks: 2,
        ..plan()
    }
}

pub fn frozen_bench(frozen_blocks: usize) -> Bench {
    let settings = settings(Scheme::Sft);
    let lora = settings.lora.with_frozen_blocks(frozen_blocks);
    Bench::new(Settings { lora, ..settings }, 3)
}

pub fn hello(bench: &Bench) -> Hello {
    Hello {
        device: 1,
        samples: 10,
        model: bench.vit.spec().fingerprint(),
        bases: 0,
        held: None,
    }
}

/// A mini-batch of two samples, as the plan's codec has it.
pub fn activation(step: u32) -> Message {
    let config = super::config();
    let shape = [2, config.tokens(), config.hidden_size];
    let values = vec![0.5; shape.iter().product()];
    let frame = Codec::paper(0.4, 8)
        .unwrap()
        .encode(TensorView::new(&values, &shape).unwrap(), 0);
    Message::Activation(Activation {
        step,
        samples: vec![1, 2],
        lengths: None,
        labels: Some(Labels::Classes(vec![0, 1])),
        frame: frame.unwrap(),
    })
}

/// So many samples of the first class.
pub fn classes(count: usize) -> Labels {
    Labels::Classes(vec![0; count])
}

/// Answers everything with the same messages.
pub struct Says(pub Vec<Message>);

impl Serve for Says {
    fn handle(&mut self, _: Message) -> Result<Vec<Message>> {
        Ok(std::mem::take(&mut self.0))
    }

    fn is_done(&self) -> bool {
        self.0.is_empty()
    }
}

/// What a device says to a server that answers with these messages.
pub fn refused(bench: &Bench, messages: Vec<Message>) -> String {
    let mut connection = Connection::new(InMemory::new(Says(messages)));
    let error = device(bench, None).round(&mut connection).unwrap_err();
    error.to_string()
}

/// What it says to a plan that was changed.
pub fn refused_plan(bench: &Bench, change: fn(&mut RoundPlan)) -> String {
    let mut plan = plan();
    change(&mut plan);
    refused(bench, vec![Message::Plan(plan.into())])
}
