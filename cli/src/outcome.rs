//! What a job's end means for the exit code (interfaces, section 2: the first column of the table).

use proto::v1::{Cause, FailureGroup, Job, JobState, Task, TaskState};

/// How something ended, for the one who waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Everything succeeded.
    Succeeded,
    /// The grid failed, or somebody stopped it: nothing failed by itself.
    Grid,
    /// A task failed by itself, with this exit code.
    Own(u8),
}

/// Whether a job has ended.
pub fn job_ended(job: &Job) -> bool {
    matches!(job.state(), JobState::Succeeded | JobState::Failed | JobState::Cancelled | JobState::Skipped)
}

/// Whether a task has ended.
pub fn task_ended(task: &Task) -> bool {
    matches!(task.state(), TaskState::Succeeded | TaskState::Failed | TaskState::Cancelled | TaskState::Skipped)
}

impl Outcome {
    /// Of an ended job. What failed by itself decides, however the job ended: of an array the highest.
    pub fn of_job(job: &Job) -> Self {
        let by_itself = || {
            let groups = job.failures.iter().map(FailureGroup::cause).zip(&job.failures);
            let groups = groups.map(|(cause, group)| of_end(cause, group.exit_code, group.signal));
            groups.chain([of_end(job.cause(), job.exit_code, job.signal)]).max().unwrap_or(Self::Grid)
        };
        match job.state() {
            JobState::Succeeded => Self::Succeeded,
            _ => by_itself(),
        }
    }

    /// Of an ended task.
    pub fn of_task(task: &Task) -> Self {
        match task.state() {
            TaskState::Succeeded => Self::Succeeded,
            _ => of_end(task.cause(), task.exit_code, task.signal),
        }
    }

    /// The process's exit code.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Succeeded => 0,
            Self::Grid => 125,
            Self::Own(code) => code,
        }
    }
}

fn of_end(cause: Cause, exit_code: Option<i32>, signal: i32) -> Outcome {
    match cause {
        // A code of 0 here is not a failure of its own: the job was cancelled around a success.
        Cause::ExitCode => match exit_code.unwrap_or(0) & 0xff {
            0 => Outcome::Grid,
            code => Outcome::Own(code as u8),
        },
        Cause::Signal => Outcome::Own(128u8.saturating_add(u8::try_from(signal).unwrap_or(0))),
        Cause::OutOfMemory => Outcome::Own(137),
        Cause::TimeLimit => Outcome::Own(124),
        Cause::CommandNotExecutable => Outcome::Own(126),
        Cause::CommandNotFound => Outcome::Own(127),
        Cause::Unspecified
        | Cause::QueueTimeLimit
        | Cause::SpotReclaimed
        | Cause::WorkerLost
        | Cause::StageIn
        | Cause::StageOut
        | Cause::Infeasible
        | Cause::Cancelled
        | Cause::Dependency => Outcome::Grid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(state: JobState, cause: Cause, exit_code: Option<i32>, signal: i32) -> Job {
        Job { state: state.into(), cause: cause.into(), exit_code, signal, ..Job::default() }
    }

    fn check(job: &Job, expected: u8) {
        assert_eq!(Outcome::of_job(job).exit_code(), expected, "{job:?}");
    }

    #[test]
    fn a_plain_job_ends_with_the_code_of_its_task() {
        let failed = |cause, code, signal| job(JobState::Failed, cause, code, signal);
        check(&job(JobState::Succeeded, Cause::ExitCode, Some(0), 0), 0);
        for code in [1, 3, 123, 125, 200, 255] {
            check(&failed(Cause::ExitCode, Some(code), 0), code as u8);
        }
        for signal in [1, 9, 11, 15] {
            check(&failed(Cause::Signal, None, signal), 128 + signal as u8);
        }
        check(&failed(Cause::OutOfMemory, None, 9), 137);
        check(&failed(Cause::TimeLimit, None, 15), 124);
        check(&failed(Cause::CommandNotExecutable, None, 0), 126);
        check(&failed(Cause::CommandNotFound, None, 0), 127);
        for cause in [
            Cause::WorkerLost,
            Cause::SpotReclaimed,
            Cause::StageIn,
            Cause::StageOut,
            Cause::Infeasible,
            Cause::QueueTimeLimit,
        ] {
            check(&failed(cause, None, 0), 125);
        }
        check(&job(JobState::Cancelled, Cause::Cancelled, None, 0), 125);
        check(&job(JobState::Skipped, Cause::Dependency, None, 0), 125);
    }

    #[test]
    fn an_array_ends_with_the_highest_of_what_failed_by_itself() {
        let group = |cause: Cause, exit_code, signal| FailureGroup {
            cause: cause.into(),
            exit_code,
            signal,
            count: 1,
            ..FailureGroup::default()
        };
        let with = |state, failures| Job { failures, ..job(state, Cause::ExitCode, Some(3), 0) };
        check(&with(JobState::Failed, vec![group(Cause::ExitCode, Some(3), 0), group(Cause::ExitCode, Some(7), 0)]), 7);
        check(&with(JobState::Failed, vec![group(Cause::ExitCode, Some(3), 0), group(Cause::StageOut, None, 0)]), 3);
        check(&with(JobState::Failed, vec![group(Cause::ExitCode, Some(3), 0), group(Cause::Signal, None, 9)]), 137);
        check(&with(JobState::Cancelled, vec![group(Cause::ExitCode, Some(3), 0)]), 3);
        let lost = Job {
            failures: vec![group(Cause::WorkerLost, None, 0)],
            ..job(JobState::Failed, Cause::WorkerLost, None, 0)
        };
        check(&lost, 125);
        // Cancelled while its first tasks had succeeded.
        check(&job(JobState::Cancelled, Cause::ExitCode, Some(0), 0), 125);
    }

    #[test]
    fn tasks_end_alike() {
        let task = Task {
            state: TaskState::Failed.into(),
            cause: Cause::ExitCode.into(),
            exit_code: Some(4),
            ..Task::default()
        };
        assert_eq!(Outcome::of_task(&task).exit_code(), 4);
        let fine = Task { state: TaskState::Succeeded.into(), ..Task::default() };
        assert_eq!(Outcome::of_task(&fine).exit_code(), 0);
    }
}
