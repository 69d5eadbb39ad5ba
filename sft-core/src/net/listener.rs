//! Where a server's devices come in.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::{Request as HttpRequest, Response as HttpResponse};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::AbortHandle;
use tokio::time::{timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::body::Body;
use tonic::server::{Grpc, StreamingService};
use tonic::{Request, Response, Status, Streaming};

use super::connect::WINDOW_BYTES;
use super::counts::Counters;
use super::heard::{PONG, SILENT, listened, silence};
use super::identity::{Identity, name};
use super::link::{Link, LinkLimits, runtime};
use super::meter::Meter;
use super::wire::{PATH, Piece, Pieces, broken, chain, piece_limit};
use crate::{Error, Result};

/// Between two lines that tell of connections that were closed because there are too many.
const TELLING: Duration = Duration::from_secs(1);
/// Connections that asked for no link yet; of more the oldest goes.
const STRANGERS: usize = 512;
/// Links that nobody took yet.
const WAITING: usize = 64;

/// A server's address, where links come in: by certificates of its authority alone, or without
/// certificates from this machine alone.
pub struct Listener {
    address: SocketAddr,
    links: Mutex<mpsc::Receiver<Link>>,
    meter: Arc<Meter>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Listener {
    /// Listens on `address`, such as `0.0.0.0:7443`; port 0 takes a free one.
    ///
    /// # Errors
    /// An address that is taken or is none; without an identity one that other machines reach.
    pub fn bind(address: &str, identity: Option<&Identity>, limits: LinkLimits) -> Result<Self> {
        let runtime = runtime()?;
        let failed =
            |e: std::io::Error| Error::argument("listen", format!("cannot be {address:?}: {e}"));
        let tcp = runtime
            .block_on(TcpListener::bind(address))
            .map_err(failed)?;
        let at = tcp.local_addr().map_err(failed)?;
        if identity.is_none() && !at.ip().is_loopback() {
            let reason = format!("must be given where other machines reach {at}, got none");
            return Err(Error::argument("certs", reason));
        }
        let tls = identity.map(Identity::server).transpose();
        let tls = tls.map_err(|reason| Error::argument("certs", reason))?;
        let (found, links) = mpsc::channel(WAITING);
        let meter = Arc::<Meter>::default();
        let door = Arc::new(Door {
            meter: meter.clone(),
            tls: tls.map(|tls| TlsAcceptor::from(Arc::new(tls))),
            places: Arc::new(Semaphore::new(limits.connections)),
            strangers: Mutex::default(),
            limits,
            found,
        });
        let accepting = runtime.spawn(accept(tcp, door));
        Ok(Self {
            address: at,
            links: Mutex::new(links),
            meter,
            accepting,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What its links carry together.
    pub(super) fn meter(&self) -> Arc<Meter> {
        self.meter.clone()
    }

    /// Waits for a link until then, or has none.
    ///
    /// # Errors
    /// Threads that cannot be started.
    pub fn accept_until(&self, until: Instant) -> Result<Option<Link>> {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let found = runtime()?.block_on(async { timeout_at(until.into(), links.recv()).await });
        Ok(found.ok().flatten())
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.accepting.abort();
        // The address is free once the task has ended.
        let _ = runtime().map(|runtime| runtime.block_on(&mut self.accepting));
    }
}

/// How connections are taken.
struct Door {
    meter: Arc<Meter>,
    tls: Option<TlsAcceptor>,
    /// For links.
    places: Arc<Semaphore>,
    /// Connections that are no links yet, by number, the oldest first.
    strangers: Mutex<VecDeque<(u64, AbortHandle)>>,
    limits: LinkLimits,
    found: mpsc::Sender<Link>,
}

async fn accept(tcp: TcpListener, door: Arc<Door>) {
    // A flood of connections is no flood of lines.
    let mut closed = (0u64, None::<Instant>);
    for number in 0.. {
        let (stream, from) = match tcp.accept().await {
            Ok(taken) => taken,
            Err(error) => {
                // Of too many open files others may close some.
                tracing::warn!(%error, "no connection can be taken");
                tokio::time::sleep(door.limits.handshake / 10).await;
                continue;
            }
        };
        closed.0 += u64::from(door.clone().let_in(number, stream, from));
        if closed.0 > 0 && closed.1.is_none_or(|told| told.elapsed() >= TELLING) {
            let count = closed.0;
            tracing::warn!(
                count,
                "too many connections: those closed that asked for no link"
            );
            closed = (0, Some(Instant::now()));
        }
    }
}

impl Door {
    /// Serves one connection beside the others; whether another that waited longest had to go for it.
    fn let_in(self: Arc<Self>, number: u64, tcp: TcpStream, from: SocketAddr) -> bool {
        let door = self.clone();
        // Nothing of it is done before it is known.
        let mut strangers = self.strangers();
        let task = tokio::spawn(async move {
            let served = door.serve(number, tcp).await;
            door.known(number);
            if let Err(reason) = served {
                tracing::warn!(%from, reason, "connection refused");
            }
        });
        strangers.push_back((number, task.abort_handle()));
        let oldest = (strangers.len() > STRANGERS).then(|| strangers.pop_front());
        oldest.flatten().is_some_and(|(_, oldest)| {
            oldest.abort();
            true
        })
    }

    /// A connection is a stranger no more; whether it was one.
    fn known(&self, number: u64) -> bool {
        let mut strangers = self.strangers();
        let place = strangers.iter().position(|&(other, _)| other == number);
        place.and_then(|place| strangers.remove(place)).is_some()
    }

    fn strangers(&self) -> MutexGuard<'_, VecDeque<(u64, AbortHandle)>> {
        self.strangers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves one connection until it ends.
    async fn serve(self: &Arc<Self>, number: u64, tcp: TcpStream) -> Result<(), String> {
        tcp.set_nodelay(true).map_err(|e| e.to_string())?;
        let counters = Arc::new(Counters::new(Some(self.meter.clone())));
        let tcp = listened(tcp, &counters);
        let visit = |peer| Visit {
            number,
            peer,
            counters,
        };
        let Some(tls) = &self.tls else {
            return self.http(TokioIo::new(tcp), visit(String::new())).await;
        };
        let late = |_| "no certificate came in time".to_string();
        let tls = timeout(self.limits.handshake, tls.accept(tcp))
            .await
            .map_err(late)?;
        let tls = tls.map_err(|e| chain(&e))?;
        let certificates = tls.get_ref().1.peer_certificates();
        let peer = certificates
            .and_then(<[_]>::first)
            .ok_or("has no certificate")?;
        let peer = name(peer)?;
        self.http(TokioIo::new(tls), visit(peer)).await
    }

    async fn http<I>(self: &Arc<Self>, io: I, visit: Visit) -> Result<(), String>
    where
        I: hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
    {
        let (opened, mut is_open) = mpsc::channel(1);
        let counters = visit.counters.clone();
        let (door, visit) = (self.clone(), Arc::new(visit));
        let serve = service_fn(move |request: HttpRequest<Incoming>| {
            let service = Connect {
                door: door.clone(),
                visit: visit.clone(),
                opened: opened.clone(),
            };
            async move { Ok::<_, Infallible>(service.answer(request).await) }
        });
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(self.limits.alive())
            .keep_alive_timeout(PONG)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .max_concurrent_streams(1)
            .max_header_list_size(8 << 10)
            .serve_connection(io, serve);
        let mut connection = std::pin::pin!(connection);
        let opening = tokio::time::sleep(self.limits.handshake);
        let mut opening = std::pin::pin!(opening);
        // As long as the link is there.
        let mut place = None;
        loop {
            tokio::select! {
                ended = &mut connection => {
                    let Some(reason) = ended.err().map(|e| chain(&e)) else {
                        return Ok(());
                    };
                    if place.is_none() {
                        return Err(reason);
                    }
                    counters.end(broken(&reason));
                    return Ok(());
                }
                () = &mut opening, if place.is_none() => {
                    return Err("asked for no link in time".into());
                }
                () = silence(&counters, self.limits.silence), if place.is_some() => {
                    counters.end(SILENT.into());
                    return Ok(());
                }
                Some(taken) = is_open.recv(), if place.is_none() => place = Some(taken),
            }
        }
    }
}

/// One connection.
struct Visit {
    number: u64,
    /// The name in its certificate.
    peer: String,
    counters: Arc<Counters>,
}

/// The one method of the service, for one connection.
struct Connect {
    door: Arc<Door>,
    visit: Arc<Visit>,
    opened: mpsc::Sender<OwnedSemaphorePermit>,
}

type Outgoing = Pin<Box<dyn Stream<Item = Result<Piece, Status>> + Send>>;

impl Connect {
    async fn answer(self, request: HttpRequest<Incoming>) -> HttpResponse<Body> {
        if request.uri().path() != PATH {
            return Status::unimplemented("there is only the link").into_http();
        }
        let mut grpc = Grpc::new(Pieces).max_decoding_message_size(piece_limit());
        grpc.streaming(self, request).await
    }

    fn open(&self, incoming: Streaming<Piece>) -> Result<Response<Outgoing>, Status> {
        let (door, visit) = (&self.door, &self.visit);
        if !door.known(visit.number) {
            return Err(Status::already_exists("it has a link"));
        }
        let full = || Status::resource_exhausted("this server has too many links");
        let place = door.places.clone().try_acquire_owned();
        let place = place.map_err(|_| full())?;
        let (pieces, outgoing) = mpsc::channel(1);
        let (peer, counters) = (visit.peer.clone(), visit.counters.clone());
        let link = Link::new(peer, pieces, incoming, counters, &door.limits);
        let link = link.map_err(|e| Status::internal(e.to_string()))?;
        door.found.try_send(link).map_err(|_| full())?;
        let _ = self.opened.try_send(place);
        Ok(Response::new(Box::pin(
            ReceiverStream::new(outgoing).map(Ok),
        )))
    }
}

impl StreamingService<Piece> for Connect {
    type Response = Piece;
    type ResponseStream = Outgoing;
    type Future = Ready<Result<Response<Outgoing>, Status>>;

    fn call(&mut self, request: Request<Streaming<Piece>>) -> Self::Future {
        ready(self.open(request.into_inner()))
    }
}
