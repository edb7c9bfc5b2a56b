//! How a call is refused: a canonical code, a stable reason, and a way out.

use proto::internal::Refusal;
use scheduler::Rejection;

/// Canonical codes, as gRPC numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Code {
    InvalidArgument = 3,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Unavailable = 14,
}

/// A reason that every front knows: the callee doesn't lead (any more), another member should be asked.
pub const NOT_LEADER: &str = "NOT_LEADER";
/// The leader changed while the call was under way: whether it took effect is not known.
pub const LEADER_CHANGED: &str = "LEADER_CHANGED";
/// The leader's disk is almost full: new jobs are refused, what runs goes on.
pub const DISK_LOW: &str = "DISK_LOW";
/// The replicas differ, and nobody knows which of them is right.
pub const DIVERGED: &str = "DIVERGED";
/// Nothing that any pool could launch holds one task.
pub const INFEASIBLE: &str = "INFEASIBLE";

/// A refusal without a field.
pub fn refusal(code: Code, reason: &str, message: impl Into<String>, hint: &str) -> Refusal {
    Refusal {
        code: code as i32,
        reason: reason.to_owned(),
        message: message.into(),
        hint: hint.to_owned(),
        field: String::new(),
    }
}

/// The request is wrong in one field.
pub fn invalid(field: &str, message: impl Into<String>, hint: &str) -> Refusal {
    Refusal { field: field.to_owned(), ..refusal(Code::InvalidArgument, "INVALID_ARGUMENT", message, hint) }
}

pub(crate) fn not_found(field: &str, message: impl Into<String>, hint: &str) -> Refusal {
    Refusal { field: field.to_owned(), ..refusal(Code::NotFound, "NOT_FOUND", message, hint) }
}

pub(crate) fn job_not_found(job: u64) -> Refusal {
    not_found("job_id", format!("job {job} doesn't exist"), "see the job numbers with `millgrid ls --all`")
}

pub(crate) fn not_leader() -> Refusal {
    refusal(Code::Unavailable, NOT_LEADER, "this coordinator doesn't lead", "call again")
}

pub(crate) fn leader_changed() -> Refusal {
    refusal(
        Code::Unavailable,
        LEADER_CHANGED,
        "the leader changed before the outcome was known",
        "call again with the same request id",
    )
}

pub(crate) fn overloaded(what: &str) -> Refusal {
    refusal(Code::ResourceExhausted, "OVERLOADED", format!("too many {what} are waiting"), "call again in a second")
}

pub(crate) fn rejected(rejection: &Rejection) -> Refusal {
    Refusal {
        code: rejection.code as i32,
        reason: rejection.reason.to_owned(),
        message: rejection.message.clone(),
        hint: rejection.hint.clone(),
        field: rejection.field.to_owned(),
    }
}
