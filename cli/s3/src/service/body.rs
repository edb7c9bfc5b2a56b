//! Bodies as streams: in to a spool, out of an opened file.

use std::{
    io::{self, Read, Seek, SeekFrom},
    ops::Range,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use s3s::{
    S3Error, S3ErrorCode, S3Request, S3Result, StdError, TrailingHeaders,
    dto::StreamingBlob,
    stream::{ByteStream, RemainingLength},
};
use tokio::sync::mpsc;

use super::blocking;
use crate::{
    digest::{self, Checksums, Digester, Digests},
    store::{Error, Spool, Store},
};

/// How much of an object is read at once.
const CHUNK_BYTES: usize = 256 << 10;
/// How many pieces of a body may wait for the disk.
const WAITING: usize = 8;

/// What a caller says about the body it sends, some of it only behind the body.
pub struct Expected {
    pub content_md5: Option<String>,
    pub checksums: Checksums,
    algorithm: Option<String>,
    announced: Vec<String>,
    trailers: Option<TrailingHeaders>,
}

impl Expected {
    pub fn new<T>(
        request: &S3Request<T>,
        content_md5: Option<String>,
        checksums: Checksums,
        algorithm: Option<String>,
    ) -> Self {
        let announced = request.headers.get_all("x-amz-trailer").iter();
        let announced = announced.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
        Self {
            content_md5,
            checksums,
            algorithm,
            announced: announced.filter_map(|name| algorithm_of(name.trim())).collect(),
            trailers: request.trailing_headers.clone(),
        }
    }

    /// Computes what will be compared; without any wish, the algorithm that S3 takes by itself.
    fn digester(&self, always: Option<&str>) -> Digester {
        let said = |name: &str| self.checksums.each().iter().any(|(other, value)| *other == name && value.is_some());
        Digester::new(|name| {
            said(name)
                || self.announced.iter().any(|other| other == name)
                || self.algorithm.as_deref() == Some(name)
                || always == Some(name)
        })
    }

    /// Takes what came behind the body; then everything is known.
    fn take_trailers(&mut self) {
        let Some(headers) = self.trailers.take().and_then(|trailers| trailers.take()) else { return };
        for (name, value) in &headers {
            let Some(algorithm) = algorithm_of(name.as_str()) else { continue };
            if let (Some(slot), Ok(value)) = (self.checksums.slot(&algorithm), value.to_str()) {
                *slot = Some(value.to_owned());
            }
        }
    }

    pub fn verify(&self, digests: &Digests) -> Result<(), Error> {
        if self.content_md5.as_ref().is_some_and(|said| *said != digest::base64(&digests.md5)) {
            return Err(Error::Digest("Content-MD5"));
        }
        match digests.checksums.mismatch(&self.checksums) {
            Some(algorithm) => Err(Error::Digest(algorithm)),
            None => Ok(()),
        }
    }
}

/// The algorithm of a header such as `x-amz-checksum-crc32`, by its name in the API.
fn algorithm_of(header: &str) -> Option<String> {
    let name = header.to_ascii_lowercase();
    name.strip_prefix("x-amz-checksum-").map(str::to_ascii_uppercase)
}

/// Writes a whole body to a spool. A body that breaks off leaves nothing.
pub async fn receive(
    store: &Arc<Store>,
    body: Option<StreamingBlob>,
    expected: &mut Expected,
    always: Option<&str>,
) -> S3Result<Spool> {
    let mut spool = Spool::new(store, expected.digester(always)).map_err(Error::from)?;
    let (sender, mut receiver) = mpsc::channel::<Bytes>(WAITING);
    let writer = blocking(move || {
        while let Some(bytes) = receiver.blocking_recv() {
            spool.write(&bytes)?;
        }
        Ok(spool)
    });
    let feeder = async move {
        let Some(mut body) = body else { return Ok::<(), S3Error>(()) };
        while let Some(bytes) = body.next().await {
            let bytes = bytes.map_err(broken_off)?;
            // The writer failed: it says why.
            if sender.send(bytes).await.is_err() {
                break;
            }
        }
        Ok(())
    };
    let (spool, fed) = tokio::join!(writer, feeder);
    fed?;
    expected.take_trailers();
    spool
}

/// The error of a body stream: the checksum of a signed payload, a bad chunk, or a connection that ended.
fn broken_off(error: StdError) -> S3Error {
    match error.downcast::<S3Error>() {
        Ok(error) => *error,
        Err(error) => {
            let mut refused =
                S3Error::with_message(S3ErrorCode::IncompleteBody, format!("the body broke off: {error}"));
            refused.set_source(error);
            refused
        }
    }
}

/// The bytes of `range`, read as they are asked for.
pub fn send(file: std::fs::File, range: Range<u64>) -> StreamingBlob {
    let remaining = (range.end - range.start) as usize;
    let state = (file, range);
    let stream = futures::stream::try_unfold(state, |(mut file, range)| async move {
        if range.is_empty() {
            return Ok(None);
        }
        let read = tokio::task::spawn_blocking(move || {
            let bytes = read_at(&mut file, &range)?;
            let rest = range.start + bytes.len() as u64..range.end;
            Ok(Some((bytes, (file, rest))))
        });
        read.await.map_err(io::Error::other)?
    });
    StreamingBlob::new(Measured { stream: Box::pin(stream), remaining })
}

fn read_at(file: &mut std::fs::File, range: &Range<u64>) -> io::Result<Bytes> {
    let length = CHUNK_BYTES.min((range.end - range.start) as usize);
    let mut bytes = vec![0; length];
    file.seek(SeekFrom::Start(range.start))?;
    // A file that was cut by hand while it was read can't be sent to its end.
    file.read_exact(&mut bytes)?;
    Ok(bytes.into())
}

type Pieces = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send + Sync>>;

/// A stream that knows how much it still has.
struct Measured {
    stream: Pieces,
    remaining: usize,
}

impl Stream for Measured {
    type Item = Result<Bytes, StdError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.stream.as_mut().poll_next(context);
        if let Poll::Ready(Some(Ok(bytes))) = &polled {
            self.remaining -= bytes.len();
        }
        polled.map_err(StdError::from)
    }
}

impl ByteStream for Measured {
    fn remaining_length(&self) -> RemainingLength {
        RemainingLength::new_exact(self.remaining)
    }
}
