//! What can be wrong with a caller's input. The binding turns each into a
//! Python exception; the core never panics on input.

use std::fmt;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// The input is unusable; the message names the value and the bound.
    Invalid(String),
    /// The caller asked to stop (a signal or a failing callback).
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
