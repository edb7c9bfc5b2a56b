//! Every bound of the rules, in one place: each is checked before a command is proposed and when it is applied.

use proto::ranges;

/// Jobs in one submit.
pub const JOBS_IN_A_SUBMIT: usize = 10_000;
/// Jobs in the state, ended ones that have not moved to the history included.
pub const JOBS: u64 = 20_000_000;
/// Tasks of one job.
pub const TASKS_IN_A_JOB: u64 = ranges::MAX_ARRAY_TASKS;
/// Tasks that have not ended, of all jobs.
pub const UNENDED_TASKS: u64 = 400_000_000;
/// Bytes of one encoded spec. An entry holds 1 MiB, and other commands wait with it.
pub const SPEC_BYTES: usize = 512 << 10;
/// Bytes of all specs together, 8 GiB.
pub const SPECS_BYTES: u64 = 8 << 30;
/// Bytes of names: of jobs, owners, queues, workers, pools.
pub const NAME_BYTES: usize = 256;
/// Labels of one job or worker.
pub const LABELS: usize = 64;
/// Bytes of one label's name or value.
pub const LABEL_BYTES: usize = 256;
/// Bytes of a request id.
pub const REQUEST_ID_BYTES: usize = 256;
/// Request ids that are kept (interfaces, section 2).
pub const REQUEST_IDS: usize = 16_000_000;
/// How long a request id is kept, in milliseconds of log time: 24 h.
pub const REQUEST_ID_MS: u64 = 24 * 3_600_000;
/// Streams of submits that are kept; each for as long as a request id from when it was last used.
pub const STREAMS: usize = 10_000;
/// Jobs of a stream in one command.
pub const JOBS_IN_A_MESSAGE: usize = 1_000;
/// Jobs of one stream that may be decided before its client says that it has the answers...
pub const STREAM_UNANSWERED: u64 = 8_192;
/// ...and refusals among them.
pub const STREAM_REFUSALS: usize = 256;
/// Jobs that one job may wait for.
pub const DEPENDENCIES: usize = 1_000;
/// Blobs that one job may refer to: 1 GiB of rows.
pub const BLOBS_OF_A_JOB: usize = 4_096;
/// Bytes of one blob.
pub const BLOB_BYTES: usize = 256 << 10;
/// Bytes of all blobs together, 2 GiB.
pub const BLOBS_BYTES: u64 = 2 << 30;
/// How long a blob is kept that no job refers to, in milliseconds of log time.
pub const UNUSED_BLOB_MS: u64 = 3_600_000;
/// Lowest and highest priority.
pub const PRIORITY: std::ops::RangeInclusive<i32> = -1_000..=1_000;
/// Highest number of retries that may be asked for.
pub const RETRIES: u32 = 10_000;
/// Attempts of a task that the infrastructure may lose before the task fails (interfaces, section 2).
pub const INFRASTRUCTURE_ATTEMPTS: u16 = 10;
/// Rules of retry of one job.
pub const RETRY_RULES: usize = 16;
/// Exit codes that one rule or one dependency names.
pub const EXIT_CODES: usize = 64;
/// By how much memory may grow from one attempt to the next, in thousandths.
pub const MEMORY_FACTOR_MILLI: std::ops::RangeInclusive<u32> = 1_001..=100_000;
/// Other resources that one job may ask for instead.
pub const ALTERNATIVES: usize = 7;
/// Constraints of one job.
pub const CONSTRAINTS: usize = 32;
/// Values that one constraint names.
pub const CONSTRAINT_VALUES: usize = 64;
/// Different licenses that a task needs, and how many of one.
pub const LICENSES_OF_A_JOB: usize = 16;
/// Licenses of the grid, by name.
pub const LICENSES: usize = 1_000;
/// How many of a license there may be.
pub const LICENSE_TOTAL: u64 = 1_000_000_000;
/// Queues.
pub const QUEUES: usize = 1_000;
/// Bytes of a queue's or a license's name.
pub const QUEUE_NAME_BYTES: usize = 128;
/// Lowest and highest weight of a queue.
pub const WEIGHT: std::ops::RangeInclusive<u32> = 1..=10_000;
/// Use of the grid counts half after so long, when nothing else was said: 10 minutes.
pub const HALF_LIFE_MS: u64 = 600_000;
/// The longest half-life that may be asked for: 365 days.
pub const LONGEST_HALF_LIFE_MS: u64 = 365 * 86_400_000;
/// A time limit that may be asked for: a thousand years.
pub const TIME_LIMIT_MS: u64 = 31_556_952_000_000;
/// Jobs, different ones, that must fail on a worker in a row before it is quarantined.
pub const QUARANTINE_JOBS: usize = 10;
/// Within how much log time they must fail: 5 minutes.
pub const QUARANTINE_MS: u64 = 300_000;
/// Shortest wait before a retry when none is asked for.
pub const MIN_BACKOFF_MS: u64 = 1_000;
/// Longest wait before a retry when none is asked for.
pub const MAX_BACKOFF_MS: u64 = 300_000;
/// Longest wait before a retry that may be asked for: one day.
pub const BACKOFF_MS: u64 = 86_400_000;
/// Thousandths of a cpu that one task may ask for: a million cpus.
pub const CPU_MILLI: u64 = 1_000_000_000;
/// Memory that one task may ask for, or a worker have: 4096 TiB.
pub const MEMORY_MIB: u64 = 4_096 << 20;
/// Scratch that one task may ask for, or a worker have: 4096 TiB.
pub const SCRATCH_GIB: u64 = 4_096 << 10;
/// Gpus that one task may ask for, or a worker have.
pub const GPUS: u32 = 1_000_000;
/// Sessions that live at once.
pub const SESSIONS: usize = 20_000;
/// Tasks in one entry's grants.
pub const GRANTS_IN_AN_ENTRY: usize = 4_096;
/// Tasks that a session may hold ahead of need.
pub const AHEAD: usize = 256;
/// Ends with outputs that are not published yet; above it nothing more with outputs is granted.
pub const UNPUBLISHED: usize = 20_000;
/// Bytes of a manifest in an end; larger ones lie on S3 and are named by their hash.
pub const MANIFEST_BYTES: usize = 8 << 10;
/// Bytes of the line that a worker says about an end; more is cut off.
pub const DETAIL_BYTES: usize = 256;
/// Bytes of all such lines of one job; later ones are dropped.
pub const DETAILS_BYTES: u32 = 256 << 10;
/// Bytes of a reason that a person gives for a cancel or a drain; more is cut off.
pub const REASON_BYTES: usize = 1_024;
/// Earlier attempts of one task whose facts are kept.
pub const ATTEMPTS: u32 = 32;
/// Groups of failures of one job; later kinds are counted together with the last.
pub const FAILURE_GROUPS: usize = 64;
/// Indexes that are kept for each group of failures.
pub const FAILURE_INDEXES: usize = 10;
/// How long ended jobs stay in the state when nothing else was said: 7 days.
pub const KEEP_MS: u64 = 7 * 86_400_000;
/// The longest they may be asked to stay: 10 years.
pub const LONGEST_KEEP_MS: u64 = 3_652 * 86_400_000;
/// How many ended jobs stay at most when nothing else was said.
pub const KEEP_JOBS: u64 = 1_000_000;
/// Bytes of a segment of the history, about: it ends with the record, or the chunk of tasks, that reaches them.
pub const SEGMENT_BYTES: usize = 512 << 10;
/// Jobs in a segment.
pub const SEGMENT_JOBS: usize = 4_096;
/// Segments that a majority does not hold yet.
pub const UNSETTLED_SEGMENTS: u32 = 64;
/// Digests of marked indexes that are kept.
pub const MARKS: usize = 16;
/// Jobs, or tasks, that one page of a list looks at before it ends, whether it is full or not.
pub const LIST_SCAN: usize = 20_000;
