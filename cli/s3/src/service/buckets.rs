use s3s::{S3Error, S3ErrorCode, S3Result, dto::*};

use super::Endpoint;
use crate::{
    digest,
    store::{Entry, Listing, Query},
};

/// A page of a listing has at most this many entries, as on S3.
const MAX_KEYS: i32 = 1000;

impl Endpoint {
    pub(super) async fn list_buckets(&self) -> S3Result<ListBucketsOutput> {
        let buckets = self.run(|store| store.buckets()).await?;
        let buckets = buckets.into_iter().map(|(name, created)| Bucket {
            bucket_region: None,
            creation_date: Some(created.into()),
            name: Some(name),
        });
        Ok(ListBucketsOutput { buckets: Some(buckets.collect()), ..Default::default() })
    }

    pub(super) async fn list_objects_v2(&self, input: ListObjectsV2Input) -> S3Result<ListObjectsV2Output> {
        let limit = limit(input.max_keys)?;
        let mut query = Query {
            prefix: input.prefix.clone().unwrap_or_default(),
            delimiter: input.delimiter.clone().filter(|delimiter| !delimiter.is_empty()),
            after: input.start_after.clone(),
            after_prefix: None,
            limit,
        };
        if let Some(token) = &input.continuation_token {
            resume(&mut query, token)?;
        }
        let bucket = input.bucket.clone();
        let listing = self.run(move |store| store.list(&bucket, &query)).await?;
        let key_count = Some(listing.entries.len() as i32);
        let next = listing.entries.last().filter(|_| listing.truncated).map(token_after);
        let truncated = listing.truncated;
        let (contents, prefixes) = page(listing, input.encoding_type.as_ref());
        Ok(ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: Some(input.prefix.unwrap_or_default()),
            max_keys: Some(limit as i32),
            key_count,
            continuation_token: input.continuation_token,
            is_truncated: Some(truncated),
            next_continuation_token: next,
            contents: Some(contents),
            common_prefixes: Some(prefixes),
            delimiter: input.delimiter,
            encoding_type: input.encoding_type,
            start_after: input.start_after,
            ..Default::default()
        })
    }

    pub(super) async fn list_objects(&self, input: ListObjectsInput) -> S3Result<ListObjectsOutput> {
        let limit = limit(input.max_keys)?;
        let delimiter = input.delimiter.clone().filter(|delimiter| !delimiter.is_empty());
        let marker = input.marker.clone().filter(|marker| !marker.is_empty());
        // A marker that is a common prefix of the page before stands for everything below it.
        let is_prefix = |marker: &String| delimiter.as_ref().is_some_and(|end| marker.ends_with(end.as_str()));
        let query = Query {
            prefix: input.prefix.clone().unwrap_or_default(),
            after_prefix: marker.clone().filter(is_prefix),
            after: marker,
            delimiter,
            limit,
        };
        let bucket = input.bucket.clone();
        let listing = self.run(move |store| store.list(&bucket, &query)).await?;
        let next_marker = listing.entries.last().filter(|_| listing.truncated).map(|entry| entry.text().to_owned());
        let truncated = listing.truncated;
        let (contents, prefixes) = page(listing, input.encoding_type.as_ref());
        Ok(ListObjectsOutput {
            name: Some(input.bucket),
            prefix: Some(input.prefix.unwrap_or_default()),
            marker: Some(input.marker.unwrap_or_default()),
            max_keys: Some(limit as i32),
            is_truncated: Some(truncated),
            contents: Some(contents),
            common_prefixes: Some(prefixes),
            delimiter: input.delimiter,
            next_marker,
            encoding_type: input.encoding_type,
            ..Default::default()
        })
    }
}

fn limit(max_keys: Option<i32>) -> S3Result<usize> {
    let limit = max_keys.unwrap_or(MAX_KEYS).min(MAX_KEYS);
    usize::try_from(limit)
        .map_err(|_| S3Error::with_message(S3ErrorCode::InvalidArgument, "max-keys must not be negative"))
}

fn page(listing: Listing, encoding: Option<&EncodingType>) -> (Vec<Object>, Vec<CommonPrefix>) {
    let encode = |text: String| match encoding.map(EncodingType::as_str) {
        Some(EncodingType::URL) => url_encode(&text),
        _ => text,
    };
    let (mut contents, mut prefixes) = (Vec::new(), Vec::new());
    for entry in listing.entries {
        match entry {
            Entry::Prefix(prefix) => prefixes.push(CommonPrefix { prefix: Some(encode(prefix)) }),
            Entry::Object { key, record } => contents.push(Object {
                key: Some(encode(key)),
                e_tag: Some(ETag::Strong(record.etag.clone())),
                last_modified: Some(record.modified().into()),
                size: Some(record.size as i64),
                storage_class: Some(ObjectStorageClass::from_static(ObjectStorageClass::STANDARD)),
                ..Default::default()
            }),
        }
    }
    (contents, prefixes)
}

/// Where the next page begins: `k` and the last key, or `p` and the last common prefix, in hexadecimal.
fn token_after(last: &Entry) -> String {
    let kind = match last {
        Entry::Object { .. } => 'k',
        Entry::Prefix(_) => 'p',
    };
    format!("{kind}{}", digest::hex(last.text().as_bytes()))
}

fn resume(query: &mut Query, token: &str) -> S3Result<()> {
    let refused = || S3Error::with_message(S3ErrorCode::InvalidArgument, "the continuation token is none of ours");
    let text = token.get(1..).and_then(digest::unhex).and_then(|bytes| String::from_utf8(bytes).ok());
    let text = text.ok_or_else(refused)?;
    match token.chars().next() {
        Some('k') => query.after = Some(text),
        Some('p') => (query.after, query.after_prefix) = (Some(text.clone()), Some(text)),
        _ => return Err(refused()),
    }
    Ok(())
}

/// Percent-encodes what XML or a URL can't carry.
pub fn url_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => encoded.push(byte.into()),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}
