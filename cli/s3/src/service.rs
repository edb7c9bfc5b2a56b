//! The API: requests of `s3s` to calls of the store, on threads that may block.

mod body;
mod buckets;
mod objects;
mod uploads;

use std::sync::Arc;

use s3s::{S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result, dto::*};

use crate::store::{Error, Key, Store, Unusable};

/// The operations that the endpoint has; all others are answered `NotImplemented`.
pub struct Endpoint {
    store: Arc<Store>,
}

impl Endpoint {
    pub fn new(store: Arc<Store>) -> Self {
        Self { store }
    }

    /// Runs a call of the store where it may block.
    async fn run<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Arc<Store>) -> Result<T, Error> + Send + 'static,
    ) -> S3Result<T> {
        let store = Arc::clone(&self.store);
        blocking(move || call(&store)).await
    }
}

async fn blocking<T: Send + 'static>(call: impl FnOnce() -> Result<T, Error> + Send + 'static) -> S3Result<T> {
    match tokio::task::spawn_blocking(call).await {
        Ok(result) => Ok(result?),
        Err(error) => Err(S3Error::internal_error(error)),
    }
}

/// The key of a request that looks for an object: one that can't be stored doesn't exist. One that tries to
/// leave the bucket is told so.
fn existing_key(key: &str) -> Result<Key, Error> {
    Key::parse(key).map_err(|unusable| match unusable {
        Unusable::Dots(_) | Unusable::Zero => Error::Key(unusable),
        Unusable::Slashes(_) | Unusable::Length => Error::NoSuchKey(key.to_owned()),
    })
}

fn not_implemented(what: &'static str) -> S3Error {
    S3Error::with_message(S3ErrorCode::NotImplemented, what)
}

type Answer<T> = S3Result<S3Response<T>>;

fn answer<T>(output: T) -> Answer<T> {
    Ok(S3Response::new(output))
}

#[async_trait::async_trait]
impl S3 for Endpoint {
    async fn list_buckets(&self, _: S3Request<ListBucketsInput>) -> Answer<ListBucketsOutput> {
        answer(self.list_buckets().await?)
    }

    async fn create_bucket(&self, request: S3Request<CreateBucketInput>) -> Answer<CreateBucketOutput> {
        let bucket = request.input.bucket;
        let location = Some(format!("/{bucket}"));
        self.run(move |store| store.create_bucket(&bucket)).await?;
        answer(CreateBucketOutput { location })
    }

    async fn delete_bucket(&self, request: S3Request<DeleteBucketInput>) -> Answer<DeleteBucketOutput> {
        self.run(move |store| store.delete_bucket(&request.input.bucket)).await?;
        answer(DeleteBucketOutput::default())
    }

    async fn head_bucket(&self, request: S3Request<HeadBucketInput>) -> Answer<HeadBucketOutput> {
        self.run(move |store| store.check_bucket(&request.input.bucket)).await?;
        answer(HeadBucketOutput::default())
    }

    async fn get_bucket_location(&self, request: S3Request<GetBucketLocationInput>) -> Answer<GetBucketLocationOutput> {
        self.run(move |store| store.check_bucket(&request.input.bucket)).await?;
        answer(GetBucketLocationOutput::default())
    }

    async fn list_objects(&self, request: S3Request<ListObjectsInput>) -> Answer<ListObjectsOutput> {
        answer(self.list_objects(request.input).await?)
    }

    async fn list_objects_v2(&self, request: S3Request<ListObjectsV2Input>) -> Answer<ListObjectsV2Output> {
        answer(self.list_objects_v2(request.input).await?)
    }

    async fn put_object(&self, request: S3Request<PutObjectInput>) -> Answer<PutObjectOutput> {
        answer(self.put_object(request).await?)
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> Answer<GetObjectOutput> {
        answer(self.get_object(request.input).await?)
    }

    async fn head_object(&self, request: S3Request<HeadObjectInput>) -> Answer<HeadObjectOutput> {
        answer(self.head_object(request.input).await?)
    }

    async fn copy_object(&self, request: S3Request<CopyObjectInput>) -> Answer<CopyObjectOutput> {
        answer(self.copy_object(request.input).await?)
    }

    async fn delete_object(&self, request: S3Request<DeleteObjectInput>) -> Answer<DeleteObjectOutput> {
        answer(self.delete_object(request.input).await?)
    }

    async fn delete_objects(&self, request: S3Request<DeleteObjectsInput>) -> Answer<DeleteObjectsOutput> {
        answer(self.delete_objects(request.input).await?)
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> Answer<CreateMultipartUploadOutput> {
        answer(self.create_upload(request.input).await?)
    }

    async fn upload_part(&self, request: S3Request<UploadPartInput>) -> Answer<UploadPartOutput> {
        answer(self.upload_part(request).await?)
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> Answer<CompleteMultipartUploadOutput> {
        answer(self.complete_upload(request.input).await?)
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> Answer<AbortMultipartUploadOutput> {
        let AbortMultipartUploadInput { bucket, key, upload_id, .. } = request.input;
        self.run(move |store| store.abort(&bucket, &key, &upload_id)).await?;
        answer(AbortMultipartUploadOutput::default())
    }

    async fn list_parts(&self, request: S3Request<ListPartsInput>) -> Answer<ListPartsOutput> {
        answer(self.list_parts(request.input).await?)
    }

    async fn list_multipart_uploads(
        &self,
        request: S3Request<ListMultipartUploadsInput>,
    ) -> Answer<ListMultipartUploadsOutput> {
        answer(self.list_uploads(request.input).await?)
    }
}
