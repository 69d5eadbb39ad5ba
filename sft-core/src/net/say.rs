//! Messages of the protocol over a link.

use super::Link;
use crate::split::message::{Failure, FailureKind, Message};
use crate::{Error, Result};

/// Sends a message.
///
/// # Errors
/// A link that has ended.
pub(super) fn send(link: &Link, message: &Message) -> Result<()> {
    link.send(message.encode()?)
}

/// Tells the other side that it is not needed any more, and ends the link.
pub(super) fn leave(link: &Link, reason: &str) {
    let _ = send(link, &Message::Leave(reason.into()));
    link.close(reason);
}

/// Tells the other side why it is let go, and ends the link. Who was late or silent loses the link alone,
/// and may come back at once.
pub(super) fn refuse(link: &Link, error: &Error) {
    if !matches!(error, Error::Late { .. } | Error::Link { .. }) {
        let failure = Failure {
            kind: FailureKind::Refused,
            reason: error.to_string(),
        };
        let _ = send(link, &Message::Error(failure));
    }
    link.close(&error.to_string());
}
