//! What a verb ends with when it didn't do what was asked: one or two lines on stderr, and an exit code.

use std::{fmt, io, path::Path};

use serde::Serialize;
use tonic::Code;

use crate::terminal;

/// A failed verb.
#[derive(Debug)]
pub enum Failure {
    /// The command line, the configuration or a file on this side is at fault, or the grid's answer says so.
    Said(Box<Said>),
    /// The way to the grid, or the grid itself, said no.
    Grid(client::Error),
    /// The user pressed Ctrl-C.
    Interrupted {
        /// What goes on, and how to stop it.
        hint: String,
    },
    /// Nobody reads our output any more: no error.
    BrokenPipe,
}

/// A failure found on this side.
#[derive(Debug)]
pub struct Said {
    code: Code,
    reason: &'static str,
    message: String,
    hint: String,
}

/// The error object of `-o json`.
#[derive(Serialize)]
struct Report<'a> {
    error: Body<'a>,
}

#[derive(Serialize)]
struct Body<'a> {
    code: String,
    reason: Option<&'a str>,
    message: String,
    hint: Option<&'a str>,
    request_id: Option<&'a str>,
}

impl Failure {
    /// A command line that can't be meant; `option` is the flag without its dashes, or empty.
    pub fn usage(option: &str, message: impl fmt::Display) -> Self {
        let message = if option.is_empty() || message.to_string().contains(&format!("`--{option}`")) {
            message.to_string()
        } else {
            format!("--{option}: {message}")
        };
        Self::said(Code::InvalidArgument, "USAGE", message)
    }

    /// Something that failed on this side and is nobody's typing error.
    pub fn local(message: impl Into<String>) -> Self {
        Self::said(Code::Unknown, "LOCAL", message.into())
    }

    /// A thing that isn't there.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::said(Code::NotFound, "NOT_FOUND", message.into())
    }

    /// Something that this caller may not do.
    pub fn denied(message: impl Into<String>) -> Self {
        Self::said(Code::PermissionDenied, "DENIED", message.into())
    }

    /// A grid that isn't there now.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::said(Code::Unavailable, "UNAVAILABLE", message.into())
    }

    /// Time ran out, though the grid answered.
    pub fn timed_out(message: impl Into<String>) -> Self {
        Self::said(Code::DeadlineExceeded, "TIMEOUT", message.into())
    }

    /// A job that no pool could ever run.
    pub fn infeasible(message: impl Into<String>) -> Self {
        Self::said(Code::FailedPrecondition, "INFEASIBLE", message.into())
    }

    /// A file that can't be read or written: usage, since its name was given.
    pub fn file(what: &str, path: &Path, error: &io::Error) -> Self {
        let why = match error.kind() {
            io::ErrorKind::NotFound => "there is no such file".to_owned(),
            io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
            _ => error.to_string(),
        };
        Self::said(Code::InvalidArgument, "FILE", format!("can't {what} `{}`: {why}", path.display()))
    }

    fn said(code: Code, reason: &'static str, message: String) -> Self {
        Self::Said(Box::new(Said { code, reason, message, hint: String::new() }))
    }

    /// The same with a way out.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        match &mut self {
            Self::Said(said) => said.hint = hint.into(),
            Self::Interrupted { hint: old } => *old = hint.into(),
            Self::Grid(_) | Self::BrokenPipe => {}
        }
        self
    }

    /// The process's exit code (interfaces, section 2).
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Interrupted { .. } => 130,
            Self::BrokenPipe => 0,
            Self::Said(said) => exit_code(said.code, said.reason),
            Self::Grid(error) => exit_code(error.code(), error.reason()),
        }
    }

    /// Writes it to stderr, as `error:` and `hint:` or as JSON.
    pub fn report(&self, json: bool) {
        if let Self::BrokenPipe = self {
            return;
        }
        if json {
            let body = Body {
                code: self.code_name(),
                reason: some(self.reason()),
                message: self.to_string(),
                hint: some(self.hint_text()),
                request_id: some(self.request_id()),
            };
            match serde_json::to_string(&Report { error: body }) {
                Ok(text) => eprintln!("{text}"),
                Err(error) => eprintln!("error: {self} ({error})"),
            }
            return;
        }
        eprintln!("error: {}", terminal::one_line(&self.to_string()));
        let hint = self.hint_text();
        if !hint.is_empty() {
            eprintln!("hint: {}", terminal::one_line(hint));
        }
    }

    fn code_name(&self) -> String {
        let code = match self {
            Self::Said(said) => said.code,
            Self::Grid(error) => error.code(),
            Self::Interrupted { .. } | Self::BrokenPipe => Code::Cancelled,
        };
        canonical(code).to_owned()
    }

    fn reason(&self) -> &str {
        match self {
            Self::Said(said) => said.reason,
            Self::Grid(error) => error.reason(),
            Self::Interrupted { .. } => "INTERRUPTED",
            Self::BrokenPipe => "",
        }
    }

    fn hint_text(&self) -> &str {
        match self {
            Self::Said(said) => &said.hint,
            Self::Grid(error) => error.hint(),
            Self::Interrupted { hint } => hint,
            Self::BrokenPipe => "",
        }
    }

    fn request_id(&self) -> &str {
        match self {
            Self::Grid(error) => error.request_id(),
            _ => "",
        }
    }
}

fn some(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// The table's second column: every verb, before a job was accepted.
fn exit_code(code: Code, reason: &str) -> u8 {
    match code {
        _ if reason.eq_ignore_ascii_case("infeasible") => 7,
        Code::Ok => 0,
        Code::InvalidArgument | Code::OutOfRange => 2,
        Code::NotFound => 3,
        Code::PermissionDenied | Code::Unauthenticated => 4,
        Code::Unavailable | Code::ResourceExhausted => 5,
        Code::AlreadyExists | Code::Aborted | Code::FailedPrecondition => 6,
        Code::DeadlineExceeded => 124,
        Code::Cancelled | Code::Unknown | Code::Internal | Code::Unimplemented | Code::DataLoss => 1,
    }
}

/// The canonical name of a code.
fn canonical(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Said(said) => f.write_str(&said.message),
            Self::Grid(error) => error.fmt(f),
            Self::Interrupted { .. } => f.write_str("interrupted"),
            Self::BrokenPipe => f.write_str("nobody reads the output"),
        }
    }
}

impl std::error::Error for Failure {}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Self {
        match error {
            // What the user would have to change is the command line.
            client::Error::Settings { field, problem } => Self::usage("", format!("{field}: {problem}")),
            other => Self::Grid(other),
        }
    }
}

impl From<crate::identity::Problem> for Failure {
    fn from(problem: crate::identity::Problem) -> Self {
        Self::said(problem.code(), "IDENTITY", problem.to_string())
    }
}

/// Of our own output.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::BrokenPipe
        } else {
            Self::local(format!("can't write the output: {error}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_the_grid_become_the_exit_codes_of_the_table() {
        let table = [
            (Code::Unknown, 1),
            (Code::Internal, 1),
            (Code::InvalidArgument, 2),
            (Code::NotFound, 3),
            (Code::PermissionDenied, 4),
            (Code::Unauthenticated, 4),
            (Code::Unavailable, 5),
            (Code::ResourceExhausted, 5),
            (Code::AlreadyExists, 6),
            (Code::Aborted, 6),
            (Code::FailedPrecondition, 6),
            (Code::DeadlineExceeded, 124),
        ];
        for (code, expected) in table {
            assert_eq!(exit_code(code, "ANY"), expected, "{code:?}");
        }
        assert_eq!(exit_code(Code::FailedPrecondition, "INFEASIBLE"), 7);
        assert_eq!(Failure::Interrupted { hint: String::new() }.exit_code(), 130);
        assert_eq!(Failure::from(io::Error::from(io::ErrorKind::BrokenPipe)).exit_code(), 0);
    }

    #[test]
    fn usage_names_its_flag_once() {
        assert_eq!(Failure::usage("in", "no").to_string(), "--in: no");
        assert_eq!(Failure::usage("in", "no `--in` here").to_string(), "no `--in` here");
    }
}
