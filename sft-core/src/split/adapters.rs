//! Adapters between the sides: whole, or as the difference to what both hold.

use std::sync::Arc;

use sft_compress::{Codec, Compressor, Context, TensorView};

use super::RoundPlan;
use super::message::Tensors;
use crate::adapter::NamedShape;
use crate::{Error, Result, seed};

/// The error, over the energy, of adapters that cross whole where differences follow.
const WHOLE_ERROR: f64 = 1e-5;

/// What a device started its last round with, as both sides know it: the next differences are to
/// these values. Nothing where adapters cross raw.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Held(Arc<[f32]>);

impl Held {
    /// The values; none where there are none.
    pub fn values(&self) -> &[f32] {
        &self.0
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names the values; none where there are none.
    pub(super) fn checksum(&self) -> Option<u32> {
        let mut sum = crc32fast::Hasher::new();
        for value in &*self.0 {
            sum.update(&value.to_le_bytes());
        }
        (!self.is_empty()).then(|| sum.finalize())
    }

    /// The server's message with the `global` adapters for a device that holds what `theirs` names; what that
    /// holds then, [`Self::receive`] tells.
    pub(super) fn send(
        &self,
        global: &[f32],
        theirs: Option<u32>,
        plan: &RoundPlan,
        layout: &[NamedShape],
    ) -> Result<Tensors> {
        if plan.adapters_cross_raw() {
            return Tensors::whole(layout, [global]);
        }
        let same = self.0.len() == global.len() && self.checksum() == theirs;
        let (codec, values) = if same {
            (plan.adapter_codec, minus(global, &self.0))
        } else {
            (Codec::for_error(WHOLE_ERROR)?, global.to_vec())
        };
        let seed = seed::derive(plan.seed, &[seed::ADAPTERS_DOWN]);
        let frame = codec.encode(TensorView::new(&values, &[values.len()])?, seed)?;
        let message = Tensors::new(layout, same, frame);
        Ok(message)
    }

    /// What the device starts the round with, from the server's message.
    pub(super) fn receive(
        &mut self,
        message: &Tensors,
        plan: &RoundPlan,
        layout: &[NamedShape],
    ) -> Result<Vec<f32>> {
        let mut values = message.decode(layout)?;
        if message.difference {
            if values.len() != self.0.len() {
                let reason = "sent the difference to adapters that are not there";
                return Err(Error::protocol(reason));
            }
            add(&mut values, &self.0);
        }
        if !plan.adapters_cross_raw() {
            self.0 = values.as_slice().into();
        }
        Ok(values)
    }

    /// The device's message with what training made of the values.
    pub(super) fn update(
        &self,
        trained: &[f32],
        codec: &mut dyn Compressor,
        plan: &RoundPlan,
        layout: &[NamedShape],
    ) -> Result<Tensors> {
        if plan.adapters_cross_raw() {
            return Tensors::whole(layout, [trained]);
        }
        let (difference, shape) = (minus(trained, &self.0), [trained.len()]);
        let seed = seed::derive(plan.seed, &[seed::ADAPTERS_UP]);
        let (view, mut frame) = (TensorView::new(&difference, &shape)?, Vec::new());
        codec.compress(view, &Context::new(&shape, seed), &mut frame, None)?;
        Ok(Tensors::new(layout, true, frame))
    }

    /// What training made of the values, from the device's message.
    pub(super) fn updated(
        &self,
        message: &Tensors,
        plan: &RoundPlan,
        layout: &[NamedShape],
    ) -> Result<Vec<f32>> {
        let mut values = message.decode(layout)?;
        match (message.difference, plan.adapters_cross_raw()) {
            (true, false) => add(&mut values, &self.0),
            (false, true) => {}
            (true, true) => return Err(Error::protocol("sent a difference, expected adapters")),
            (false, false) => return Err(Error::protocol("sent adapters, expected a difference")),
        }
        Ok(values)
    }
}

impl From<&[f32]> for Held {
    fn from(values: &[f32]) -> Self {
        Self(values.into())
    }
}

fn minus(values: &[f32], from: &[f32]) -> Vec<f32> {
    values.iter().zip(from).map(|(a, b)| a - b).collect()
}

fn add(values: &mut [f32], to: &[f32]) {
    for (value, to) in values.iter_mut().zip(to) {
        *value += to;
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use sft_compress::decode;

    use super::*;
    use crate::adapter::normal;
    use crate::optim::{Decay, Optimizer, Schedule};
    use crate::split::{CutCodec, LabelSide, Work};

    const PARAMETERS: usize = 600;

    fn layout() -> Vec<NamedShape> {
        let tensor = |name: &str, shape: &[usize]| NamedShape {
            name: name.into(),
            shape: shape.into(),
        };
        vec![tensor("a", &[3, 100]), tensor("b", &[100, 3])]
    }

    fn plan(adapter_codec: &str, round: usize) -> RoundPlan {
        RoundPlan {
            round,
            rounds: None,
            work: Work::Split { cut: 1 },
            rank: 3,
            alpha: 3.0,
            targets: "all-linear".parse().unwrap(),
            frozen_blocks: 0,
            lora_dropout: 0.0,
            optimizer: Optimizer::sgd(0.0).into(),
            lr: 0.1,
            schedule: Schedule::new(Decay::Constant),
            labels: LabelSide::Server,
            batch: 1,
            tokens: None,
            local_epochs: 1,
            activation: CutCodec::raw(),
            features: Codec::raw(),
            bases: 0,
            sample_memory_bytes: 0,
            gradient: CutCodec::raw(),
            error_feedback: false,
            adapter_codec: adapter_codec.parse().unwrap(),
            seed: 100 + round as u64,
        }
    }

    fn noise(deviation: f64, rng: &mut impl Rng) -> Vec<f32> {
        let one = |_| (deviation * normal(rng)) as f32;
        (0..PARAMETERS).map(one).collect()
    }

    fn rng() -> rand_chacha::ChaCha8Rng {
        rand_chacha::ChaCha8Rng::seed_from_u64(9)
    }

    fn energy(values: &[f32]) -> f64 {
        values.iter().map(|&v| f64::from(v).powi(2)).sum()
    }

    /// Both ends, and what the receiver has of the server's message.
    fn down(
        server: &mut Held,
        device: &mut Held,
        global: &[f32],
        plan: &RoundPlan,
    ) -> (Tensors, Vec<f32>) {
        let (theirs, layout) = (device.checksum(), layout());
        let message = server.send(global, theirs, plan, &layout).unwrap();
        server.receive(&message, plan, &layout).unwrap();
        let values = device.receive(&message, plan, &layout).unwrap();
        assert_eq!(server, device, "both hold the same bits");
        (message, values)
    }

    #[test]
    fn a_new_device_gets_the_whole_and_then_differences() {
        let (mut rng, plan) = (rng(), plan("error:0.1", 1));
        let (mut server, mut device) = (Held::default(), Held::default());
        let mut global = noise(1.0, &mut rng);
        let (message, start) = down(&mut server, &mut device, &global, &plan);
        assert!(!message.difference);
        assert!(energy(&minus(&start, &global)) <= WHOLE_ERROR * energy(&global));
        let mut before = start;
        for _ in 0..5 {
            add(&mut global, &noise(0.01, &mut rng));
            let wanted = minus(&global, &before);
            let (message, values) = down(&mut server, &mut device, &global, &plan);
            assert!(message.difference);
            // The plain way: what was held, and what the frame holds.
            let mut sum = decode(&message.frame).unwrap().into_data();
            add(&mut sum, &before);
            assert_eq!(values, sum);
            let lost = energy(&minus(&values, &global)) / energy(&wanted);
            assert!((0.05..0.11).contains(&lost), "{lost}");
            before = values;
        }
        let lost = |values: &[f32]| energy(&minus(values, &global));
        let mut last = lost(&before);
        for _ in 0..3 {
            let (_, values) = down(&mut server, &mut device, &global, &plan);
            assert!(lost(&values) <= 0.11 * last, "the same again gets nearer");
            last = lost(&values);
        }
    }

    #[test]
    fn who_lost_its_adapters_gets_the_whole_whichever_side_it_was() {
        let (mut rng, plan) = (rng(), plan("error:0.1", 1));
        let (mut server, mut device) = (Held::default(), Held::default());
        down(&mut server, &mut device, &noise(1.0, &mut rng), &plan);
        let global = noise(1.0, &mut rng);
        let anew = down(&mut Held::default(), &mut Held::default(), &global, &plan);
        let other = Held(noise(1.0, &mut rng).into());
        for lost in [Held::default(), other] {
            let device_lost = down(&mut server.clone(), &mut lost.clone(), &global, &plan);
            let server_lost = down(&mut lost.clone(), &mut device.clone(), &global, &plan);
            assert_eq!((&device_lost, &server_lost), (&anew, &anew));
        }
    }

    #[test]
    fn updates_bring_later_what_they_dropped() {
        let (mut rng, layout) = (rng(), layout());
        let held = Held(noise(1.0, &mut rng).into());
        // The same step in every round, of which a plain codec would drop the same each time.
        let mut trained = held.0.to_vec();
        add(&mut trained, &noise(0.01, &mut rng));
        let step = minus(&trained, &held.0);
        let owed = |codec: &mut dyn Compressor| {
            let mut owed = vec![0.0; PARAMETERS];
            for round in 1..=40 {
                let plan = plan("error:0.1", round);
                let message = held.update(&trained, codec, &plan, &layout).unwrap();
                let values = held.updated(&message, &plan, &layout).unwrap();
                let sent = decode(&message.frame).unwrap().into_data();
                let mut by_hand = sent.clone();
                add(&mut by_hand, &held.0);
                assert_eq!(values, by_hand);
                add(&mut owed, &minus(&step, &sent));
            }
            energy(&owed) / energy(&step)
        };
        let plan = plan("error:0.1", 1);
        let with = owed(plan.update_compressor().as_mut());
        let without = owed(&mut plan.adapter_codec.clone());
        assert!(with < 0.3 && without > 100.0, "{with}, {without}");
    }

    #[test]
    fn raw_adapters_cross_bit_for_bit_and_are_not_remembered() {
        let (mut rng, layout, plan) = (rng(), layout(), plan("raw", 1));
        let (mut server, mut device) = (Held::default(), Held::default());
        let global = noise(1.0, &mut rng);
        let (message, values) = down(&mut server, &mut device, &global, &plan);
        assert_eq!((message.difference, &values), (false, &global));
        let trained = noise(1.0, &mut rng);
        let mut codec = plan.update_compressor();
        let update = device.update(&trained, codec.as_mut(), &plan, &layout);
        let update = server.updated(&update.unwrap(), &plan, &layout);
        assert_eq!(update.unwrap(), trained);
        assert!(server.checksum().is_none() && server.is_empty());
        assert!(codec.save().unwrap().is_empty());
    }

    #[test]
    fn what_does_not_fit_is_one_error_and_changes_nothing() {
        let (layout, coded, raw) = (layout(), plan("error:0.1", 1), plan("raw", 1));
        let held = Held(noise(1.0, &mut rng()).into());
        let frame = |len: usize| {
            let values = vec![1.0; len];
            let frame = Codec::raw().encode(TensorView::new(&values, &[len]).unwrap(), 0);
            frame.unwrap()
        };
        let tensors = |difference, frame| Tensors::new(&layout, difference, frame);
        let good = tensors(true, frame(PARAMETERS));
        let cut = good.frame[..good.frame.len() - 1].to_vec();
        let stranger = Tensors::new(&layout[..1], true, frame(300));
        for (message, plan, why) in [
            (tensors(true, frame(PARAMETERS + 1)), &coded, "shape"),
            (tensors(true, cut), &coded, ""),
            (tensors(true, Vec::new()), &coded, ""),
            (stranger, &coded, "fingerprint"),
            (
                tensors(false, frame(PARAMETERS)),
                &coded,
                "expected a difference",
            ),
            (good.clone(), &raw, "expected adapters"),
        ] {
            let error = held.updated(&message, plan, &layout).unwrap_err();
            assert!(error.to_string().contains(why), "{error}");
            if why.starts_with("expected") {
                continue;
            }
            let mut device = held.clone();
            let error = device.receive(&message, plan, &layout).unwrap_err();
            assert!(error.to_string().contains(why), "{error}");
            assert_eq!(device, held);
        }
        let error = Held::default().receive(&good, &coded, &layout).unwrap_err();
        assert!(error.to_string().ends_with("that are not there"), "{error}");
    }
}
