//! Everything that can go wrong on the way to a grid, and what the grid says when it refuses.

use std::time::Duration;

use rustls::{AlertDescription as Alert, Error as Tls};
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// Why a call brought no result.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The grid answered, and said no.
    #[error("{}", .0.message)]
    Refused(Box<Answer>),
    /// No coordinator could be reached in the time given.
    #[error("no coordinator could be reached within {}: {last}", seconds(.waited))]
    Unreachable {
        /// How long it was tried.
        waited: Duration,
        /// What went wrong last, with the endpoint's name.
        last: String,
        /// The id under which a write was sent, so that its caller may go on with it.
        request_id: String,
    },
    /// Coordinators were reached, but none had a leader, or none would take the call.
    #[error("the grid is unavailable: {} (tried for {})", .answer.message, seconds(.waited))]
    Unavailable {
        /// How long it was tried.
        waited: Duration,
        /// What the last of them said.
        answer: Box<Answer>,
    },
    /// A coordinator was reached, but had no answer in the time given.
    #[error("no answer within {}", seconds(.waited))]
    TimedOut {
        /// How long it was tried.
        waited: Duration,
        /// The id under which a write was sent, so that its caller may go on with it.
        request_id: String,
    },
    /// The certificates of the two sides don't go together.
    #[error("{endpoint}: {problem}")]
    Identity {
        /// The coordinator's URL.
        endpoint: String,
        /// Whose certificate was refused, and why.
        problem: String,
    },
    /// The settings can't be used.
    #[error("{field}: {problem}")]
    Settings {
        /// `endpoints`, `ca`, `cert` or `key`.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

/// What a coordinator answered instead of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The canonical code.
    pub code: Code,
    /// The machine's word for it, from `google.rpc.ErrorInfo`; empty when the answer has none.
    pub reason: String,
    /// One sentence for people.
    pub message: String,
    /// The way out; may be empty.
    pub hint: String,
    /// The field of the request that is at fault; may be empty.
    pub field: String,
    /// The id of the request, for writes.
    pub request_id: String,
    /// When it may be tried again, if the grid said so.
    pub retry_after: Option<Duration>,
}

impl Answer {
    /// Reads an answer out of a status.
    pub fn from_status(status: &Status, request_id: &str) -> Self {
        let details = status.get_error_details();
        let metadata = |key: &str| {
            let value = details.error_info().and_then(|info| info.metadata.get(key));
            value.cloned().unwrap_or_default()
        };
        let given_id = metadata("request_id");
        Self {
            code: status.code(),
            reason: details.error_info().map(|info| info.reason.clone()).unwrap_or_default(),
            message: if status.message().is_empty() { status.code().description() } else { status.message() }
                .to_owned(),
            hint: metadata("hint"),
            field: metadata("field"),
            request_id: if given_id.is_empty() { request_id.to_owned() } else { given_id },
            retry_after: details.retry_info().and_then(|info| info.retry_delay),
        }
    }
}

impl Error {
    /// The canonical code, e.g. `NOT_FOUND`.
    pub fn code(&self) -> Code {
        match self {
            Self::Refused(answer) => answer.code,
            Self::Unreachable { .. } | Self::Unavailable { .. } => Code::Unavailable,
            Self::TimedOut { .. } => Code::DeadlineExceeded,
            Self::Identity { .. } => Code::Unauthenticated,
            Self::Settings { .. } => Code::InvalidArgument,
        }
    }

    /// The machine's word for the reason; never empty for what this crate found itself.
    pub fn reason(&self) -> &str {
        match self {
            Self::Refused(answer) | Self::Unavailable { answer, .. } => &answer.reason,
            Self::Unreachable { .. } => "UNREACHABLE",
            Self::TimedOut { .. } => "TIMEOUT",
            Self::Identity { .. } => "IDENTITY",
            Self::Settings { .. } => "SETTINGS",
        }
    }

    /// The way out; may be empty.
    pub fn hint(&self) -> &str {
        match self {
            Self::Refused(answer) | Self::Unavailable { answer, .. } => &answer.hint,
            Self::Unreachable { .. } => "check the endpoint, and that a coordinator runs there",
            Self::TimedOut { .. } => "raise `--timeout`; a write may be repeated safely under the same request id",
            Self::Identity { .. } => "use a certificate of this grid's own authority that has not expired",
            Self::Settings { .. } => "",
        }
    }

    /// The field at fault; may be empty.
    pub fn field(&self) -> &str {
        match self {
            Self::Refused(answer) => &answer.field,
            Self::Settings { field, .. } => field,
            _ => "",
        }
    }

    /// The id of the request that failed; empty for reads.
    pub fn request_id(&self) -> &str {
        match self {
            Self::Refused(answer) | Self::Unavailable { answer, .. } => &answer.request_id,
            Self::Unreachable { request_id, .. } | Self::TimedOut { request_id, .. } => request_id,
            Self::Identity { .. } | Self::Settings { .. } => "",
        }
    }
}

/// A duration as people say it.
fn seconds(duration: &Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 10.0 && duration.subsec_millis() != 0 { format!("{seconds:.1} s") } else { format!("{seconds:.0} s") }
}

/// What one try came to, short of success.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The connection failed: nobody said anything.
    Transport(String),
    /// The certificates don't go together.
    Identity(String),
    /// A coordinator was connected, and said nothing in time.
    Silence,
    /// A coordinator answered that another time, or another coordinator, may do.
    Passing(Box<Answer>),
    /// A coordinator answered, and asking again would change nothing.
    Final(Box<Answer>),
}

/// Longest that a full grid may ask for before a caller is told instead.
const PATIENCE_WHEN_FULL: Duration = Duration::from_secs(1);

impl Trouble {
    /// Sorts a status by who made it: the transport on this side, or a coordinator.
    pub(crate) fn from_status(status: &Status, request_id: &str) -> Self {
        // A status of a coordinator came as a trailer and has no source. The generated code makes one without a
        // source, too, when its channel can't be used.
        let not_ready = status.code() == Code::Unknown && status.message().starts_with("Service was not ready");
        if let Some(source) = std::error::Error::source(status) {
            return Self::from_transport(source);
        }
        if not_ready {
            return Self::Transport("the connection was lost".to_owned());
        }
        let answer = Box::new(Answer::from_status(status, request_id));
        let briefly_full = answer.retry_after.is_some_and(|after| after <= PATIENCE_WHEN_FULL);
        match status.code() {
            Code::Unavailable | Code::Aborted | Code::DeadlineExceeded => Self::Passing(answer),
            Code::ResourceExhausted if briefly_full => Self::Passing(answer),
            _ => Self::Final(answer),
        }
    }

    /// Sorts a failure of the transport: certificates don't get better by waiting.
    pub(crate) fn from_transport(error: &(dyn std::error::Error + 'static)) -> Self {
        let mut deepest = error;
        let mut next = Some(error);
        while let Some(current) = next {
            let inner = current.downcast_ref::<std::io::Error>().and_then(|io| io.get_ref());
            let tls = inner.and_then(|inner| inner.downcast_ref::<Tls>()).or(current.downcast_ref::<Tls>());
            // The HTTP/2 library keeps an alert as text alone.
            let told = || alert_in(&current.to_string()).map(Tls::AlertReceived);
            if let Some(problem) = tls.cloned().or_else(told).as_ref().and_then(identity_problem) {
                return Self::Identity(problem);
            }
            deepest = current;
            next = current.source();
        }
        Self::Transport(deepest.to_string())
    }
}

/// The alert that a message tells of, in the words of rustls.
fn alert_in(text: &str) -> Option<Alert> {
    let (_, name) = text.rsplit_once("received fatal alert: ")?;
    [
        Alert::CertificateExpired,
        Alert::UnknownCA,
        Alert::DecryptError,
        Alert::CertificateRequired,
        Alert::NoCertificate,
        Alert::BadCertificate,
        Alert::UnsupportedCertificate,
        Alert::CertificateRevoked,
        Alert::CertificateUnknown,
        Alert::AccessDenied,
    ]
    .into_iter()
    .find(|alert| format!("{alert:?}") == name)
}

/// What a TLS failure says about the certificates, if it is about them.
fn identity_problem(error: &Tls) -> Option<String> {
    match error {
        Tls::InvalidCertificate(why) => {
            Some(format!("the coordinator's certificate is not accepted by this CA: {why:?}"))
        }
        Tls::AlertReceived(Alert::CertificateExpired) => Some("the client certificate has expired".to_owned()),
        Tls::AlertReceived(Alert::UnknownCA | Alert::DecryptError) => {
            Some("the client certificate was not signed by this grid's CA".to_owned())
        }
        Tls::AlertReceived(Alert::CertificateRequired | Alert::NoCertificate) => {
            Some("the coordinator asks for a client certificate".to_owned())
        }
        Tls::AlertReceived(
            alert @ (Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateUnknown
            | Alert::AccessDenied),
        ) => Some(format!("the coordinator refused the client certificate: {alert:?}")),
        _ => None,
    }
}
