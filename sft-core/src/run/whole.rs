//! Local training of a whole model, as in FL: the device's side and the server's.

use std::ops::ControlFlow;

use crate::adapter::{Adapters, ModelSpec, NamedShape, cut_into};
use crate::data::{Inputs, Labels};
use crate::model::Model;
use crate::optim::OptimizerConfig;
use crate::split::message::{Hello, Message, Tensors};
use crate::split::{
    Connection, Loaded, LocalData, RoundPlan, Serve, Step, Transport, WholeModel, check_hello,
    finite, receive_adapters, say_hello, unexpected,
};
use crate::{Error, Result};

/// A whole model that a device trains.
pub(super) trait Unsplit {
    /// Trains on a mini-batch and returns its mean loss.
    fn step(&mut self, inputs: &Inputs, labels: &Labels, step: Step) -> Result<f32>;

    /// What training has changed so far.
    fn adapters(&self) -> Result<Adapters>;
}

impl Unsplit for WholeModel<'_> {
    fn step(&mut self, inputs: &Inputs, labels: &Labels, step: Step) -> Result<f32> {
        WholeModel::step(self, inputs, labels, step)
    }

    fn adapters(&self) -> Result<Adapters> {
        WholeModel::adapters(self)
    }
}

/// One device's round; `frozen` tells what is not trained of the head. Returns the sum of the losses
/// and the number of labels that these are of.
pub(super) fn train_whole<T: Transport, W: Unsplit>(
    (number, model): (u32, &dyn Model),
    local: &LocalData<'_>,
    layout: &[NamedShape],
    frozen: &Adapters,
    open: impl FnOnce(&Adapters, OptimizerConfig) -> Result<W>,
    connection: &mut Connection<T>,
) -> Result<(f64, usize)> {
    let plan = say_hello((number, 0, None), model, local, connection)?;
    let start = receive_adapters(connection)?.decode(layout)?;
    let start = cut_into(&start, &frozen.lengths());
    let mut whole = open(&frozen.with_vectors(start), plan.optimizer)?;
    let (mut loss, mut counted) = (0.0, 0);
    let all = local.samples.len();
    local.each_batch(&plan, model.device(), |Loaded { number: n, batch }| {
        let step = plan.step(n, plan.lr, all);
        let mean = whole.step(&batch.inputs, &batch.labels, step)?;
        finite(&plan, number, &[mean], "the loss")?;
        let labels = batch.labels.counted();
        loss += f64::from(mean) * labels as f64;
        counted += labels;
        Ok(ControlFlow::Continue(()))
    })?;
    let trained = whole.adapters()?;
    for values in trained.vectors() {
        finite(&plan, number, values, "an adapter")?;
    }
    let update = Tensors::whole(layout, trained.vectors())?;
    connection.send(&Message::Update(update))?;
    Ok((loss, counted))
}

/// The server's side: it hands out and takes back.
pub(super) struct WholeServer<'a> {
    device: u32,
    plan: RoundPlan,
    spec: &'a ModelSpec,
    start: Tensors,
    layout: Vec<NamedShape>,
    lengths: Vec<usize>,
    welcomed: bool,
    update: Option<Vec<Vec<f32>>>,
}

impl<'a> WholeServer<'a> {
    pub(super) fn new(
        device: u32,
        plan: RoundPlan,
        spec: &'a ModelSpec,
        layout: Vec<NamedShape>,
        start: &Adapters,
    ) -> Result<Self> {
        Ok(Self {
            device,
            plan,
            spec,
            start: Tensors::whole(&layout, start.vectors())?,
            layout,
            lengths: start.lengths(),
            welcomed: false,
            update: None,
        })
    }

    fn welcome(&mut self, hello: Hello) -> Result<Vec<Message>> {
        check_hello(self.device, self.spec, hello)?;
        self.welcomed = true;
        Ok(vec![
            Message::Plan(self.plan.clone().into()),
            Message::Adapters(self.start.clone()),
        ])
    }

    /// What the device sent.
    pub(super) fn finish(self, start: &Adapters) -> Result<Adapters> {
        let missing = || Error::protocol("left before it sent its update");
        Ok(start.with_vectors(self.update.ok_or_else(missing)?))
    }
}

impl Serve for WholeServer<'_> {
    fn handle(&mut self, message: Message) -> Result<Vec<Message>> {
        match message {
            Message::Hello(hello) if !self.welcomed => self.welcome(hello),
            Message::Update(update) if self.welcomed => {
                self.update = Some(cut_into(&update.decode(&self.layout)?, &self.lengths));
                Ok(Vec::new())
            }
            other => Err(unexpected(
                &other,
                if self.welcomed { "an update" } else { "hello" },
            )),
        }
    }

    fn is_done(&self) -> bool {
        self.update.is_some()
    }
}
