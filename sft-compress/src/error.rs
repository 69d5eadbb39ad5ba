use std::fmt;

/// What went wrong, as a caller would act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument lies outside what the function accepts.
    InvalidArgument,
    /// The tensor holds NaN or an infinity, which a lossy codec cannot represent.
    NonFinite,
    /// The frame ends early; more bytes may complete it.
    Truncated,
    /// The bytes are not a frame, or contradict the format.
    Corrupt,
    /// The checksum does not match the bytes.
    Checksum,
    /// The frame uses a version or a feature of the format that this crate does not know.
    UnsupportedVersion,
    /// Bytes follow the end of the frame.
    TrailingBytes,
    /// The tensor has more elements than the format or the caller's limit allows.
    TooLarge,
    /// The frame holds a tensor of another shape than the receiver expects.
    OtherShape,
    /// The message builds on a state that this side does not have. Both sides
    /// [reset](crate::Stateful::reset), and the sender sends it anew.
    LostReference,
}

/// The error of every function of this crate: a [kind](ErrorKind) and a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

/// The result of every fallible function of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of a kind, for a [`Compressor`](crate::Compressor) or a
    /// [`Decompressor`](crate::Decompressor) of your own.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidArgument, message)
    }

    pub(crate) fn corrupt(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corrupt, message)
    }

    /// What went wrong, for a caller that branches on it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
