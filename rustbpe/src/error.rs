//! Errors in a caller's input. The Python binding turns each into an exception;
//! the core never panics on bad input.

use std::fmt;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// Unusable input; the message names the value and its bound.
    Invalid(String),
    /// The caller asked to stop: by a signal, or because its callback failed.
    Stopped,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub fn invalid(message: impl Into<String>) -> Self {
        Error::Invalid(message.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Invalid(message) => formatter.write_str(message),
            Error::Stopped => formatter.write_str("stopped by the caller"),
        }
    }
}

impl std::error::Error for Error {}
