//! Signs of life.
//!
//! A link on which data moves slowly is alive as long as bytes come, whole pieces or not. Where none are on
//! their way each side sends an empty piece now and then, and where a side cannot, since what it sent before
//! is not read, it still answers HTTP/2's pings.

use std::sync::Arc;
use std::time::Duration;

use hyper::rt::Executor;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::select;
use tokio::time::sleep;
use tokio_util::io::InspectReader;

use super::counts::Counters;

/// Why a link ended whose other side gave no sign of life.
pub(super) const SILENT: &str = "is silent: the other side does not answer";
/// How long a ping's answer may take, which waits behind data: it is not what tells of silence.
pub(super) const PONG: Duration = Duration::from_hours(1);

/// Notes when bytes come in.
pub(super) fn listened(
    tcp: TcpStream,
    counters: &Arc<Counters>,
) -> impl AsyncRead + AsyncWrite + Send + Unpin + 'static {
    let counters = counters.clone();
    InspectReader::new(tcp, move |bytes: &[u8]| {
        if !bytes.is_empty() {
            counters.heard(bytes.len());
        }
    })
}

/// Runs the tasks of a connection as long as the other side is heard: to let go of the connection alone
/// would leave those behind it that wait.
#[derive(Clone)]
pub(super) struct WhileHeard {
    pub(super) counters: Arc<Counters>,
    /// How long no byte may come.
    pub(super) limit: Duration,
}

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for WhileHeard {
    fn execute(&self, task: F) {
        let Self { counters, limit } = self.clone();
        tokio::spawn(async move {
            select! {
                _ = task => {}
                () = silence(&counters, limit) => counters.end(SILENT.into()),
            }
        });
    }
}

/// Returns once no byte came for so long.
pub(super) async fn silence(counters: &Counters, limit: Duration) {
    loop {
        let left = limit.saturating_sub(counters.silent());
        if left.is_zero() {
            return;
        }
        sleep(left).await;
    }
}
