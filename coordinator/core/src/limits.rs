//! Every bound of a coordinator's soft state, in one place. What bounds the replicated state is in
//! `scheduler::limits`.

/// Entries proposed and not yet applied. More would only make each smaller: what waits joins the next one.
pub const FLYING_ENTRIES: usize = 8;

/// The same while what waits would make a small entry: one is written and sent while another one is decided, and what
/// comes meanwhile shares the next. An entry costs three disks a sync and three members a dozen messages, however
/// little is in it: with eight on their way 64 callers had 2.6 submits in each, and half a millisecond of cpu for it.
pub const FLYING_SMALL_ENTRIES: usize = 2;

/// Bytes that wait from which on an entry isn't small.
pub const LARGE_ENTRY_BYTES: usize = 256 << 10;

/// Bytes of commands in one entry, below [`proto::entry::MAX_BYTES`] by what the entry itself needs.
pub const ENTRY_BYTES: usize = proto::entry::MAX_BYTES - 64;

/// Bytes of commands that wait for an entry. Above it submits are refused; reports of workers never are.
pub const WAITING_BYTES: usize = 64 << 20;

/// Bytes of one encoded command; what a client could send that is larger is refused with the field's name.
pub const COMMAND_BYTES: usize = ENTRY_BYTES;

/// Encoded bytes of one job's spec, its script included.
pub const SPEC_BYTES: usize = 256 << 10;

/// Jobs in one message of a stream.
pub const JOBS_PER_MESSAGE: usize = 1_000;

/// Bytes of jobs that a stream puts into one command: several fit into an entry.
pub const STREAM_COMMAND_BYTES: usize = 128 << 10;

/// Bytes of one blob.
pub const BLOB_BYTES: usize = 256 << 10;

/// Jobs in one atomic submit.
pub const JOBS_PER_SUBMIT: usize = 10_000;

/// Bytes of all jobs of one submit; above [`PART_BYTES`] they go ahead of it in parts.
pub const SUBMIT_BYTES: usize = 16 << 20;

/// Bytes of encoded jobs in one part.
pub const PART_BYTES: usize = 240 << 10;

/// Jobs in one watch.
pub const WATCHED_JOBS: usize = 1_000;

/// Labels of one watch.
pub const WATCHED_LABELS: usize = 16;

/// How long news of a watch may wait for others, milliseconds.
pub const WATCH_PATIENCE_MS: u64 = 10_000;

/// Tasks that change at once, of which each is looked at for an end; of more it is taken for granted.
pub const PATIENT_TASKS: usize = 64;

/// Messages of one watch or log that its caller has not taken yet; then it waits, and later changes are joined.
pub const UNTAKEN_MESSAGES: u32 = 16;

/// Bytes of one answer: what a task wrote, told with its end.
pub const ANSWER_BYTES: usize = 64 << 10;

/// Bytes of all answers that the leader holds.
pub const ANSWERS_BYTES: usize = 64 << 20;

/// Bytes of answers in one message of a watch; the ends of the others are told without.
pub const TOLD_ANSWERS_BYTES: usize = 2 << 20;

/// Calls that are open at one time, relayed ones included.
pub const OPEN_CALLS: usize = 100_000;

/// Calls, and first messages of workers, that wait for a new leader to apply the first entry of its term.
pub const PARKED_CALLS: usize = 40_000;

/// Changed jobs and runs of tasks that are kept for watches which come back with a token.
pub const RECENT_CHANGES: usize = 200_000;

/// Specs that the leader takes a worker's connection to remember: the newest ones sent. A worker keeps at least four
/// times as many.
pub const SPECS_PER_CONNECTION: usize = 256;

/// Decoded specs and split blobs kept for rendering grants.
pub const CACHED_SPECS: usize = 1_024;

/// Steps of one plan (see `scheduler::plan`).
pub const PLAN_STEPS: usize = 20_000;

/// Commands in an entry that brings jobs and their starts together, jobs that have not ended besides, and steps of its
/// plan: an idle grid has nothing better to do, a busy one has.
pub const IDLE_COMMANDS: usize = 4;
pub const IDLE_JOBS: u64 = 1_000;
pub const IDLE_PLAN_STEPS: usize = 2_000;

/// Bytes of one piece of a log.
pub const LOG_PIECE_BYTES: u32 = 64 << 10;

/// Jobs or tasks on one page.
pub const PAGE_SIZE: usize = 1_000;

/// Jobs on one page when the request doesn't say.
pub const DEFAULT_PAGE_SIZE: usize = 50;

/// Milliseconds between two rounds that confirm leadership for renewals.
pub const RENEWAL_ROUND_MS: u64 = 100;

/// Milliseconds that the leader waits before it repeats what was dropped: while leadership is handed over everything
/// is, at once.
pub const DROPPED_PAUSE_MS: u64 = 50;

/// Milliseconds between two marks at which the digests of events are compared.
pub const MARK_MS: u64 = 1_000;

/// Milliseconds, at least, between two marks at which the digests of whole states are compared; a fifth of it when a
/// member has begun anew.
pub const WHOLE_MARK_MS: u64 = 10_000;

/// So many times as long as the last computation of a whole state's digest took, the next one waits.
pub const DIGEST_PAUSE: u64 = 20;

/// Marks whose digests are kept and told.
pub const COMPARED_MARKS: usize = 16;

/// Milliseconds after which a member says again how it stands.
pub const REPORT_MS: u64 = 1_000;

/// Segments of the history that are read for one page of jobs.
pub const SEGMENTS_PER_PAGE: usize = 8;

/// Segments that are cut before a majority has them.
pub const UNSETTLED_SEGMENTS: u32 = 8;

/// Milliseconds that a follower's reads wait for its state to get as far as the leader said; then the leader is to answer.
pub const FOLLOWER_WAIT_MS: u64 = 200;

/// Milliseconds until a round that was not confirmed is begun anew.
pub const READ_ROUND_MS: u64 = 1_000;
