//! A device's way to its server.

use std::io::Cursor;
use std::net::ToSocketAddrs;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::uri::{PathAndQuery, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::{Mutex, mpsc};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;
use tonic::body::Body;
use tonic::client::Grpc;
use tower_service::Service;

use super::counts::Counters;
use super::heard::{PONG, WhileHeard, listened};
use super::identity::{Identity, name};
use super::link::{Link, LinkLimits, runtime};
use super::wire::{PATH, Pieces, chain, piece_limit};
use crate::{Error, Result};

/// Of what a server says first as many bytes are looked at.
const FIRST_BYTES: usize = 64;
/// Bytes that may be on their way unread.
pub(super) const WINDOW_BYTES: u32 = 512 << 10;

/// Connects to a server, `host:port`, as what the identity's certificate says.
///
/// # Errors
/// [`Error::Link`] where nobody answers; [`Error::Protocol`] where one of the two does not
/// believe the other's certificate; without an identity an address of another machine.
pub fn connect(server: &str, identity: Option<&Identity>, limits: &LinkLimits) -> Result<Link> {
    let (host, port) = server.rsplit_once(':').unwrap_or((server, ""));
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let number = port.parse::<u16>().ok().filter(|_| !host.is_empty());
    let wrong = || Error::argument("server", format!("must be host:port, got {server:?}"));
    let port = number.ok_or_else(wrong)?;
    if identity.is_none() {
        refuse_other_machines(server, (host, port))?;
    }
    let done = runtime()?.block_on(open((host, port), identity, limits));
    done.map_err(|reason| refused(server, reason))
}

/// Without certificates nothing leaves this machine.
fn refuse_other_machines(server: &str, address: (&str, u16)) -> Result<()> {
    let found = address.to_socket_addrs();
    let found = found.map_err(|e| refused(server, format!("is not found: {e}")))?;
    for address in found {
        if !address.ip().is_loopback() {
            let reason =
                format!("must be given for a server on another machine, got none for {server}");
            return Err(Error::argument("certs", reason));
        }
    }
    Ok(())
}

async fn open(
    address: (&str, u16),
    identity: Option<&Identity>,
    limits: &LinkLimits,
) -> Result<Link, String> {
    let time = limits.handshake;
    let late = |_| "does not answer".to_string();
    let tcp = timeout(time, TcpStream::connect(address))
        .await
        .map_err(late)?;
    let tcp = tcp.map_err(|e| format!("is not there: {e}"))?;
    tcp.set_nodelay(true).map_err(|e| e.to_string())?;
    let counters = Arc::new(Counters::new(None));
    let tcp = listened(tcp, &counters);
    let (half, peer) = match identity {
        None => {
            let half = Half::new(TokioIo::new(tcp), &counters, limits).await?;
            (half, String::new())
        }
        Some(identity) => {
            let connector = TlsConnector::from(Arc::new(identity.client()?));
            let host = ServerName::try_from(address.0.to_string()).map_err(|e| e.to_string())?;
            let tls = timeout(time, connector.connect(host, tcp))
                .await
                .map_err(late)?;
            let mut tls = tls.map_err(|e| chain(&e))?;
            let certificates = tls.get_ref().1.peer_certificates();
            let peer = certificates.and_then(<[_]>::first).map(name).transpose()?;
            // The server speaks first. One that does not believe this certificate says so here, and what
            // was sent to it meanwhile would fail without a reason.
            let mut first = vec![0; FIRST_BYTES];
            let count = timeout(time, tls.read(&mut first)).await.map_err(late)?;
            first.truncate(count.map_err(|e| chain(&e))?);
            let (read, write) = tokio::io::split(tls);
            let io = tokio::io::join(Cursor::new(first).chain(read), write);
            let half = Half::new(TokioIo::new(io), &counters, limits).await?;
            (half, peer.unwrap_or_default())
        }
    };
    let (pieces, outgoing) = mpsc::channel(1);
    let ended = half.ended.clone();
    let mut grpc = Grpc::with_origin(half, Uri::from_static("https://link"))
        .max_decoding_message_size(piece_limit());
    let request = Request::new(ReceiverStream::new(outgoing));
    let answer = grpc.streaming(request, PathAndQuery::from_static(PATH), Pieces);
    let answer = timeout(time, answer).await.map_err(late)?;
    let incoming = match answer {
        Ok(answer) => answer.into_inner(),
        // What became of the connection says more than what became of the request.
        Err(status) => {
            let reason = timeout(time, ended.lock_owned()).await;
            let reason = reason.ok().and_then(|reason| reason.clone());
            return Err(reason.unwrap_or_else(|| chain(&status)));
        }
    };
    Link::new(peer, pieces, incoming, counters, limits).map_err(|e| e.to_string())
}

/// The client's half of an HTTP/2 connection.
struct Half {
    requests: SendRequest<Body>,
    /// Why the connection ended; locked as long as it has not.
    ended: Arc<Mutex<Option<String>>>,
}

impl Half {
    async fn new<I>(io: I, counters: &Arc<Counters>, limits: &LinkLimits) -> Result<Self, String>
    where
        I: hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
    {
        let tasks = WhileHeard {
            counters: counters.clone(),
            limit: limits.silence,
        };
        let made = http2::Builder::new(tasks.clone())
            .timer(TokioTimer::new())
            .keep_alive_interval(limits.alive())
            .keep_alive_timeout(PONG)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .handshake(io)
            .await;
        let (requests, connection) = made.map_err(|e| chain(&e))?;
        let ended = Arc::new(Mutex::new(None));
        let mut reason = ended.clone().lock_owned().await;
        tasks.execute(async move {
            *reason = connection.await.err().map(|e| chain(&e));
        });
        Ok(Self { requests, ended })
    }
}

impl Service<http::Request<Body>> for Half {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.requests.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.requests.send_request(request))
    }
}

/// The error of a connection that was not made.
fn refused(server: &str, reason: String) -> Error {
    if reason.contains("invalid peer certificate") {
        return Error::protocol(format!(
            "at {server} has a certificate that is not believed: {reason}"
        ));
    }
    if reason.contains("received fatal alert") {
        return Error::protocol(format!(
            "at {server} does not believe this certificate: {reason}"
        ));
    }
    Error::Link {
        peer: server.into(),
        reason,
    }
}
