//! The digest of a whole state: what the chain over the events can't see, because nothing was said about it.

use crate::State;

impl State {
    /// BLAKE3 over the pieces of [`Self::encode`], each behind its length: all that a snapshot keeps and nothing that
    /// it doesn't, so that equal states have equal digests however they came about. Takes time in proportion to the
    /// state; meant for a clone, in the background. `pause` is called behind each piece of about 1 MiB.
    pub fn digest_of_all(&self, mut pause: impl FnMut()) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        for piece in self.encode() {
            hasher.update(&(piece.len() as u64).to_le_bytes());
            hasher.update(&piece);
            pause();
        }
        *hasher.finalize().as_bytes()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proto::{
        internal::{Command, Entry, JobSubmission, PutBlob, SubmitJobs, command::Command as C},
        v1::{IndexRange, Resources},
    };

    use super::*;
    use crate::job::Text;

    fn apply(state: &mut State, commands: Vec<C>) {
        let commands = commands.into_iter().map(|command| Command { command: Some(command) }).collect();
        let index = state.applied_index() + 1;
        let applied = state.apply(index, &Entry { proposer: 1, sequence: index, time_ms: 5, wall_ms: 6, commands });
        assert!(applied.outcomes.iter().all(Result::is_ok), "{applied:?}");
    }

    fn submit(name: &str) -> C {
        let resources = Some(Resources { cpu_milli: 100, ..Resources::default() });
        let ranges = vec![IndexRange { first: 0, last: 0, step: 1 }];
        let job = JobSubmission { name: name.to_owned(), resources, ranges, ..JobSubmission::default() };
        C::SubmitJobs(SubmitJobs { jobs: vec![job], ..SubmitJobs::default() })
    }

    fn blob(byte: u8) -> C {
        C::PutBlob(PutBlob { data: vec![byte; 10].into() })
    }

    fn state_of(commands: Vec<C>) -> State {
        let mut state = State::new();
        apply(&mut state, commands);
        // What was said on the way is not of interest here.
        state.chain = [0; 32];
        state
    }

    fn digest(state: &State) -> [u8; 32] {
        state.digest_of_all(|| {})
    }

    #[test]
    fn equal_states_have_equal_digests_however_they_came_about() {
        let one = state_of(vec![blob(1), submit("a"), blob(2), submit("b")]);
        let other = state_of(vec![blob(2), blob(1), submit("a"), submit("b")]);
        assert_eq!(digest(&one), digest(&other));
        let read_back = State::decode(one.encode().collect::<Vec<_>>()).unwrap();
        assert_eq!(digest(&one), digest(&read_back));
        assert_ne!(digest(&one), digest(&state_of(vec![blob(1), submit("b"), blob(2), submit("a")])));
    }

    #[test]
    fn a_bit_of_one_record_that_nobody_told_of_is_seen() {
        let state = state_of((0..600).map(|number| submit(&format!("job-{number}"))).collect());
        let expected = digest(&state);
        let changes: [fn(&mut crate::job::Job); 5] = [
            |job| job.created_ms ^= 1,
            |job| job.held = true,
            |job| job.highest_attempt ^= 1 << 31,
            |job| job.text = Text::new(job.text.name(), &[0]),
            |job| job.runs.run_ms ^= 1,
        ];
        for (number, change) in changes.into_iter().enumerate() {
            for id in [1, 512, 513, 600] {
                let mut changed = state.clone();
                change(changed.jobs.get_mut(id).unwrap());
                assert_ne!(digest(&changed), expected, "change {number} of job {id}");
            }
        }
        assert_eq!(digest(&state), expected, "a clone doesn't change with the others");
    }
}
