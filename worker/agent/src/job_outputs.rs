//! Inputs that are outputs of another job: `job:41/PATH`, `job:41.7/PATH`.

use futures::{StreamExt, TryStreamExt, stream};
use proto::v1::{Cause, IndexRange, Input, ListOutputsRequest, OutputObject, job_service_client::JobServiceClient};
use worker_core::Failure;

use crate::{
    connection::Coordinators,
    prepare::staging,
    stage::{ResolvedInput, Stage},
};

/// Manifests that are read from S3 at once.
const MANIFESTS_AT_ONCE: usize = 16;

/// What a source names.
#[derive(Debug, PartialEq, Eq)]
struct Source<'a> {
    job: u64,
    index: Option<u64>,
    /// Ends in a slash, or is empty: a folder.
    path: &'a str,
}

/// Replaces each output of a job by the objects that it is, each pinned to the version that was accepted.
pub async fn resolve(grid: &Coordinators, stage: &Stage, inputs: Vec<Input>) -> Result<Vec<ResolvedInput>, Failure> {
    let mut resolved = Vec::with_capacity(inputs.len());
    for Input { source, path } in inputs {
        match source.strip_prefix("job:") {
            None => resolved.push(ResolvedInput { source, path, etag: None }),
            Some(text) => {
                let wanted = parse(text).ok_or_else(|| missing(&source, "write it as `job:41.7/PATH`"))?;
                let objects = list(grid, stage, &source, &wanted).await?;
                let found = select(&wanted, &path, objects);
                if found.is_empty() {
                    return Err(missing(&source, "the job has published no such output"));
                }
                resolved.extend(found);
            }
        }
    }
    Ok(resolved)
}

fn missing(source: &str, problem: &str) -> Failure {
    Failure { cause: Cause::StageIn, detail: format!("{source}: {problem}"), retryable: false }
}

fn parse(text: &str) -> Option<Source<'_>> {
    let (task, path) = text.split_once('/').unwrap_or((text, ""));
    let (job, index) = match task.split_once('.') {
        Some((job, index)) => (job, Some(index.parse().ok()?)),
        None => (task, None),
    };
    Some(Source { job: job.parse().ok()?, index, path })
}

async fn list(
    grid: &Coordinators,
    stage: &Stage,
    source: &str,
    wanted: &Source<'_>,
) -> Result<Vec<OutputObject>, Failure> {
    let mut objects = Vec::new();
    let mut request = ListOutputsRequest {
        job_id: wanted.job,
        ranges: wanted.index.map(|index| IndexRange { first: index, last: index, step: 1 }).into_iter().collect(),
        page_size: 0,
        page_token: String::new(),
    };
    loop {
        let response = grid.call(|channel| {
            let request = request.clone();
            async move { JobServiceClient::new(channel).list_outputs(request).await }
        });
        let page = response.await.map_err(|status| status.failure(source))?;
        objects.extend(page.objects);
        let stored = stream::iter(page.stored)
            .map(|stored| async move { stage.stored_outputs(&stored).await })
            .buffered(MANIFESTS_AT_ONCE)
            .try_concat();
        objects.extend(stored.await.map_err(|failure| staging(Cause::StageIn, failure))?);
        if page.next_page_token.is_empty() {
            return Ok(objects);
        }
        request.page_token = page.next_page_token;
    }
}

/// The objects that a source means, and where they go: a file to `path` itself; a folder's files below `path`, and
/// those of several tasks each below the task's index.
fn select(wanted: &Source<'_>, path: &str, objects: Vec<OutputObject>) -> Vec<ResolvedInput> {
    let folder = wanted.path.is_empty() || wanted.path.ends_with('/');
    let mut found: Vec<(u64, String, OutputObject)> = Vec::new();
    for object in objects {
        if folder {
            if let Some(below) = object.path.strip_prefix(wanted.path) {
                found.push((object.index, below.to_owned(), object));
            }
        } else if object.path == wanted.path {
            found.push((object.index, String::new(), object));
        }
    }
    let several = found.iter().any(|(index, ..)| *index != found[0].0);
    let base = path.trim_end_matches('/');
    let place = |index: u64, below: &str| {
        let mut place = base.to_owned();
        if several {
            place = format!("{place}/{index}");
        }
        if !below.is_empty() {
            place = format!("{place}/{below}");
        } else if several {
            place = format!("{place}/{}", wanted.path.rsplit('/').next().unwrap_or(wanted.path));
        }
        place.trim_start_matches('/').to_owned()
    };
    found
        .into_iter()
        .map(|(index, below, object)| ResolvedInput {
            path: place(index, &below),
            etag: (!object.etag.is_empty()).then_some(object.etag),
            source: object.url,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str, path: &str, expected: &[(&str, &str)]) {
        let objects = [(0, "a.txt"), (0, "res/b.txt"), (1, "a.txt"), (1, "res/b.txt")]
            .map(|(index, path)| OutputObject {
                index,
                path: path.into(),
                url: format!("s3://b/{index}/{path}"),
                etag: "e".into(),
                ..Default::default()
            })
            .to_vec();
        let wanted = parse(source).expect("a source");
        let chosen = objects.into_iter().filter(|object| wanted.index.is_none_or(|index| index == object.index));
        let found = select(&wanted, path, chosen.collect());
        let found: Vec<_> = found.iter().map(|input| (input.source.as_str(), input.path.as_str())).collect();
        assert_eq!(found, expected, "{source} to {path}");
    }

    #[test]
    fn a_source_is_a_file_or_a_folder_of_one_task_or_of_all() {
        check("41.1/a.txt", "in/x", &[("s3://b/1/a.txt", "in/x")]);
        check("41.1/res/", "in", &[("s3://b/1/res/b.txt", "in/b.txt")]);
        check("41.0", "", &[("s3://b/0/a.txt", "a.txt"), ("s3://b/0/res/b.txt", "res/b.txt")]);
        check("41/a.txt", "in", &[("s3://b/0/a.txt", "in/0/a.txt"), ("s3://b/1/a.txt", "in/1/a.txt")]);
        check("41/res/", "in/", &[("s3://b/0/res/b.txt", "in/0/b.txt"), ("s3://b/1/res/b.txt", "in/1/b.txt")]);
        check("41/nosuch", "in", &[]);
    }

    #[test]
    fn what_is_no_source_is_refused() {
        for text in ["", "x/a", "41.x/a", "41.-1/a"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
