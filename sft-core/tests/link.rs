//! Links between two ends: messages whole and in order, and who is let in.
#![cfg(feature = "net")]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::Folder;
use common::links::{SOON, certs, identity, listen, pair, soon};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, date_time_ymd,
};
use sft_core::Error;
use sft_core::net::{Identity, Link, LinkLimits, Listener, connect, make_certificates};

/// What a connection is refused with.
fn refusal(listener: &Listener, identity: &Identity) -> String {
    let address = listener.address().to_string();
    let error = match connect(&address, Some(identity), &LinkLimits::default()) {
        Ok(link) => link.receive().unwrap_err(),
        Err(error) => error,
    };
    // Nothing of it came in.
    let came = listener.accept_until(Instant::now() + Duration::from_millis(100));
    assert!(came.unwrap().is_none(), "{error}");
    error.to_string()
}

#[test]
fn messages_are_whole_and_in_order_and_ends_know_each_other() {
    let folder = certs("link-order");
    let listener = listen(&folder, LinkLimits::default());
    let (server, client) = pair(&folder, &listener, "device-1");
    assert_eq!((server.peer(), client.peer()), ("device-1", "server"));
    let sizes = [0, 1, 100, 65_535, 65_536, 65_537, 3_000_001];
    let message = |size: usize| {
        (0..size)
            .map(|i| (i * 31 + size) as u8)
            .collect::<Vec<u8>>()
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for size in sizes {
                client.send(message(size)).unwrap();
            }
        });
        for size in sizes {
            let got = server.receive_until(soon()).unwrap().unwrap();
            assert!(got == message(size), "{size}");
            server.send(got).unwrap();
            assert!(client.receive().unwrap() == message(size));
        }
    });
    let all: usize = sizes.iter().sum();
    let (sent, got) = (client.counts(), server.counts());
    assert_eq!(
        (sent.sent_bytes, got.received_bytes),
        (all as u64, all as u64)
    );
    assert_eq!(got.received_messages, sizes.len() as u64);
    assert!(server.receive_until(Instant::now()).unwrap().is_none());
    client.send(vec![7]).unwrap();
    client.close("that was all");
    assert_eq!(server.receive().unwrap(), [7]);
    let ended = server.receive().unwrap_err();
    assert!(ended.to_string().contains("device-1 was closed"), "{ended}");
    assert!(matches!(client.send(vec![1]), Err(Error::Link { .. })));
}

#[test]
fn only_certificates_of_the_same_authority_are_believed() {
    let (folder, other) = (certs("link-own"), certs("link-other"));
    let listener = listen(&folder, LinkLimits::default());
    let stranger = refusal(&listener, &identity(&other, "device-0"));
    assert!(
        stranger.contains("has a certificate that is not believed"),
        "{stranger}"
    );
    // It believes the server, which does not believe it.
    let half = mixed("link-half", &folder, &other);
    let refused = refusal(&listener, &Identity::open(&half.0).unwrap());
    assert!(
        refused.contains("does not believe this certificate"),
        "{refused}"
    );
    let role = refusal(&listener, &identity(&folder, "server"));
    assert!(role.contains("does not believe this certificate"), "{role}");
    let device = Listener::bind(
        "127.0.0.1:0",
        Some(&identity(&folder, "device-0")),
        LinkLimits::default(),
    );
    let not_a_server = refusal(&device.unwrap(), &identity(&folder, "device-1"));
    assert!(
        not_a_server.contains("has a certificate that is not believed"),
        "{not_a_server}"
    );
    pair(&folder, &listener, "device-0");
}

/// A device that believes one authority and has a certificate of another.
fn mixed(name: &str, believes: &Folder, has: &Folder) -> Folder {
    let folder = Folder::new(name);
    let copy =
        |from: &Path, file: &str| std::fs::copy(from.join(file), folder.0.join(file)).unwrap();
    copy(&believes.0, "ca.pem");
    copy(&has.0.join("device-0"), "cert.pem");
    copy(&has.0.join("device-0"), "key.pem");
    folder
}

#[test]
fn a_certificate_that_expired_is_refused() {
    let folder = Folder::new("link-expired");
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    for (name, usage, until) in [
        ("server", ExtendedKeyUsagePurpose::ServerAuth, 2100),
        ("device-0", ExtendedKeyUsagePurpose::ClientAuth, 2021),
    ] {
        let mut params = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![usage];
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        folder.write(&format!("{name}/ca.pem"), authority.pem().as_bytes());
        folder.write(&format!("{name}/cert.pem"), certificate.pem().as_bytes());
        folder.write(&format!("{name}/key.pem"), key.serialize_pem().as_bytes());
    }
    let listener = listen(&folder, LinkLimits::default());
    // Whoever of the two is first, the reason is told.
    for _ in 0..20 {
        let expired = refusal(&listener, &identity(&folder, "device-0"));
        assert!(expired.contains("CertificateExpired"), "{expired}");
    }
}

#[test]
fn without_certificates_nothing_leaves_the_machine() {
    let refused = Listener::bind("0.0.0.0:0", None, LinkLimits::default())
        .err()
        .unwrap();
    assert!(
        refused.to_string().starts_with("certs must be given"),
        "{refused}"
    );
    let refused = connect("192.0.2.1:7443", None, &LinkLimits::default()).unwrap_err();
    assert!(
        refused.to_string().starts_with("certs must be given"),
        "{refused}"
    );
    let listener = Listener::bind("127.0.0.1:0", None, LinkLimits::default()).unwrap();
    let link = connect(
        &listener.address().to_string(),
        None,
        &LinkLimits::default(),
    )
    .unwrap();
    let server = listener.accept_until(soon()).unwrap().unwrap();
    link.send(vec![1, 2]).unwrap();
    assert_eq!((server.peer(), server.receive().unwrap()), ("", vec![1, 2]));
    for server in ["", "localhost", ":1", "host:port", "host:99999"] {
        let refused = connect(server, None, &LinkLimits::default()).unwrap_err();
        assert!(
            refused.to_string().starts_with("server must be host:port"),
            "{refused}"
        );
    }
}

#[test]
fn bad_folders_and_numbers_are_told() {
    let folder = certs("link-bad");
    let again = make_certificates(&folder.0, 2, &[], 1)
        .unwrap_err()
        .to_string();
    assert!(again.contains("ca.pem: is there already"), "{again}");
    let elsewhere = Folder::new("link-none");
    for (devices, days, said) in [
        (0, 1, "devices must be at least 1"),
        (1, 0, "days must be in"),
    ] {
        let refused = make_certificates(&elsewhere.0, devices, &[], days).unwrap_err();
        assert!(refused.to_string().starts_with(said), "{refused}");
    }
    assert!(!elsewhere.0.join("ca.pem").exists());
    let missing = Identity::open(&elsewhere.0).unwrap_err().to_string();
    assert!(missing.contains("cert.pem"), "{missing}");
    let device = folder.0.join("device-0");
    std::fs::copy(folder.0.join("device-1/key.pem"), device.join("key.pem")).unwrap();
    let other_key = Identity::open(&device).unwrap_err().to_string();
    assert!(other_key.contains("device-0"), "{other_key}");
    std::fs::write(device.join("key.pem"), b"no key").unwrap();
    assert!(
        Identity::open(&device)
            .unwrap_err()
            .to_string()
            .contains("key.pem")
    );
    let listener = listen(&folder, LinkLimits::default());
    let taken = Listener::bind(&listener.address().to_string(), None, LinkLimits::default());
    assert!(
        taken
            .err()
            .unwrap()
            .to_string()
            .starts_with("listen cannot be")
    );
}

#[test]
fn a_message_that_is_too_long_ends_its_link_alone() {
    let folder = certs("link-long");
    let limits = LinkLimits {
        message_bytes: 1000,
        ..LinkLimits::default()
    };
    let listener = listen(&folder, limits);
    let (long, sender) = pair(&folder, &listener, "device-0");
    let (other, neighbour) = pair(&folder, &listener, "device-1");
    sender.send(vec![0; 1001]).unwrap();
    let refused = long.receive().unwrap_err().to_string();
    assert!(refused.contains("more than the 1000 bytes"), "{refused}");
    neighbour.send(vec![0; 1000]).unwrap();
    assert_eq!(other.receive().unwrap().len(), 1000);
}

#[test]
fn who_does_not_read_blocks_the_sender_and_no_one_else() {
    let folder = certs("link-full");
    let listener = listen(&folder, LinkLimits::default());
    let (server, client) = pair(&folder, &listener, "device-0");
    let (other, neighbour) = pair(&folder, &listener, "device-1");
    let sent = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..40 {
                client.send(vec![0; 1 << 20]).unwrap();
                sent.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }
        });
        for _ in 0..50 {
            neighbour.send(vec![1]).unwrap();
            other.receive().unwrap();
        }
        std::thread::sleep(Duration::from_millis(300));
        let queued = sent.load(std::sync::atomic::Ordering::SeqCst);
        assert!(queued < 12, "{queued} MiB were taken that nobody reads");
        for _ in 0..40 {
            server.receive().unwrap();
        }
    });
}

/// What carries the bytes of one connection between a client and a server, slowly.
struct SlowLink {
    address: SocketAddr,
    frozen: Arc<AtomicBool>,
}

impl SlowLink {
    fn new(server: SocketAddr, bit_s: f64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let frozen = Arc::new(AtomicBool::new(false));
        let held = frozen.clone();
        std::thread::spawn(move || {
            let (client, _) = listener.accept().unwrap();
            let server = TcpStream::connect(server).unwrap();
            for (from, to) in [(&client, &server), (&server, &client)] {
                let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                let held = held.clone();
                std::thread::spawn(move || carry(from, to, bit_s, &held));
            }
        });
        Self { address, frozen }
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, bit_s: f64, frozen: &AtomicBool) {
    let mut bytes = [0; 2000];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        std::thread::sleep(Duration::from_secs_f64(8.0 * count as f64 / bit_s));
        while frozen.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(10));
        }
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
}

/// Both ends of a link that is slow.
fn slow_pair(folder: &Folder, bit_s: f64) -> (SlowLink, Link, Link, Listener) {
    let listener = listen(folder, LinkLimits::default());
    let slow = SlowLink::new(listener.address(), bit_s);
    let address = slow.address.to_string();
    let identity = identity(folder, "device-0");
    let client = connect(&address, Some(&identity), &LinkLimits::default()).unwrap();
    let server = listener.accept_until(soon()).unwrap().unwrap();
    (slow, server, client, listener)
}

#[test]
fn a_message_may_take_longer_than_silence() {
    let folder = certs("link-slow");
    // More than three seconds each way, one way at a time and both.
    let (_slow, server, client, _listener) = slow_pair(&folder, 1e6);
    let message: Vec<u8> = (0..400_000u32).map(|i| (i * 7) as u8).collect();
    client.send(message.clone()).unwrap();
    assert!(server.receive_until(soon()).unwrap().unwrap() == message);
    server.send(message.clone()).unwrap();
    client.send(message.clone()).unwrap();
    assert!(server.receive_until(soon()).unwrap().unwrap() == message);
    assert!(client.receive_until(soon()).unwrap().unwrap() == message);
}

#[test]
fn who_takes_nothing_is_alive_and_who_says_nothing_is_not() {
    let folder = certs("link-silent");
    let (slow, server, client, _listener) = slow_pair(&folder, 100e6);
    // More than is on its way at once: the client waits for the server, which takes its time.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..4 {
                client.send(vec![1; 2_000_000]).unwrap();
            }
        });
        std::thread::sleep(2 * LinkLimits::default().silence);
        for _ in 0..4 {
            let message = server.receive_until(soon()).unwrap().unwrap();
            assert_eq!(message.len(), 2_000_000);
        }
    });
    slow.frozen.store(true, Ordering::SeqCst);
    for end in [&server, &client] {
        let lost = end.receive_until(soon()).unwrap_err().to_string();
        assert!(lost.contains("is silent"), "{lost}");
    }
}

#[test]
fn what_was_sent_arrives_though_its_link_is_gone() {
    let folder = certs("link-gone");
    let listener = listen(&folder, LinkLimits::default());
    for _ in 0..10 {
        let (server, client) = pair(&folder, &listener, "device-0");
        client.send(vec![3; 1_500_000]).unwrap();
        drop(client);
        let message = server.receive_until(soon()).unwrap().unwrap();
        assert!(message == vec![3; 1_500_000]);
        let ended = server.receive_until(soon()).unwrap_err().to_string();
        assert!(ended.contains("device-0 was closed"), "{ended}");
    }
}

#[test]
fn idle_strangers_do_not_keep_devices_out() {
    let folder = certs("link-idle");
    let listener = listen(&folder, LinkLimits::default());
    let (server, client) = pair(&folder, &listener, "device-0");
    // More than are waited for: the oldest go.
    let mut strangers = Vec::new();
    for _ in 0..20 {
        let more = (0..100).map(|_| TcpStream::connect(listener.address()).unwrap());
        strangers.extend(more);
        let (late, later) = pair(&folder, &listener, "device-1");
        for (one, other) in [(&server, &client), (&late, &later)] {
            one.send(vec![1]).unwrap();
            assert_eq!(other.receive().unwrap(), [1]);
        }
    }
    // The others are let go once they took too long.
    for mut stranger in [&strangers[0], &strangers[1999]] {
        stranger.set_read_timeout(Some(SOON)).unwrap();
        assert_eq!(stranger.read(&mut [0; 1]).unwrap_or(0), 0);
    }
    client.send(vec![2]).unwrap();
    assert_eq!(server.receive().unwrap(), [2]);
}

#[test]
fn bytes_that_are_no_http_are_refused() {
    let listener = Listener::bind("127.0.0.1:0", None, LinkLimits::default()).unwrap();
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 4096], b"SFTM\x03\x0d"] {
        let mut stranger = TcpStream::connect(listener.address()).unwrap();
        let _ = stranger.write_all(bytes);
        stranger.set_read_timeout(Some(SOON)).unwrap();
        let mut answer = Vec::new();
        let _ = stranger.read_to_end(&mut answer);
        let came = listener.accept_until(Instant::now() + Duration::from_millis(20));
        assert!(came.unwrap().is_none());
    }
    let link = connect(
        &listener.address().to_string(),
        None,
        &LinkLimits::default(),
    )
    .unwrap();
    let server = listener.accept_until(soon()).unwrap().unwrap();
    link.send(vec![9]).unwrap();
    assert_eq!(server.receive().unwrap(), [9]);
}
