use std::{ops::Range, time::UNIX_EPOCH};

use s3s::dto::{
    CopyObjectInput, CopyObjectOutput, CopyObjectResult, CopySource, DeleteObjectInput, DeleteObjectOutput,
    DeleteObjectsInput, DeleteObjectsOutput, DeletedObject, ETag, ETagCondition, GetObjectInput, GetObjectOutput,
    HeadObjectInput, HeadObjectOutput, MetadataDirective, PutObjectInput, PutObjectOutput, Timestamp,
};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Result, dto};

use super::{
    Endpoint,
    body::{self, Expected},
    existing_key, not_implemented,
};
use crate::{
    digest::Checksums,
    store::{Condition, Error, Headers, Key, Opened, Record},
};

/// What S3 computes of an object for which the caller chose nothing.
const DEFAULT_CHECKSUM: &str = "CRC64NVME";

impl Endpoint {
    pub(super) async fn put_object(&self, mut request: S3Request<PutObjectInput>) -> S3Result<PutObjectOutput> {
        let key = Key::parse(&request.input.key).map_err(Error::from)?;
        let bucket = request.input.bucket.clone();
        self.run({
            let bucket = bucket.clone();
            move |store| store.check_bucket(&bucket)
        })
        .await?;
        let body = request.input.body.take();
        let input = &request.input;
        let checksums = Checksums {
            crc32: input.checksum_crc32.clone(),
            crc32c: input.checksum_crc32c.clone(),
            crc64nvme: input.checksum_crc64nvme.clone(),
            sha1: input.checksum_sha1.clone(),
            sha256: input.checksum_sha256.clone(),
        };
        let algorithm = input.checksum_algorithm.as_ref().map(|algorithm| algorithm.as_str().to_owned());
        let mut expected = Expected::new(&request, input.content_md5.clone(), checksums, algorithm);
        let input = request.input;
        let condition = condition(input.if_match, input.if_none_match)?;
        let headers = Headers {
            content_type: input.content_type,
            content_encoding: without_chunking(input.content_encoding),
            content_disposition: input.content_disposition,
            content_language: input.content_language,
            cache_control: input.cache_control,
            metadata: input.metadata.unwrap_or_default().into_iter().collect(),
        };
        let spool = body::receive(&self.store, body, &mut expected, Some(DEFAULT_CHECKSUM)).await?;
        let record = self
            .run(move |store| store.put(&bucket, &key, spool, headers, &condition, |digests| expected.verify(digests)))
            .await?;
        Ok(PutObjectOutput {
            e_tag: Some(ETag::Strong(record.etag)),
            checksum_crc32: record.checksums.crc32,
            checksum_crc32c: record.checksums.crc32c,
            checksum_crc64nvme: record.checksums.crc64nvme,
            checksum_sha1: record.checksums.sha1,
            checksum_sha256: record.checksums.sha256,
            checksum_type: Some(dto::ChecksumType::from_static(dto::ChecksumType::FULL_OBJECT)),
            ..Default::default()
        })
    }

    pub(super) async fn get_object(&self, input: GetObjectInput) -> S3Result<GetObjectOutput> {
        let Opened { file, record } = self.open(input.bucket, input.key).await?;
        let asked = Asked {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
            if_modified_since: input.if_modified_since,
            if_unmodified_since: input.if_unmodified_since,
        };
        asked.check(&record)?;
        let part = check_part(input.part_number, &record)?;
        let range = check_range(input.range.as_ref(), record.size)?;
        let whole = range.is_none();
        let shown = range.clone().unwrap_or(0..record.size);
        let length = (shown.end - shown.start) as i64;
        let checksums =
            if whole && input.checksum_mode.is_some() { record.checksums.clone() } else { Checksums::default() };
        Ok(GetObjectOutput {
            body: Some(body::send(file, shown)),
            accept_ranges: Some("bytes".into()),
            content_length: Some(length),
            content_range: range.map(|range| content_range(&range, record.size)),
            checksum_type: checksum_type(&record, &checksums),
            checksum_crc32: checksums.crc32,
            checksum_crc32c: checksums.crc32c,
            checksum_crc64nvme: checksums.crc64nvme,
            checksum_sha1: checksums.sha1,
            checksum_sha256: checksums.sha256,
            e_tag: Some(ETag::Strong(record.etag.clone())),
            last_modified: Some(record.modified().into()),
            parts_count: part.then_some(record.parts.max(1) as i32),
            cache_control: input.response_cache_control.or(record.headers.cache_control),
            content_disposition: input.response_content_disposition.or(record.headers.content_disposition),
            content_encoding: input.response_content_encoding.or(record.headers.content_encoding),
            content_language: input.response_content_language.or(record.headers.content_language),
            content_type: input.response_content_type.or(record.headers.content_type).or_else(default_type),
            metadata: Some(record.headers.metadata.into_iter().collect()),
            ..Default::default()
        })
    }

    pub(super) async fn head_object(&self, input: HeadObjectInput) -> S3Result<HeadObjectOutput> {
        let Opened { record, .. } = self.open(input.bucket, input.key).await?;
        let asked = Asked {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
            if_modified_since: input.if_modified_since,
            if_unmodified_since: input.if_unmodified_since,
        };
        asked.check(&record)?;
        let part = check_part(input.part_number, &record)?;
        let range = check_range(input.range.as_ref(), record.size)?;
        let shown = range.clone().unwrap_or(0..record.size);
        let checksums = if range.is_none() && input.checksum_mode.is_some() {
            record.checksums.clone()
        } else {
            Checksums::default()
        };
        Ok(HeadObjectOutput {
            accept_ranges: Some("bytes".into()),
            content_length: Some((shown.end - shown.start) as i64),
            content_range: range.map(|range| content_range(&range, record.size)),
            checksum_type: checksum_type(&record, &checksums),
            checksum_crc32: checksums.crc32,
            checksum_crc32c: checksums.crc32c,
            checksum_crc64nvme: checksums.crc64nvme,
            checksum_sha1: checksums.sha1,
            checksum_sha256: checksums.sha256,
            e_tag: Some(ETag::Strong(record.etag.clone())),
            last_modified: Some(record.modified().into()),
            parts_count: part.then_some(record.parts.max(1) as i32),
            cache_control: record.headers.cache_control,
            content_disposition: record.headers.content_disposition,
            content_encoding: record.headers.content_encoding,
            content_language: record.headers.content_language,
            content_type: record.headers.content_type.or_else(default_type),
            metadata: Some(record.headers.metadata.into_iter().collect()),
            ..Default::default()
        })
    }

    pub(super) async fn copy_object(&self, input: CopyObjectInput) -> S3Result<CopyObjectOutput> {
        let CopySource::Bucket { bucket, key: from, version_id: None } = input.copy_source else {
            return Err(not_implemented("objects are copied from buckets, without versions"));
        };
        let source = self.open(bucket.into(), from.into()).await?;
        let asked = Asked {
            if_match: input.copy_source_if_match,
            if_none_match: input.copy_source_if_none_match,
            if_modified_since: input.copy_source_if_modified_since,
            if_unmodified_since: input.copy_source_if_unmodified_since,
        };
        asked.check(&source.record).map_err(|error| match error {
            Error::NotModified => Error::Precondition,
            error => error,
        })?;
        let replace = input.metadata_directive.is_some_and(|one| one.as_str() == MetadataDirective::REPLACE);
        let headers = if replace {
            Headers {
                content_type: input.content_type,
                content_encoding: input.content_encoding,
                content_disposition: input.content_disposition,
                content_language: input.content_language,
                cache_control: input.cache_control,
                metadata: input.metadata.unwrap_or_default().into_iter().collect(),
            }
        } else {
            source.record.headers.clone()
        };
        let key = Key::parse(&input.key).map_err(Error::from)?;
        let chosen = input.checksum_algorithm.map_or(DEFAULT_CHECKSUM.to_owned(), |one| one.as_str().to_owned());
        let record =
            self.run(move |store| store.copy(source, &input.bucket, &key, headers, |name| name == chosen)).await?;
        let result = CopyObjectResult {
            last_modified: Some(record.modified().into()),
            e_tag: Some(ETag::Strong(record.etag)),
            checksum_crc32: record.checksums.crc32,
            checksum_crc32c: record.checksums.crc32c,
            checksum_crc64nvme: record.checksums.crc64nvme,
            checksum_sha1: record.checksums.sha1,
            checksum_sha256: record.checksums.sha256,
            ..Default::default()
        };
        Ok(CopyObjectOutput { copy_object_result: Some(result), ..Default::default() })
    }

    pub(super) async fn delete_object(&self, input: DeleteObjectInput) -> S3Result<DeleteObjectOutput> {
        if input.if_match.is_some() || input.version_id.is_some() {
            return Err(not_implemented("objects are deleted without conditions or versions"));
        }
        self.run(move |store| match existing_key(&input.key) {
            Err(Error::NoSuchKey(_)) => store.check_bucket(&input.bucket),
            key => store.delete(&input.bucket, &key?),
        })
        .await?;
        Ok(DeleteObjectOutput::default())
    }

    pub(super) async fn delete_objects(&self, input: DeleteObjectsInput) -> S3Result<DeleteObjectsOutput> {
        let quiet = input.delete.quiet.unwrap_or(false);
        let (mut deleted, mut errors) = (Vec::new(), Vec::new());
        for object in input.delete.objects {
            let one = DeleteObjectInput { bucket: input.bucket.clone(), key: object.key.clone(), ..Default::default() };
            match self.delete_object(one).await {
                Ok(_) => deleted.push(DeletedObject { key: Some(object.key), ..Default::default() }),
                // The bucket is missing for all of them.
                Err(error) if *error.code() == S3ErrorCode::NoSuchBucket => return Err(error),
                Err(error) => errors.push(dto::Error {
                    key: Some(object.key),
                    code: Some(error.code().as_str().to_owned()),
                    message: error.message().map(str::to_owned),
                    version_id: None,
                }),
            }
        }
        Ok(DeleteObjectsOutput { deleted: (!quiet).then_some(deleted), errors: Some(errors), ..Default::default() })
    }

    async fn open(&self, bucket: String, key: String) -> S3Result<Opened> {
        self.run(move |store| match existing_key(&key) {
            Ok(key) => store.open_object(&bucket, &key),
            Err(error) => store.check_bucket(&bucket).and(Err(error)),
        })
        .await
    }
}

/// What must hold of an object for a read of it.
struct Asked {
    if_match: Option<ETagCondition>,
    if_none_match: Option<ETagCondition>,
    if_modified_since: Option<Timestamp>,
    if_unmodified_since: Option<Timestamp>,
}

impl Asked {
    /// In the order of RFC 9110, section 13.2.2: an ETag that was asked for overrules a time.
    fn check(&self, record: &Record) -> Result<(), Error> {
        let matches = |condition: &ETagCondition| condition.as_etag().is_none_or(|etag| etag.value() == record.etag);
        // HTTP's times have whole seconds.
        let seconds = record.modified().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let modified = Timestamp::from(UNIX_EPOCH + std::time::Duration::from_secs(seconds));
        let held = match (&self.if_match, &self.if_unmodified_since) {
            (Some(condition), _) => matches(condition),
            (None, Some(time)) => modified <= *time,
            (None, None) => true,
        };
        if !held {
            return Err(Error::Precondition);
        }
        let known = match (&self.if_none_match, &self.if_modified_since) {
            (Some(condition), _) => matches(condition),
            (None, Some(time)) => modified <= *time,
            (None, None) => false,
        };
        if known { Err(Error::NotModified) } else { Ok(()) }
    }
}

/// The condition of a write.
pub fn condition(if_match: Option<ETagCondition>, if_none_match: Option<ETagCondition>) -> S3Result<Condition> {
    if if_none_match.as_ref().is_some_and(|condition| !condition.is_any()) {
        return Err(not_implemented("If-None-Match of a write is `*` or absent"));
    }
    let etag = if_match.map(|condition| condition.into_etag().map_or(String::new(), ETag::into_value));
    Ok(Condition { absent: if_none_match.is_some(), etag })
}

/// `aws-chunked` is how the body travelled, not what it is.
pub fn without_chunking(encoding: Option<String>) -> Option<String> {
    let encoding = encoding?;
    let kept: Vec<&str> =
        encoding.split(',').map(str::trim).filter(|one| !one.is_empty() && *one != "aws-chunked").collect();
    (!kept.is_empty()).then(|| kept.join(","))
}

fn check_range(range: Option<&dto::Range>, size: u64) -> Result<Option<Range<u64>>, Error> {
    range.map(|range| range.check(size).map_err(|_| Error::Range(size))).transpose()
}

/// Objects are read by ranges; by the number of a part only where there is one.
fn check_part(number: Option<i32>, record: &Record) -> S3Result<bool> {
    match number {
        None => Ok(false),
        Some(1) if record.parts <= 1 => Ok(true),
        Some(_) if record.parts > 1 => Err(not_implemented("an object is read by ranges, not by its parts")),
        Some(_) => Err(S3Error::with_message(S3ErrorCode::InvalidArgument, "the object has no part of that number")),
    }
}

fn content_range(range: &Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", range.start, range.end - 1)
}

fn checksum_type(record: &Record, shown: &Checksums) -> Option<dto::ChecksumType> {
    use dto::ChecksumType as Type;
    let kind = if record.composite { Type::COMPOSITE } else { Type::FULL_OBJECT };
    (!shown.is_empty()).then(|| Type::from_static(kind))
}

fn default_type() -> Option<String> {
    Some("binary/octet-stream".to_owned())
}
