//! The error of start-up steps: one line for the user [LOG-5].

use nix::errno::Errno;

/// Why a start-up step failed. `Display` is the complete line shown to the user, without newline.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error("{what}: {}", errno.desc())]
    Call {
        /// What was attempted, naming the path or object: "cannot open network namespace /x".
        what: String,
        /// The reason.
        errno: Errno,
    },
    /// A system call failed for a reason that the user can probably change.
    #[error("{what}: {} ({hint})", errno.desc())]
    Hint {
        /// What was attempted.
        what: String,
        /// The reason.
        errno: Errno,
        /// What to look at.
        hint: String,
    },
    /// Something else, in words.
    #[error("{0}")]
    Other(String),
}

impl Error {
    /// What happened, without the advice.
    #[must_use]
    pub fn fact(&self) -> String {
        match self {
            Error::Hint { what, errno, .. } => format!("{what}: {}", errno.desc()),
            Error::Call { .. } | Error::Other(_) => self.to_string(),
        }
    }

    /// The error number, if a system call failed.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Error::Call { errno, .. } | Error::Hint { errno, .. } => Some(*errno),
            Error::Other(_) => None,
        }
    }
}

/// Names what was attempted when a call fails: `call().what(|| "cannot do it".into())?`.
pub(crate) trait What<T> {
    /// Turns the error into [`Error::Call`] with this description.
    fn what(self, what: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T> What<T> for nix::Result<T> {
    fn what(self, what: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|errno| Error::Call { what: what(), errno })
    }
}

impl<T> What<T> for std::io::Result<T> {
    fn what(self, what: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|error| match error.raw_os_error() {
            Some(code) => Error::Call { what: what(), errno: Errno::from_raw(code) },
            None => Error::Other(format!("{}: {error}", what())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // [LOG-5]
    #[test]
    fn is_one_line_with_the_plain_description() {
        let error = Err::<(), _>(Errno::ENOENT).what(|| "cannot open /x".into()).unwrap_err();
        assert_eq!(error.to_string(), "cannot open /x: No such file or directory");
        let error = std::fs::read("/nonexistent/x").what(|| "cannot read".into()).unwrap_err();
        assert_eq!(error.to_string(), "cannot read: No such file or directory");
    }
}
