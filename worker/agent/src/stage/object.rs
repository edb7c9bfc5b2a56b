//! `s3://bucket/key`.

use std::fmt;

use super::StageFailure;

/// A bucket and a key, or a prefix of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ObjectUrl {
    pub bucket: String,
    /// Empty only for a prefix.
    pub key: String,
}

impl ObjectUrl {
    pub fn parse(url: &str) -> Result<ObjectUrl, StageFailure> {
        let (bucket, key) = url
            .strip_prefix("s3://")
            .and_then(|rest| rest.split_once('/'))
            .filter(|(bucket, _)| !bucket.is_empty())
            .ok_or_else(|| StageFailure::permanent(url, "not an address of the form s3://BUCKET/KEY"))?;
        Ok(ObjectUrl { bucket: bucket.into(), key: key.into() })
    }
}

impl fmt::Display for ObjectUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "s3://{}/{}", self.bucket, self.key)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn an_address_has_a_bucket_and_a_key() {
        let url = ObjectUrl::parse("s3://dev/a/b=c d").unwrap();
        assert_eq!((url.bucket.as_str(), url.key.as_str()), ("dev", "a/b=c d"));
        assert_eq!(url.to_string(), "s3://dev/a/b=c d");
        for wrong in ["dev/a", "s3://dev", "s3:///a", "https://dev/a"] {
            assert!(!ObjectUrl::parse(wrong).unwrap_err().retryable, "{wrong}");
        }
    }
}
