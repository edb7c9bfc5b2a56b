//! The lower-case words of states, causes and reasons: those of the enums without their prefix.

use proto::v1::{Cause, DependencyCondition, JobState, Placement, TaskState, WaitReason, WorkerState};

use super::Malformed;

/// An enum of the API, as people and JSON say it.
pub trait Word {
    /// The word; none for what is unspecified.
    fn word(self) -> Option<String>;
}

macro_rules! words {
    ($($enum:ident = $prefix:literal),*) => {
        $(impl Word for $enum {
            fn word(self) -> Option<String> {
                let name = self.as_str_name().strip_prefix($prefix).unwrap_or_default();
                (name != "UNSPECIFIED").then(|| name.to_ascii_lowercase())
            }
        })*
    };
}

words!(
    JobState = "JOB_STATE_",
    TaskState = "TASK_STATE_",
    Cause = "CAUSE_",
    WaitReason = "WAIT_REASON_",
    WorkerState = "WORKER_STATE_",
    Placement = "PLACEMENT_",
    DependencyCondition = "DEPENDENCY_CONDITION_"
);

/// A state of a job by its word.
pub fn job_state(text: &str) -> Result<JobState, Malformed> {
    let named = JobState::from_str_name(&format!("JOB_STATE_{}", text.to_ascii_uppercase()));
    named.filter(|state| *state != JobState::Unspecified && text.to_ascii_lowercase() == text).ok_or_else(|| {
        Malformed::new("not a state; states are waiting, queued, running, succeeded, failed, cancelled, skipped")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enums_are_lower_case_words() {
        assert_eq!(Cause::OutOfMemory.word().as_deref(), Some("out_of_memory"));
        assert_eq!(WaitReason::ResourcesCpu.word().as_deref(), Some("resources_cpu"));
        assert_eq!(JobState::Unspecified.word(), None);
        assert_eq!(job_state("running"), Ok(JobState::Running));
        assert!(job_state("done").is_err() && job_state("unspecified").is_err() && job_state("Running").is_err());
    }
}
