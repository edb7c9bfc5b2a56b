//! What goes wrong with S3, as a task's end tells it.

use std::error::Error;

use aws_sdk_s3::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
};

/// Staging did not do what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct StageFailure {
    /// One line for people; names the key, or the file.
    pub detail: String,
    /// Whether another attempt may fare better: the fault lies with the infrastructure.
    pub retryable: bool,
}

/// What an error of S3 means to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// No such bucket, key or upload.
    Missing,
    Denied,
    /// The object is not the version that was asked for.
    Changed,
    /// Server errors, throttling, timeouts, broken connections.
    Transient,
    /// The request itself is wrong.
    Refused,
}

impl StageFailure {
    /// Trying again can't help.
    pub(super) fn permanent(subject: &str, what: impl std::fmt::Display) -> StageFailure {
        StageFailure { detail: one_line(format!("{subject}: {what}")), retryable: false }
    }

    /// Trying again may help.
    pub(super) fn transient(subject: &str, what: impl std::fmt::Display) -> StageFailure {
        StageFailure { detail: one_line(format!("{subject}: {what}")), retryable: true }
    }

    /// The machine's own disk: another worker may have room.
    pub(super) fn of_disk(subject: &str, error: &std::io::Error) -> StageFailure {
        StageFailure::transient(subject, error)
    }

    pub(super) fn of_request<E>(url: &str, error: &SdkError<E, HttpResponse>) -> StageFailure
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        match trouble(error) {
            Trouble::Missing if error.code() == Some("NoSuchBucket") => StageFailure::permanent(url, "no such bucket"),
            Trouble::Missing => StageFailure::permanent(url, "no such key"),
            Trouble::Denied => StageFailure::permanent(url, "access denied"),
            Trouble::Changed => StageFailure::permanent(url, "the object was replaced since"),
            Trouble::Transient => StageFailure::transient(url, describe(error)),
            Trouble::Refused => StageFailure::permanent(url, describe(error)),
        }
    }
}

/// Sorts an error by what can be done about it.
pub(super) fn trouble<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Trouble {
    let SdkError::ServiceError(answer) = error else {
        let ours = matches!(error, SdkError::ConstructionFailure(_));
        return if ours { Trouble::Refused } else { Trouble::Transient };
    };
    // S3's error codes: docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
    match answer.err().code() {
        Some("SlowDown" | "Throttling" | "ThrottlingException" | "RequestTimeout" | "InternalError") => {
            return Trouble::Transient;
        }
        // Credentials that are renewed in a moment, a clock that is being set.
        Some("ExpiredToken" | "TokenRefreshRequired" | "RequestTimeTooSkewed" | "OperationAborted") => {
            return Trouble::Transient;
        }
        _ => {}
    }
    match answer.raw().status().as_u16() {
        404 => Trouble::Missing,
        401 | 403 => Trouble::Denied,
        412 => Trouble::Changed,
        429 | 500.. => Trouble::Transient,
        // A completion may report its failure in the body of a success.
        200..300 => Trouble::Transient,
        _ => Trouble::Refused,
    }
}

/// What S3 said, or what kept us from hearing it.
pub(super) fn describe<E: ProvideErrorMetadata + Error + 'static>(error: &SdkError<E, HttpResponse>) -> String {
    match (error.code(), error.message()) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code.to_owned(),
        (None, _) => {
            let chain = std::iter::successors(Some(error as &dyn Error), |error| (*error).source());
            chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
        }
    }
}

fn one_line(mut text: String) -> String {
    // The report's own bound is 1 KiB.
    text.truncate(text.floor_char_boundary(900));
    text.replace(|character: char| character.is_control(), " ")
}
