//! Inputs into a task's directory.

use std::path::Path;

use futures::{StreamExt, TryStreamExt, stream};

use super::{MAX_REQUESTS, ResolvedInput, Stage, StageFailure, object::ObjectUrl, place};

/// Objects below one prefix; more are refused.
const MAX_OBJECTS: usize = 100_000;

impl Stage {
    /// Fetches all inputs, side by side. They are there, whole and checked, when it returns; read-only, since
    /// their bytes may be shared with the cache.
    pub async fn stage_in(&self, directory: &Path, inputs: &[ResolvedInput]) -> Result<(), StageFailure> {
        let objects: Vec<Vec<Wanted>> = stream::iter(inputs.iter().cloned())
            .map(|input| self.expand(input))
            .buffered(MAX_REQUESTS)
            .try_collect()
            .await?;
        stream::iter(objects.into_iter().flatten())
            .map(|wanted| self.bring(directory, wanted))
            .buffer_unordered(MAX_REQUESTS)
            .try_collect()
            .await
    }

    /// The objects of an input: one, or those below a prefix.
    async fn expand(&self, input: ResolvedInput) -> Result<Vec<Wanted>, StageFailure> {
        let url = ObjectUrl::parse(&input.source)?;
        if !input.source.ends_with('/') {
            return Ok(vec![Wanted::new(url, input.path, input.etag)?]);
        }
        let mut pages = self.client().list_objects_v2().bucket(&url.bucket).prefix(&url.key).into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| StageFailure::of_request(&input.source, &error))?;
            let keys = page.contents().iter().filter_map(|object| object.key());
            // What ends in a slash is a mark that stands for a folder.
            for key in keys.filter(|key| !key.ends_with('/')) {
                let below = key.strip_prefix(&url.key).unwrap_or(key);
                let object = ObjectUrl { bucket: url.bucket.clone(), key: key.to_owned() };
                found.push(Wanted::new(object, format!("{}/{below}", input.path), None)?);
            }
            if found.len() > MAX_OBJECTS {
                let what = format!("more than {MAX_OBJECTS} objects; use a longer prefix");
                return Err(StageFailure::permanent(&input.source, what));
            }
        }
        if found.is_empty() {
            return Err(StageFailure::permanent(&input.source, "no such key: nothing has this prefix"));
        }
        Ok(found)
    }

    async fn bring(&self, directory: &Path, wanted: Wanted) -> Result<(), StageFailure> {
        let Wanted { object, path, etag } = wanted;
        let url = object.to_string();
        let (claim, cached) = self.fetch(&object, etag.as_deref()).await?;
        let (directory, target) = (directory.to_owned(), path.clone());
        // The claim is held so long: nobody evicts what is being placed.
        let placed = tokio::task::spawn_blocking(move || place::place(&cached, &directory, &target)).await;
        drop(claim);
        match placed {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) if is_about_the_path(&error) => {
                Err(StageFailure::permanent(&url, format!("cannot be put at `{path}`: {error}")))
            }
            Ok(Err(error)) => Err(StageFailure::of_disk(&url, &error)),
            Err(stopped) => Err(StageFailure::transient(&url, stopped)),
        }
    }
}

struct Wanted {
    object: ObjectUrl,
    path: String,
    etag: Option<String>,
}

impl Wanted {
    fn new(object: ObjectUrl, path: String, etag: Option<String>) -> Result<Wanted, StageFailure> {
        if place::parts(&path).is_none() {
            let what = format!("cannot be put at `{path}`: a path must be relative and without `..`");
            return Err(StageFailure::permanent(&object.to_string(), what));
        }
        Ok(Wanted { object, path, etag })
    }
}

/// A link in the way, a folder where a file should be, a name that is too long: the same anywhere.
fn is_about_the_path(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{InvalidFilename, InvalidInput, IsADirectory, NotADirectory};
    matches!(error.kind(), NotADirectory | IsADirectory | InvalidInput | InvalidFilename)
        || error.raw_os_error() == Some(libc::ELOOP)
}
