//! What keeps a keeper from running.

use std::{io, path::PathBuf};

/// Why the keeper could not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Another keeper, or a task of one that died a moment ago, still holds the directory.
    #[error("another keeper holds `{}`; stop it first (its process id is in keeper.pid)", directory.display())]
    AlreadyRunning {
        /// The directory given to [`crate::run`].
        directory: PathBuf,
    },
    /// A file of the keeper's directory could not be made or used.
    #[error("cannot use `{}`: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system refused something that is not about a file.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried, e.g. `start a thread`.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl Failure {
    /// For `map_err`: names what was tried.
    pub(crate) fn system<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Failure {
        move |source| Failure::System { what, source: source.into() }
    }
}
