//! What the rules answer when they say no.

/// The canonical kind of a rejection; numbers are gRPC's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// A value that is wrong whatever the state.
    InvalidArgument = 3,
    /// A job, queue, worker, session or blob that doesn't exist.
    NotFound = 5,
    /// A request id that was used for something else.
    AlreadyExists = 6,
    /// The caller may not do this.
    PermissionDenied = 7,
    /// A table is full; see the hint.
    ResourceExhausted = 8,
    /// The thing isn't in a state in which this can be done.
    FailedPrecondition = 9,
}

/// An answer, the same on every replica: the command changed nothing, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Rejection {
    /// Its kind.
    pub code: Code,
    /// UPPER_SNAKE_CASE, stable: what programs look at.
    pub reason: &'static str,
    /// The offending field of the request, as `JobSpec` or the request names it; empty when there is none.
    pub field: &'static str,
    /// One sentence for people; lower case, without a full stop.
    pub message: String,
    /// The way out; may be empty.
    pub hint: String,
}

impl Rejection {
    pub(crate) fn new(code: Code, reason: &'static str, field: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, field, message: message.into(), hint: String::new() }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    pub(crate) fn field(mut self, field: &'static str) -> Self {
        self.field = field;
        self
    }

    pub(crate) fn invalid(field: &'static str, message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, "INVALID_ARGUMENT", field, message)
    }

    pub(crate) fn job_not_found(field: &'static str, job: u64) -> Self {
        Self::new(Code::NotFound, "JOB_NOT_FOUND", field, format!("job {job} doesn't exist"))
            .hint("list them with `millgrid ls --all`")
    }

    pub(crate) fn exhausted(reason: &'static str, field: &'static str, message: impl Into<String>) -> Self {
        Self::new(Code::ResourceExhausted, reason, field, message)
    }

    pub(crate) fn conflict(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(Code::FailedPrecondition, reason, "", message)
    }
}
