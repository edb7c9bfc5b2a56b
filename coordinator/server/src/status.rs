//! Refusals as gRPC sends them: a canonical code, and details that programs read.

use std::collections::HashMap;

use proto::internal::Refusal;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// Bytes of one message, either way.
pub const MESSAGE_BYTES: usize = 4 << 20;

/// The domain of every reason.
pub const DOMAIN: &str = "millgrid";

/// No coordinator leads, or none that this one can reach.
pub const NO_LEADER: &str = "NO_LEADER";

/// This member has not been told who the members are.
pub const NOT_BOOTSTRAPPED: &str = "NOT_BOOTSTRAPPED";

/// The refusal as a status, with `ErrorInfo{reason, domain, metadata{hint, field}}` in its details.
pub fn from_refusal(refusal: &Refusal) -> Status {
    // A message that says what doesn't exist has named it already.
    let missing = refusal.code == Code::NotFound as i32 && matches!(refusal.field.as_str(), "job_id" | "name");
    let message = if missing || refusal.field.is_empty() || refusal.message.contains(&refusal.field) {
        refusal.message.clone()
    } else {
        format!("{}: {}", refusal.field, refusal.message)
    };
    refused(Code::from_i32(refusal.code), &refusal.reason, &message, &refusal.hint, &refusal.field)
}

/// A status with the same details.
pub fn refused(code: Code, reason: &str, message: &str, hint: &str, field: &str) -> Status {
    let mut metadata = HashMap::new();
    for (key, value) in [("hint", hint), ("field", field)] {
        if !value.is_empty() {
            metadata.insert(key.to_owned(), value.to_owned());
        }
    }
    Status::with_error_details(code, message, ErrorDetails::with_error_info(reason, DOMAIN, metadata))
}

/// The request is larger than this server reads.
pub fn too_large() -> Status {
    let message =
        format!("the message is larger than the limit of {} MiB ({MESSAGE_BYTES} bytes)", MESSAGE_BYTES >> 20);
    refused(Code::InvalidArgument, "MESSAGE_TOO_LARGE", &message, "send less in one call", "")
}

/// Nobody leads.
pub fn no_leader() -> Status {
    refused(Code::Unavailable, NO_LEADER, "no coordinator leads that this one can reach", "call again", "")
}

/// Not a member of anything yet.
pub fn not_bootstrapped() -> Status {
    refused(
        Code::Unavailable,
        NOT_BOOTSTRAPPED,
        "this coordinator is not bootstrapped",
        "run `millgrid cluster bootstrap` once for all coordinators",
        "",
    )
}

/// A unary call ended without an answer: a mistake of ours.
pub fn internal(message: &str) -> Status {
    refused(Code::Internal, "INTERNAL", message, "report it with the coordinator's log", "")
}
