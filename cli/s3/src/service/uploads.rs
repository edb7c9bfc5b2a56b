use s3s::dto::*;
use s3s::{S3Error, S3ErrorCode, S3Request, S3Result};

use super::{
    Endpoint,
    body::{self, Expected},
    buckets::url_encode,
    objects::{condition, without_chunking},
};
use crate::{
    digest::Checksums,
    store::{Completion, Error, Headers, Key, Upload},
};

/// Numbers of parts go up to this one, as on S3.
const MAX_PART: i32 = 10_000;
/// A page of parts or uploads has at most this many, as on S3.
const MAX_PAGE: i32 = 1000;

impl Endpoint {
    pub(super) async fn create_upload(
        &self,
        input: CreateMultipartUploadInput,
    ) -> S3Result<CreateMultipartUploadOutput> {
        let key = Key::parse(&input.key).map_err(Error::from)?;
        let upload = Upload {
            id: String::new(),
            initiated_ms: 0,
            bucket: input.bucket.clone(),
            key: key.as_str().to_owned(),
            headers: Headers {
                content_type: input.content_type,
                content_encoding: without_chunking(input.content_encoding),
                content_disposition: input.content_disposition,
                content_language: input.content_language,
                cache_control: input.cache_control,
                metadata: input.metadata.unwrap_or_default().into_iter().collect(),
            },
            checksum_algorithm: input.checksum_algorithm.as_ref().map(|one| one.as_str().to_owned()),
            checksum_type: input.checksum_type.as_ref().map(|one| one.as_str().to_owned()),
        };
        let id = self.run(move |store| store.create_upload(upload)).await?;
        Ok(CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(id),
            checksum_algorithm: input.checksum_algorithm,
            checksum_type: input.checksum_type,
            ..Default::default()
        })
    }

    pub(super) async fn upload_part(&self, mut request: S3Request<UploadPartInput>) -> S3Result<UploadPartOutput> {
        let number = request.input.part_number;
        if !(1..=MAX_PART).contains(&number) {
            return Err(S3Error::with_message(S3ErrorCode::InvalidArgument, "part numbers are 1 to 10000"));
        }
        let body = request.input.body.take();
        let input = &request.input;
        let (bucket, key, id) = (input.bucket.clone(), input.key.clone(), input.upload_id.clone());
        let upload = self.run(move |store| store.upload(&bucket, &key, &id)).await?;
        let checksums = Checksums {
            crc32: input.checksum_crc32.clone(),
            crc32c: input.checksum_crc32c.clone(),
            crc64nvme: input.checksum_crc64nvme.clone(),
            sha1: input.checksum_sha1.clone(),
            sha256: input.checksum_sha256.clone(),
        };
        let algorithm = input.checksum_algorithm.as_ref().map(|algorithm| algorithm.as_str().to_owned());
        let mut expected = Expected::new(&request, input.content_md5.clone(), checksums, algorithm);
        let always = upload.checksum_algorithm.clone();
        let spool = body::receive(&self.store, body, &mut expected, always.as_deref()).await?;
        let part =
            self.run(move |store| store.put_part(&upload, number, spool, |digests| expected.verify(digests))).await?;
        Ok(UploadPartOutput {
            e_tag: Some(ETag::Strong(part.etag)),
            checksum_crc32: part.checksums.crc32,
            checksum_crc32c: part.checksums.crc32c,
            checksum_crc64nvme: part.checksums.crc64nvme,
            checksum_sha1: part.checksums.sha1,
            checksum_sha256: part.checksums.sha256,
            ..Default::default()
        })
    }

    pub(super) async fn complete_upload(
        &self,
        input: CompleteMultipartUploadInput,
    ) -> S3Result<CompleteMultipartUploadOutput> {
        let key = Key::parse(&input.key).map_err(Error::from)?;
        let mut parts = Vec::new();
        for part in input.multipart_upload.and_then(|list| list.parts).unwrap_or_default() {
            let (Some(number), Some(etag)) = (part.part_number, part.e_tag) else {
                return Err(S3Error::with_message(S3ErrorCode::MalformedXML, "a part lacks its number or its ETag"));
            };
            let checksums = Checksums {
                crc32: part.checksum_crc32,
                crc32c: part.checksum_crc32c,
                crc64nvme: part.checksum_crc64nvme,
                sha1: part.checksum_sha1,
                sha256: part.checksum_sha256,
            };
            parts.push((number, etag.into_value(), checksums));
        }
        let completion = Completion {
            parts,
            expected: Checksums {
                crc32: input.checksum_crc32,
                crc32c: input.checksum_crc32c,
                crc64nvme: input.checksum_crc64nvme,
                sha1: input.checksum_sha1,
                sha256: input.checksum_sha256,
            },
            size: input.mpu_object_size.and_then(|size| u64::try_from(size).ok()),
            condition: condition(input.if_match, input.if_none_match)?,
        };
        let (bucket, id) = (input.bucket.clone(), input.upload_id);
        let completed = self.run(move |store| store.complete(&bucket, &key, &id, &completion)).await?;
        let kind = if completed.composite { ChecksumType::COMPOSITE } else { ChecksumType::FULL_OBJECT };
        Ok(CompleteMultipartUploadOutput {
            location: Some(format!("/{}/{}", input.bucket, url_encode(&input.key))),
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag: Some(ETag::Strong(completed.etag)),
            checksum_type: (!completed.checksums.is_empty()).then(|| ChecksumType::from_static(kind)),
            checksum_crc32: completed.checksums.crc32,
            checksum_crc32c: completed.checksums.crc32c,
            checksum_crc64nvme: completed.checksums.crc64nvme,
            checksum_sha1: completed.checksums.sha1,
            checksum_sha256: completed.checksums.sha256,
            ..Default::default()
        })
    }

    pub(super) async fn list_parts(&self, input: ListPartsInput) -> S3Result<ListPartsOutput> {
        let limit = input.max_parts.unwrap_or(MAX_PAGE).clamp(0, MAX_PAGE);
        let after = input.part_number_marker.unwrap_or(0);
        let (bucket, key, id) = (input.bucket.clone(), input.key.clone(), input.upload_id.clone());
        let (upload, parts) = self
            .run(move |store| {
                let upload = store.upload(&bucket, &key, &id)?;
                let parts = store.parts(&upload)?;
                Ok((upload, parts))
            })
            .await?;
        let behind: Vec<_> = parts.into_iter().filter(|part| part.number > after).collect();
        let truncated = limit > 0 && behind.len() > limit as usize;
        let parts: Vec<Part> = behind.into_iter().take(limit as usize).map(shown_part).collect();
        Ok(ListPartsOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(input.upload_id),
            max_parts: Some(limit),
            part_number_marker: Some(after),
            next_part_number_marker: parts.last().and_then(|part| part.part_number),
            is_truncated: Some(truncated),
            parts: Some(parts),
            checksum_algorithm: upload.checksum_algorithm.map(ChecksumAlgorithm::from),
            checksum_type: upload.checksum_type.map(ChecksumType::from),
            storage_class: Some(StorageClass::from_static(StorageClass::STANDARD)),
            ..Default::default()
        })
    }

    /// Pages are cut behind (key, upload); a delimiter is not supported.
    pub(super) async fn list_uploads(&self, input: ListMultipartUploadsInput) -> S3Result<ListMultipartUploadsOutput> {
        if input.delimiter.as_ref().is_some_and(|delimiter| !delimiter.is_empty()) {
            return Err(super::not_implemented("uploads are listed without a delimiter"));
        }
        let limit = input.max_uploads.unwrap_or(MAX_PAGE).clamp(0, MAX_PAGE) as usize;
        let prefix = input.prefix.clone().unwrap_or_default();
        let key_marker = input.key_marker.clone().filter(|marker| !marker.is_empty());
        let id_marker = input.upload_id_marker.clone().filter(|marker| !marker.is_empty());
        let bucket = input.bucket.clone();
        let mut uploads = self.run(move |store| store.uploads(&bucket)).await?;
        if let Some(marker) = key_marker {
            // Of the marker's key, those behind the marked upload follow, and none without one.
            let behind = uploads.iter().position(|one| one.key == marker && Some(&one.id) == id_marker.as_ref());
            let mut index = 0;
            uploads.retain(|one| {
                index += 1;
                one.key > marker || behind.is_some_and(|at| index > at + 1)
            });
        }
        uploads.retain(|upload| upload.key.starts_with(&prefix));
        let truncated = limit > 0 && uploads.len() > limit;
        uploads.truncate(limit);
        let last = uploads.last().filter(|_| truncated);
        let encode = |text: &str| match input.encoding_type.as_ref().map(EncodingType::as_str) {
            Some(EncodingType::URL) => url_encode(text),
            _ => text.to_owned(),
        };
        Ok(ListMultipartUploadsOutput {
            next_key_marker: last.map(|upload| encode(&upload.key)),
            next_upload_id_marker: last.map(|upload| upload.id.clone()),
            uploads: Some(uploads.iter().map(|upload| shown_upload(upload, encode(&upload.key))).collect()),
            bucket: Some(input.bucket),
            prefix: input.prefix,
            key_marker: input.key_marker,
            upload_id_marker: input.upload_id_marker,
            max_uploads: Some(limit as i32),
            is_truncated: Some(truncated),
            encoding_type: input.encoding_type.clone(),
            ..Default::default()
        })
    }
}

fn shown_part(part: crate::store::Part) -> Part {
    Part {
        last_modified: Some(part.modified().into()),
        part_number: Some(part.number),
        size: Some(part.size as i64),
        e_tag: Some(ETag::Strong(part.etag)),
        checksum_crc32: part.checksums.crc32,
        checksum_crc32c: part.checksums.crc32c,
        checksum_crc64nvme: part.checksums.crc64nvme,
        checksum_sha1: part.checksums.sha1,
        checksum_sha256: part.checksums.sha256,
    }
}

fn shown_upload(upload: &Upload, key: String) -> MultipartUpload {
    MultipartUpload {
        initiated: Some(upload.initiated().into()),
        key: Some(key),
        upload_id: Some(upload.id.clone()),
        checksum_algorithm: upload.checksum_algorithm.clone().map(ChecksumAlgorithm::from),
        checksum_type: upload.checksum_type.clone().map(ChecksumType::from),
        storage_class: Some(StorageClass::from_static(StorageClass::STANDARD)),
        ..Default::default()
    }
}
