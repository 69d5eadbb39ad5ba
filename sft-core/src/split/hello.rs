//! How a device and its server begin a round.

use super::RoundPlan;
use super::local_data::LocalData;
use super::message::{Hello, Message};
use super::transport::{Connection, Transport, unexpected};
use crate::adapter::ModelSpec;
use crate::model::Model;
use crate::{Error, Result};

/// Introduces a device that holds these adapters, and receives what it is to do.
pub(crate) fn say_hello<T: Transport>(
    (device, bases, held): (u32, u32, Option<u32>),
    model: &dyn Model,
    local: &LocalData<'_>,
    connection: &mut Connection<T>,
) -> Result<RoundPlan> {
    connection.send(&Message::Hello(Hello {
        device,
        samples: local.samples.len() as u64,
        model: model.spec().fingerprint(),
        bases,
        held,
    }))?;
    match connection.receive()? {
        Message::Plan(plan) => plan.check(model.spec()).map(|()| *plan),
        other => Err(unexpected(&other, "a plan")),
    }
}

/// Checks what a device tells of itself.
pub(crate) fn check_hello(device: u32, spec: &ModelSpec, hello: Hello) -> Result<()> {
    let (ours, theirs) = (spec.fingerprint(), hello.model);
    if ours != theirs {
        let reason = format!("has a model of fingerprint {theirs:08x}, this is {ours:08x}");
        return Err(Error::protocol(reason));
    }
    if hello.device != device || hello.samples == 0 {
        let Hello {
            device: got,
            samples,
            ..
        } = hello;
        let reason = format!("is device {got} with {samples} samples, expected {device} with some");
        return Err(Error::protocol(reason));
    }
    Ok(())
}
