//! Reading records of jobs, strictly: those of a snapshot and those of the history.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use imbl::OrdMap;
use proto::{
    internal::{state_jobs, state_tasks},
    v1::{Cause, DependencyCondition},
};

use super::{Malformed, fact_from};
use crate::{
    ask::Ask,
    blobs::Hash,
    job::{
        Chunk, Counts, Edge, Extra, Facts, Failures, Group, Indexed, Job, Kill, Lease, Phase, Place, Publication,
        Published, Record, Rule, Runs, Tasks, Terms, Text,
    },
    shape::Shape,
};

/// What many jobs have in common; nothing of it is shared with others yet.
pub(crate) fn read_terms(terms: state_jobs::Terms) -> Result<Terms, Malformed> {
    let first = terms.resources.as_ref().map(Shape::from).ok_or(Malformed("a job without resources"))?;
    let ask = Ask {
        shapes: std::iter::once(first).chain(terms.alternatives.iter().map(Shape::from)).collect(),
        constraints: terms.constraints.iter().map(Into::into).collect(),
        licenses: terms.licenses.into_iter().map(|(name, count)| (name.into(), count)).collect(),
        time_limit_ms: terms.time_limit_ms,
        has_outputs: terms.has_outputs,
    };
    Ok(Terms {
        owner: terms.owner.into(),
        queue: terms.queue.into(),
        ask: Arc::new(ask),
        priority: terms.priority,
        retries: terms.retries,
        max_running: terms.max_running,
        max_failures: terms.max_failures,
        min_backoff_ms: terms.min_backoff_ms,
        max_backoff_ms: terms.max_backoff_ms,
        at_most_once: terms.at_most_once,
        rules: terms.retry_rules.iter().map(Rule::from).collect(),
        queue_time_limit_ms: terms.queue_time_limit_ms,
        total_time_limit_ms: terms.total_time_limit_ms,
        is_array: terms.is_array,
        labels: terms.labels,
    })
}

/// What a task published, with its ordinal.
pub(crate) fn read_published(output: state_tasks::Published) -> Result<(u32, Arc<Published>), Malformed> {
    let manifest = output.manifest.ok_or(Malformed("outputs without a manifest"))?;
    Ok((output.ordinal, Arc::new(Published { attempt: output.attempt, manifest, etags: output.etags })))
}

pub(crate) fn read_job(job: state_jobs::Job, terms: Arc<Terms>) -> Result<Job, Malformed> {
    let counts = job.counts.unwrap_or_default();
    let counts = Counts {
        pending: counts.pending,
        backoff: counts.backoff,
        leased: counts.leased,
        running: counts.running,
        publishing: counts.publishing,
        succeeded: counts.succeeded,
        failed: counts.failed,
        cancelled: counts.cancelled,
        skipped: counts.skipped,
        blocked: counts.blocked,
        grown: counts.grown,
    };
    Ok(Job {
        text: Text::new(&job.name, &job.spec),
        terms,
        tasks: Tasks::restore(counts.total(), place_of(job.rest)?),
        records: OrdMap::new(),
        counts,
        created_ms: job.created_ms,
        started_ms: job.started_ms.into(),
        ended_ms: job.ended_ms.into(),
        highest_attempt: job.highest_attempt,
        runs: Runs { ends: job.ends, run_ms: job.run_ms },
        held: job.held,
        released: job.released,
        extra: job.extra.map(read_extra).transpose()?.map(Box::new),
        indexed: Indexed::default(),
    })
}

fn read_extra(extra: state_jobs::Extra) -> Result<Extra, Malformed> {
    let groups: BTreeMap<_, _> = extra
        .failures
        .into_iter()
        .map(|group| {
            let kind = (group.cause, group.exit_code, group.signal);
            (kind, Group { count: group.count, ordinals: group.ordinals, detail: group.detail.into() })
        })
        .collect();
    Ok(Extra {
        ranges: (!extra.ranges.is_empty()).then(|| extra.ranges.into()),
        after: extra
            .after
            .into_iter()
            .map(|edge| Edge {
                job: edge.job,
                condition: DependencyCondition::try_from(edge.condition).unwrap_or_default(),
                exit_codes: edge.exit_codes.into(),
                met: edge.met,
            })
            .collect(),
        blobs: extra.blobs.iter().map(hash_of).collect::<Result<_, Malformed>>()?,
        reason: extra.reason.map(Into::into),
        failures: Failures { groups },
        outputs: OrdMap::new(),
        details_bytes: extra.details_bytes,
        stopped_ms: extra.stopped_ms,
        stopped_cause: Cause::try_from(extra.stopped_cause).unwrap_or_default(),
        released_ms: extra.released_ms,
        armed: [None; 2],
        fired: [extra.fired_limits & 1 != 0, extra.fired_limits & 2 != 0],
    })
}

pub(crate) fn read_chunk(chunk: state_tasks::Chunk, count: u32) -> Result<Chunk, Malformed> {
    let first = u64::from(chunk.number) * u64::from(crate::job::CHUNK);
    if first >= u64::from(count) {
        return Err(Malformed("a chunk of no tasks"));
    }
    let words: [u64; 12] = chunk.planes.try_into().map_err(|_| Malformed("a chunk has twelve words"))?;
    let [a, b, c, d, e, f, g, h, i, j, k, l] = words;
    let planes = [[a, b, c, d], [e, f, g, h], [i, j, k, l]];
    // There is no code 7.
    if (0..4).any(|word| planes.iter().fold(u64::MAX, |all, plane| all & plane[word]) != 0) {
        return Err(Malformed("an unknown place"));
    }
    if chunk.newest.is_empty() {
        return Ok(Chunk { planes, facts: None });
    }
    let length = (u64::from(count) - first).min(u64::from(crate::job::CHUNK)) as usize;
    let facts = Facts { newest: chunk.newest.into(), entries: chunk.entries.to_vec() };
    if facts.newest.len() != length || !facts.readable() {
        return Err(Malformed("facts that can't be read"));
    }
    Ok(Chunk { planes, facts: Some(Box::new(facts)) })
}

pub(super) fn read_record(record: state_tasks::Record) -> Result<Record, Malformed> {
    use state_tasks::record::Phase as In;
    let small = |count: u32| u16::try_from(count).map_err(|_| Malformed("a count that is too high"));
    let phase = match record.phase {
        None => Phase::Pending,
        Some(In::BackoffUntilMs(until_ms)) => Phase::Backoff { until_ms },
        Some(In::Lease(lease)) => Phase::Leased(Lease {
            session: lease.session,
            granted_index: lease.granted_index,
            granted_wall_ms: lease.granted_wall_ms,
            granted_ms: lease.granted_ms,
            kill: lease
                .kill_index
                .map(|index| Kill { index, cause: Cause::try_from(lease.kill_cause).unwrap_or_default() }),
            start_ms: lease.start_ms,
            ahead: lease.ahead,
            pinned: lease.pinned.as_ref().map(|shape| Box::new(Shape::from(shape))),
        }),
        Some(In::Publication(publication)) => Phase::Publishing(Arc::new(Publication {
            assigned: publication.session.map(|session| (session, publication.assigned_index)),
            fact: fact_from(&publication.fact).ok_or(Malformed("a fact that can't be read"))?,
            manifest: Bytes::copy_from_slice(&publication.manifest),
        })),
    };
    Ok(Record {
        attempt: record.attempt,
        failures: small(record.failures)?,
        lost: small(record.lost)?,
        memory_mib: record.memory_mib,
        phase,
    })
}

pub(super) fn hash_of(bytes: &Bytes) -> Result<Hash, Malformed> {
    Hash::try_from(&bytes[..]).map_err(|_| Malformed("a hash isn't 32 bytes"))
}

fn place_of(code: u32) -> Result<Place, Malformed> {
    if code <= 6 { Ok(Place::from_code(code as u8)) } else { Err(Malformed("an unknown place")) }
}
