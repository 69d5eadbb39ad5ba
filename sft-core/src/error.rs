//! The crate's error.

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong while loading, training or saving.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument is outside its range or does not fit the others.
    #[error("{argument} {reason}")]
    Argument {
        /// The argument's name.
        argument: &'static str,
        /// What is accepted, and the value that was given.
        reason: String,
    },
    /// A file is missing, unreadable, or not what it should be.
    #[error("{path}: {reason}")]
    File {
        /// The file as it was named by the caller.
        path: String,
        /// What was wrong and what is accepted.
        reason: String,
    },
    /// The other side of a connection did what it should not.
    #[error("the other side {0}")]
    Protocol(String),
    /// A connection failed.
    #[error("the link to {peer} {reason}")]
    Link {
        /// Who is at the other end.
        peer: String,
        /// What happened to it.
        reason: String,
    },
    /// A value stopped being finite during training.
    #[error("training diverged in round {round} on device {device}: {tensor} is not finite")]
    Diverged {
        /// The round, counted from 1.
        round: usize,
        /// The device, counted from 0.
        device: usize,
        /// Which tensor: the activation, its gradient, the loss or the adapter.
        tensor: &'static str,
    },
    /// A device did not finish its round in time.
    #[error("device {device} was not done with its round after {deadline_s} s")]
    Late {
        /// The device, counted from 0.
        device: usize,
        /// What it had, seconds.
        deadline_s: f64,
    },
    /// Of devices that are elsewhere too few ended a round.
    #[error("only {ended} devices ended round {round}")]
    Absent {
        /// The round, counted from 1.
        round: usize,
        /// The devices that did.
        ended: usize,
    },
    /// A trainable tensor took no part in the loss.
    #[error("no gradient reached trainable tensor {0}")]
    NoGradient(usize),
    /// The caller asked for an end.
    #[error("stopped")]
    Stopped,
    /// A frame could not be encoded or decoded.
    #[error(transparent)]
    Codec(#[from] sft_compress::Error),
    /// The cost model refused its input.
    #[error(transparent)]
    Cost(#[from] sft_opt::Error),
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

impl Error {
    /// An error about what the other side of a connection did.
    pub(crate) fn protocol(reason: impl Into<String>) -> Self {
        Self::Protocol(reason.into())
    }

    /// An error about an argument, unless it holds.
    pub(crate) fn require(
        holds: bool,
        argument: &'static str,
        value: impl std::fmt::Display,
        accepted: &str,
    ) -> Result<()> {
        if holds {
            return Ok(());
        }
        let reason = format!("must be {accepted}, got {value}");
        Err(Self::argument(argument, reason))
    }

    /// An error about an argument.
    pub fn argument(argument: &'static str, reason: impl Into<String>) -> Self {
        Self::Argument {
            argument,
            reason: reason.into(),
        }
    }

    /// An error about the file at `path`.
    pub fn file(path: impl AsRef<std::path::Path>, reason: impl std::fmt::Display) -> Self {
        Self::File {
            path: path.as_ref().display().to_string(),
            reason: reason.to_string(),
        }
    }
}
