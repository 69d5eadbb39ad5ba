//! The status page: what it tells, to whom, and what it does not take.
#![cfg(feature = "net")]

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use sft_core::net::{Board, StatusPage};
use sft_core::run::{RoundRecord, RunConfig, Scheme};

fn page() -> (StatusPage, Arc<Board>) {
    let config = RunConfig {
        scheme: vec![Scheme::Sft],
        rounds: 5,
        devices: 3,
        ..RunConfig::default()
    };
    let board = Arc::new(Board::new(&config));
    let page = StatusPage::bind("127.0.0.1:0", board.clone()).unwrap();
    (page, board)
}

fn record(round: usize) -> RoundRecord {
    let json = format!(
        r#"{{"round": {round}, "devices": [0, 2], "late": [1], "accuracy": 0.75, "test_loss": 0.9, "loss": 1.5,
        "bytes_up": 1, "bytes_down": 2, "adapter_bytes_up": 3, "adapter_bytes_down": 4, "protocol_bytes_up": 5,
        "protocol_bytes_down": 6, "delay_s": 0.25, "wall_s": 0.5}}"#
    );
    serde_json::from_str(&json).unwrap()
}

/// Head and body of what a request is answered with.
fn ask(page: &StatusPage, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(page.address()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    write!(
        stream,
        "{request}\r\nHost: here\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.to_string(), body.to_string())
}

#[test]
fn json_tells_the_run_and_its_devices() {
    let (page, board) = page();
    board.record(&record(1));
    let (head, body) = ask(&page, "GET /status.json HTTP/1.1");
    assert!(
        head.starts_with("HTTP/1.1 200") && head.contains("application/json"),
        "{head}"
    );
    let status: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(status["scheme"], "sft");
    assert_eq!(
        (&status["rounds"], &status["finished"]),
        (&5.into(), &false.into())
    );
    assert_eq!(status["records"][0]["accuracy"], 0.75);
    let devices = status["devices"].as_array().unwrap();
    assert_eq!(devices.len(), 3);
    assert_eq!([&devices[0]["rounds"], &devices[1]["rounds"]], [1, 0]);
    assert_eq!(devices[1]["state"], "absent");
    board.finish();
    let (_, body) = ask(&page, "GET /status.json HTTP/1.1");
    assert!(body.contains(r#""finished":true"#));
}

/// Every sample belongs to a metric that was told before it, with a value that Prometheus reads.
#[test]
fn metrics_are_those_of_prometheus() {
    let (page, board) = page();
    for rounds in 0..2 {
        let (head, body) = ask(&page, "GET /metrics HTTP/1.1");
        assert!(head.contains("text/plain; version=0.0.4"), "{head}");
        let (mut helped, mut typed) = (BTreeSet::new(), BTreeSet::new());
        for line in body.lines() {
            let words: Vec<_> = line.split(' ').collect();
            match words[..] {
                ["#", "HELP", name, ..] => assert!(helped.insert(name), "{line}"),
                ["#", "TYPE", name, kind] => {
                    assert!(kind == "gauge" || (kind == "counter" && name.ends_with("_total")));
                    assert!(typed.insert(name), "{line}");
                }
                [sample, value] => {
                    let name = sample.split('{').next().unwrap();
                    assert!(helped.contains(name) && typed.contains(name), "{line}");
                    assert!(value.parse::<f64>().unwrap().is_finite(), "{line}");
                }
                _ => panic!("{line}"),
            }
        }
        assert!(body.contains(&format!("sft_rounds_total {rounds}\n")));
        assert!(body.contains("sft_device_up{device=\"2\"} 0\n"));
        board.record(&record(1));
    }
}

#[test]
fn the_page_needs_nothing_from_elsewhere() {
    let (page, _) = page();
    let (head, body) = ask(&page, "GET / HTTP/1.1");
    assert!(
        head.contains("text/html") && head.contains("content-security-policy"),
        "{head}"
    );
    let links = ["http://", "https://", "src=", "href=", "innerHTML"];
    let others = body.replace("http://www.w3.org/2000/svg", "");
    assert!(links.iter().all(|link| !others.contains(link)));
}

#[test]
fn everything_else_is_refused() {
    let (page, _) = page();
    let long = format!("GET /{} HTTP/1.1", "x".repeat(100_000));
    for (request, said) in [
        ("GET /../etc/passwd HTTP/1.1", "404"),
        ("GET /status.json/ HTTP/1.1", "404"),
        ("POST / HTTP/1.1", "405"),
        ("DELETE /status.json HTTP/1.1", "405"),
        (long.as_str(), "4"),
        ("no request", "400"),
    ] {
        let mut stream = TcpStream::connect(page.address()).unwrap();
        let _ = write!(
            stream,
            "{request}\r\nHost: here\r\nConnection: close\r\n\r\n"
        );
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        // A request that is too long may be cut off without an answer.
        let refused = answer.starts_with(&format!("HTTP/1.1 {said}")) || request.len() > 1000;
        assert!(refused, "{request:.40}: {answer}");
    }
    let (head, _) = ask(&page, "GET / HTTP/1.1");
    assert!(head.starts_with("HTTP/1.1 200"));
}

/// Far more than there is place for, that ask half a question or none.
#[test]
fn who_asks_slowly_does_not_keep_others_waiting() {
    let (page, _) = page();
    let slow: Vec<_> = (0..100)
        .map(|n| {
            let mut stream = TcpStream::connect(page.address()).unwrap();
            let half: &[u8] = if n % 2 == 0 { b"GET / HT" } else { b"" };
            stream.write_all(half).unwrap();
            stream
        })
        .collect();
    let mut stream = TcpStream::connect(page.address()).unwrap();
    // Less than what a slow one is given: the answer does not wait for any to be given up.
    stream
        .set_read_timeout(Some(Duration::from_secs(4)))
        .unwrap();
    write!(stream, "GET /status.json HTTP/1.1\r\nHost: here\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    drop(slow);
}

#[test]
fn many_ask_at_once() {
    let (page, board) = page();
    let (page, board) = (&page, &board);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(move || {
                for round in 1..=20 {
                    board.record(&record(round));
                    let (_, body) = ask(page, "GET /status.json HTTP/1.1");
                    let status: serde_json::Value = serde_json::from_str(&body).unwrap();
                    assert_eq!(status["devices"].as_array().unwrap().len(), 3);
                }
            });
        }
    });
    assert_eq!(board.status().records.len(), 160);
}

#[test]
fn an_address_that_is_taken_is_told() {
    let (page, board) = page();
    let error = StatusPage::bind(&page.address().to_string(), board.clone())
        .err()
        .unwrap();
    assert!(error.to_string().starts_with("status cannot be"), "{error}");
    assert!(StatusPage::bind("nowhere", board).is_err());
}

/// Devices elsewhere that have the labels tell no loss.
#[test]
fn a_record_without_a_loss_is_read_again() {
    let none = RoundRecord {
        loss: f64::NAN,
        ..record(1)
    };
    let json = serde_json::to_string(&none).unwrap();
    assert!(json.contains("\"loss\":null"), "{json}");
    let again: RoundRecord = serde_json::from_str(&json).unwrap();
    assert!(again.loss.is_nan());
    assert_eq!(again.devices, none.devices);
}
