//! What neither side of a round takes from the other.

mod common;

use common::protocol::{
    Says, activation, classes, device, frozen_bench, frozen_plan, hello, labels_below, plain,
    refused, server_side,
};
use common::{Bench, plan, settings};
use sft_compress::{Codec, TensorView};
use sft_core::adapter::NamedShape;
use sft_core::data::Labels;
use sft_core::run::Scheme;
use sft_core::split::message::{Activation, Coded, Failure, FailureKind, Message, Tensors};
use sft_core::split::{Connection, InMemory, RoundPlan, Serve};

#[test]
fn neither_side_of_a_frozen_half_takes_what_belongs_to_training() {
    let bench = frozen_bench(2);
    let plan = || Message::Plan(frozen_plan().into());
    let gradient = Message::Gradient(Coded {
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

#[test]
fn labels_cross_where_the_plan_says_and_nowhere_else() {
    let bench = Bench::new(settings(Scheme::Sft), 3);
    let session = |plan: &RoundPlan| {
        let mut session = server_side(&bench, plan.clone(), plain(plan));
        session.handle(Message::Hello(hello(&bench))).unwrap();
        session
    };
    let bare = || {
        let Message::Activation(up) = activation(0) else {
            unreachable!()
        };
        Message::Activation(Activation { labels: None, ..up })
    };
    let error = |plan: &RoundPlan, message| {
        let error = session(plan).handle(message).map(|_| ()).unwrap_err();
        error.to_string()
    };
    let (above, below) = (plan(), labels_below(plan()));
    assert!(error(&below, activation(0)).ends_with("sent labels, which are to stay with it"));
    assert!(error(&above, bare()).ends_with("sent no labels, which the plan wants"));
    let back = |step, elements: usize| {
        let (values, shape) = (vec![0.1; elements], [2, elements / 2]);
        let view = TensorView::new(&values, &shape).unwrap();
        Message::FeatureGradient(Coded {
            step,
            frame: Codec::raw().encode(view, 0).unwrap(),
        })
    };
    // A gradient of features that nobody waits for, on either side of a mini-batch.
    for plan in [&above, &below] {
        assert!(error(plan, back(0, 24)).ends_with("expected an activation"));
    }
    let waiting = || {
        let mut session = session(&below);
        let reply = session.handle(bare()).unwrap();
        assert!(matches!(reply.as_slice(), [Message::Features(coded)] if coded.step == 0));
        session
    };
    let mut fine = waiting();
    let reply = fine.handle(back(0, 24)).unwrap();
    assert!(matches!(reply.as_slice(), [Message::Gradient(coded)] if coded.step == 0));
    for (message, why) in [
        (back(1, 24), "sent the gradient of features 1, expected 0"),
        (back(0, 12), "shape"),
        (bare(), "sent activation, expected the gradient of features"),
        (Message::Leave("tired".into()), "left: tired"),
    ] {
        let error = waiting().handle(message).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
    let Message::FeatureGradient(Coded { frame, .. }) = back(0, 24) else {
        unreachable!()
    };
    for length in 0..frame.len() {
        let frame = frame[..length].to_vec();
        let cut = Message::FeatureGradient(Coded { step: 0, frame });
        assert!(waiting().handle(cut).is_err(), "cut at {length}");
    }
    // Not in the middle of a mini-batch.
    let layout = NamedShape {
        name: "mine".into(),
        shape: vec![1],
    };
    let update = Tensors::whole(&[layout], [[1.0].as_slice()]).unwrap();
    let error = waiting().handle(Message::Update(update)).map(|_| ());
    let error = error.unwrap_err().to_string();
    assert!(
        error.ends_with("sent update, expected the gradient of features"),
        "{error}"
    );
    let error = waiting().finish().map(|_| ()).unwrap_err().to_string();
    assert!(error.ends_with("left before it sent its update"), "{error}");
}

#[test]
fn a_device_with_the_labels_takes_features_and_nothing_else() {
    let bench = Bench::new(settings(Scheme::Sft), 3);
    let plan = || labels_below(frozen_plan());
    let coded = |step| Coded {
        step,
        frame: vec![1],
    };
    let start = {
        let frozen = frozen_bench(2);
        let mut server = server_side(&frozen, plan(), plain(&plan()));
        server.handle(Message::Hello(hello(&bench))).unwrap()
    };
    for (sent, why) in [
        (
            Message::Gradient(coded(0)),
            "sent gradient, expected the features",
        ),
        (Message::Received(0), "sent received, expected the features"),
        (
            Message::Features(coded(1)),
            "sent the features of mini-batch 1 for 0",
        ),
        (Message::Features(coded(0)), ""),
    ] {
        let messages = [start.clone(), vec![sent]].concat();
        let error = refused(&bench, messages);
        assert!(error.contains(why), "{error}");
    }
    // A device without a head.
    let mut connection = Connection::new(InMemory::new(Says(start)));
    let mut headless = device(&bench, None);
    headless.head = None;
    let error = headless.round(&mut connection).unwrap_err().to_string();
    assert!(
        error.ends_with("plans the labels on a device that has no head"),
        "{error}"
    );
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
    let many = changed(|up| (up.samples, up.labels) = (vec![1; 5], Some(classes(5))));
    assert!(
        many.ends_with("sent 5 samples at once, expected 1 to 4"),
        "{many}"
    );
    let class = changed(|up| up.labels = Some(Labels::Classes(vec![0, 3])));
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
    let other = changed(|up| (up.samples, up.labels) = (vec![1], Some(classes(1))));
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

#[test]
fn nothing_comes_after_the_update() {
    let bench = Bench::new(settings(Scheme::Sft), 3);
    let server = server_side(&bench, plan(), plain(&plan()));
    let mut connection = Connection::new(InMemory::new(server));
    device(&bench, None).round(&mut connection).unwrap();
    let mut server = connection.into_transport().into_server();
    let lost = Message::Error(Failure {
        kind: FailureKind::LostReference,
        reason: "the gradient".into(),
    });
    for (message, reason) in [
        (
            activation(0),
            "sent activation, expected nothing after its update",
        ),
        (lost, "failed: the gradient"),
    ] {
        let error = server.handle(message).map(|_| ()).unwrap_err().to_string();
        assert!(error.ends_with(reason), "{error}");
    }
    assert!(server.finish().is_ok());
}
