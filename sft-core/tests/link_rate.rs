//! The rate of a link, alone in its process: one thread carries the messages of all links.
#![cfg(feature = "net")]

mod common;

use std::time::Instant;

use common::links::{certs, listen, pair};
use sft_core::net::LinkLimits;

#[test]
fn a_rate_is_kept() {
    let folder = certs("link-rate");
    let listener = listen(&folder, LinkLimits::default());
    let (server, client) = pair(&folder, &listener, "device-0");
    client.set_rate(Some(30e6));
    let start = Instant::now();
    for _ in 0..4 {
        client.send(vec![0; 250_000]).unwrap();
        server.receive().unwrap();
    }
    // A million bytes; it is never faster, how much slower is the machine's.
    let least = 8e6 / 30e6;
    assert!(start.elapsed().as_secs_f64() >= 0.99 * least);
    let measured = server.counts().receiving_bit_s.unwrap();
    assert!((1e6..33e6).contains(&measured), "{measured}");
}
