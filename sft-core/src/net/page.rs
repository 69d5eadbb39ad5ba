//! How a run stands, for browsers and for Prometheus.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt::{Display, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

use super::link::runtime;
use super::status::{Board, DeviceState, DeviceStatus, Status};
use crate::{Error, Result};

const PAGE: &str = include_str!("status.html");
/// Connections at a time, and how long each may last.
const CONNECTIONS: usize = 32;
const LONGEST: Duration = Duration::from_secs(30);
/// How long a browser may take to ask.
const ASKING: Duration = Duration::from_secs(5);

/// A page at an address that tells how a run stands: `/` for people, `/status.json` for programs,
/// `/metrics` for Prometheus. It ends when this is dropped.
///
/// Nothing can be changed by it and it holds no secrets, but whoever reaches the address may read it.
pub struct StatusPage {
    address: SocketAddr,
    serving: tokio::task::JoinHandle<()>,
}

impl StatusPage {
    /// Serves the status of a board, at `address`, such as `127.0.0.1:8080`; port 0 takes a free one.
    ///
    /// # Errors
    /// An address that is taken or is none.
    pub fn bind(address: &str, board: Arc<Board>) -> Result<Self> {
        let runtime = runtime()?;
        let failed =
            |e: std::io::Error| Error::argument("status", format!("cannot be {address:?}: {e}"));
        let tcp = runtime
            .block_on(TcpListener::bind(address))
            .map_err(failed)?;
        Ok(Self {
            address: tcp.local_addr().map_err(failed)?,
            serving: runtime.spawn(accept(tcp, board)),
        })
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for StatusPage {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Of more connections than there is place for the oldest is closed: who asks slowly, or asks nothing,
/// keeps nobody waiting.
async fn accept(tcp: TcpListener, board: Arc<Board>) {
    let mut connections = JoinSet::new();
    let mut by_age = VecDeque::new();
    loop {
        let Ok((stream, _)) = tcp.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        by_age.retain(|connection: &AbortHandle| !connection.is_finished());
        if by_age.len() >= CONNECTIONS
            && let Some(oldest) = by_age.pop_front()
        {
            oldest.abort();
        }
        let board = board.clone();
        by_age.push_back(connections.spawn(async move {
            let _ = timeout(LONGEST, connection(stream, board)).await;
        }));
    }
}

async fn connection(stream: TcpStream, board: Arc<Board>) -> Result<(), hyper::Error> {
    let serve = service_fn(move |request: Request<Incoming>| {
        let answer = answer(request.method(), request.uri().path(), &board);
        async move { Ok::<_, Infallible>(answer) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        // One that were kept would be cut off while something is asked.
        .keep_alive(false)
        .header_read_timeout(ASKING)
        .max_buf_size(16 << 10)
        .serve_connection(TokioIo::new(stream), serve)
        .await
}

fn answer(method: &Method, path: &str, board: &Board) -> Response<Full<Bytes>> {
    let (status, kind, body) = match path {
        _ if method != Method::GET && method != Method::HEAD => (
            StatusCode::METHOD_NOT_ALLOWED,
            "text/plain",
            "only GET\n".into(),
        ),
        "/" => (StatusCode::OK, "text/html; charset=utf-8", PAGE.into()),
        "/status.json" => {
            let json = serde_json::to_string(&board.status()).unwrap_or_default();
            (StatusCode::OK, "application/json", json)
        }
        "/metrics" => {
            let kind = "text/plain; version=0.0.4; charset=utf-8";
            (StatusCode::OK, kind, metrics(&board.status()))
        }
        _ => (StatusCode::NOT_FOUND, "text/plain", "no such page\n".into()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    headers.insert(
        header::CACHE_CONTROL,
        header::HeaderValue::from_static("no-store"),
    );
    let policy = "default-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'";
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        header::HeaderValue::from_static(policy),
    );
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(header::ALLOW, header::HeaderValue::from_static("GET, HEAD"));
    }
    response
}

/// The status in Prometheus' text format.
fn metrics(status: &Status) -> String {
    let mut text = Metrics::default();
    text.one(
        "sft_round",
        "gauge",
        "The round that goes on, from 1.",
        status.round,
    );
    text.one(
        "sft_rounds_total",
        "counter",
        "Rounds that are done.",
        status.records.len(),
    );
    if let Some(last) = status.records.last() {
        text.one(
            "sft_accuracy_ratio",
            "gauge",
            "Test accuracy after the last round.",
            last.accuracy,
        );
        text.one(
            "sft_loss_nats",
            "gauge",
            "Mean training loss of the last round.",
            last.loss,
        );
        text.one(
            "sft_round_wall_seconds",
            "gauge",
            "Time that the last round took.",
            last.wall_s,
        );
        text.one(
            "sft_round_modelled_seconds",
            "gauge",
            "Modelled delay of the last round.",
            last.delay_s,
        );
    }
    text.each(
        "sft_device_up",
        "gauge",
        "Whether the device is there.",
        status,
        |device| {
            let there = matches!(device.state, DeviceState::Ready | DeviceState::Training);
            Some(f64::from(u8::from(there)))
        },
    );
    text.each(
        "sft_device_received_bytes_total",
        "counter",
        "Bytes that the device sent.",
        status,
        |device| Some(device.bytes_up as f64),
    );
    text.each(
        "sft_device_sent_bytes_total",
        "counter",
        "Bytes that were sent to the device.",
        status,
        |device| Some(device.bytes_down as f64),
    );
    text.each(
        "sft_device_rounds_total",
        "counter",
        "Rounds that the device ended.",
        status,
        |device| Some(device.rounds as f64),
    );
    text.each(
        "sft_device_allocated_bits_per_second",
        "gauge",
        "Rate that its uplink is held to.",
        status,
        |device| device.allocated_bit_s,
    );
    text.each(
        "sft_device_uplink_bits_per_second",
        "gauge",
        "Rate of its last long message.",
        status,
        |device| device.uplink_bit_s,
    );
    text.each(
        "sft_device_last_seen_seconds",
        "gauge",
        "When it was last heard of, since 1970.",
        status,
        |device| device.last_seen_s,
    );
    text.0
}

/// Metrics as they are written.
#[derive(Default)]
struct Metrics(String);

impl Metrics {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.head(name, kind, help);
        let _ = writeln!(self.0, "{name} {value}");
    }

    fn each(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        status: &Status,
        value: impl Fn(&DeviceStatus) -> Option<f64>,
    ) {
        self.head(name, kind, help);
        for device in &status.devices {
            if let Some(value) = value(device) {
                let number = device.device;
                let _ = writeln!(self.0, "{name}{{device=\"{number}\"}} {value}");
            }
        }
    }
}
