use std::io;

use s3s::{S3Error, S3ErrorCode};

use super::key::Unusable;

/// Why the store says no, or what broke.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the bucket doesn't exist")]
    NoSuchBucket,
    #[error("the bucket's name is not one that S3 allows")]
    BucketName,
    #[error("the bucket exists already")]
    BucketExists,
    #[error("the bucket still holds objects")]
    BucketNotEmpty,
    #[error("the key `{0}` doesn't exist")]
    NoSuchKey(String),
    #[error(transparent)]
    Key(#[from] Unusable),
    #[error(
        "the key `{0}` can't be stored: another object's key is a folder of it or the other way round, and this \
         endpoint keeps objects as plain files"
    )]
    Collision(String),
    #[error("the upload doesn't exist: it was aborted, or completed long ago")]
    NoSuchUpload,
    #[error("part {0} wasn't uploaded, or its ETag is another")]
    InvalidPart(i32),
    #[error("the parts are not in ascending order")]
    PartOrder,
    #[error("part {0} is smaller than 5 MiB and not the last")]
    PartTooSmall(i32),
    #[error("the list of parts is empty")]
    NoParts,
    #[error("the {0} of what arrived is another than the one that was said")]
    Digest(&'static str),
    #[error("the object has {actual} bytes, not {said}")]
    Size { said: u64, actual: u64 },
    #[error("a condition of the request doesn't hold")]
    Precondition,
    #[error("the object is what the caller has already")]
    NotModified,
    #[error("the range lies outside the object's {0} bytes")]
    Range(u64),
    #[error("the folder can't be read or written: {0}")]
    Io(#[from] io::Error),
}

impl From<rustix::io::Errno> for Error {
    fn from(error: rustix::io::Errno) -> Self {
        Self::Io(error.into())
    }
}

impl From<Error> for S3Error {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::NoSuchBucket => S3ErrorCode::NoSuchBucket,
            Error::BucketName => S3ErrorCode::InvalidBucketName,
            Error::BucketExists => S3ErrorCode::BucketAlreadyOwnedByYou,
            Error::BucketNotEmpty => S3ErrorCode::BucketNotEmpty,
            Error::NoSuchKey(_) => S3ErrorCode::NoSuchKey,
            Error::Key(_) => S3ErrorCode::InvalidArgument,
            Error::Collision(_) => S3ErrorCode::InvalidRequest,
            Error::NoSuchUpload => S3ErrorCode::NoSuchUpload,
            Error::InvalidPart(_) => S3ErrorCode::InvalidPart,
            Error::PartOrder => S3ErrorCode::InvalidPartOrder,
            Error::PartTooSmall(_) => S3ErrorCode::EntityTooSmall,
            Error::NoParts => S3ErrorCode::MalformedXML,
            Error::Digest(_) => S3ErrorCode::BadDigest,
            Error::Size { .. } => S3ErrorCode::InvalidRequest,
            Error::Precondition => S3ErrorCode::PreconditionFailed,
            Error::NotModified => S3ErrorCode::NotModified,
            Error::Range(_) => S3ErrorCode::InvalidRange,
            Error::Io(source) if source.kind() == io::ErrorKind::PermissionDenied => S3ErrorCode::AccessDenied,
            Error::Io(source) => {
                tracing::error!(error = %source, "the S3 folder failed");
                S3ErrorCode::InternalError
            }
        };
        S3Error::with_message(code, error.to_string())
    }
}
