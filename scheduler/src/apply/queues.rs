//! Queues, how the grid is shared among them, and licenses: what operators set.

use proto::{
    internal::{CreateQueue, DeleteQueue, SetFairShare, SetLicense, SetQueue},
    v1::{Placement, QueueSettings},
};

use super::Step;
use crate::{
    Code, Outcome, Rejection, State, limits,
    queue::{DEFAULT, Queue},
    requests::Answer,
};

impl State {
    pub(crate) fn admit_create_queue(&self, create: &CreateQueue) -> Result<(), Rejection> {
        admit_name(&create.name)?;
        if self.queues.contains_key(create.name.as_str()) {
            let message = format!("there is a queue `{}` already", create.name);
            return Err(Rejection::new(Code::AlreadyExists, "QUEUE_EXISTS", "name", message)
                .hint(format!("change it with `millgrid queue set {}`", create.name)));
        }
        if self.queues.len() >= limits::QUEUES {
            let message = format!("there are {} queues, the most there may be", self.queues.len());
            return Err(Rejection::exhausted("TOO_MANY_QUEUES", "name", message).hint("delete one that isn't used"));
        }
        create.settings.as_ref().map_or(Ok(()), admit_settings)
    }

    pub(crate) fn admit_set_queue(&self, set: &SetQueue) -> Result<(), Rejection> {
        self.admit_queue(&set.name)?;
        set.settings.as_ref().map_or(Ok(()), admit_settings)
    }

    pub(crate) fn admit_delete_queue(&self, delete: &DeleteQueue) -> Result<(), Rejection> {
        self.admit_queue(&delete.name)?;
        if delete.name == DEFAULT {
            let message = format!("queue `{DEFAULT}` can't be deleted: it takes the jobs that name none");
            return Err(Rejection::conflict("DEFAULT_QUEUE", message).hint("pause it instead"));
        }
        let open = self.open_jobs_in(&delete.name);
        if open > 0 {
            let message = format!("queue `{}` has {open} jobs that have not ended", delete.name);
            return Err(Rejection::conflict("QUEUE_NOT_EMPTY", message)
                .hint(format!("let it run empty with `millgrid queue drain {}`, or cancel them", delete.name)));
        }
        Ok(())
    }

    fn admit_queue(&self, name: &str) -> Result<(), Rejection> {
        if self.queues.contains_key(name) {
            return Ok(());
        }
        let message = format!("there is no queue `{name}`");
        Err(Rejection::new(Code::NotFound, "QUEUE_NOT_FOUND", "name", message)
            .hint("list them with `millgrid queue ls`"))
    }

    /// Slow: looks at every open job. Queues are seldom deleted.
    fn open_jobs_in(&self, queue: &str) -> usize {
        let in_it = |id: &&u64| self.jobs.get(**id).is_some_and(|job| *job.terms.queue == *queue);
        self.indexes.open_all.iter().filter(in_it).count()
    }

    pub(crate) fn admit_fair_share(&self, set: &SetFairShare) -> Result<(), Rejection> {
        if set.half_life_ms <= limits::LONGEST_HALF_LIFE_MS {
            return Ok(());
        }
        Err(Rejection::invalid("half_life", "the half-life is longer than 365 days"))
    }

    pub(crate) fn admit_license(&self, set: &SetLicense) -> Result<(), Rejection> {
        admit_name(&set.name)?;
        if set.total > limits::LICENSE_TOTAL {
            let message = format!("{} licenses, {} at most", set.total, limits::LICENSE_TOTAL);
            return Err(Rejection::invalid("total", message));
        }
        let known = self.licenses.by_name.contains_key(set.name.as_str());
        if !known && self.licenses.by_name.len() >= limits::LICENSES {
            let message = format!("there are {} licenses, the most there may be", self.licenses.by_name.len());
            return Err(Rejection::exhausted("TOO_MANY_LICENSES", "name", message));
        }
        Ok(())
    }
}

fn admit_name(name: &str) -> Result<(), Rejection> {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    let good = (1..=limits::QUEUE_NAME_BYTES).contains(&name.len())
        && name.bytes().all(letter)
        && !name.starts_with(['-', '.']);
    if good {
        return Ok(());
    }
    let most = limits::QUEUE_NAME_BYTES;
    let message = format!("`{}` is no name", name.chars().take(40).collect::<String>());
    Err(Rejection::invalid("name", message)
        .hint(format!("use 1 to {most} letters, digits, `_`, `-` and `.`, beginning with a letter, a digit or `_`")))
}

fn admit_settings(settings: &QueueSettings) -> Result<(), Rejection> {
    if let Some(weight) = settings.weight.filter(|weight| !limits::WEIGHT.contains(weight)) {
        let (low, high) = (limits::WEIGHT.start(), limits::WEIGHT.end());
        return Err(Rejection::invalid("weight", format!("the weight {weight} isn't between {low} and {high}")));
    }
    let unknown = |placement: i32| !matches!(Placement::try_from(placement), Ok(Placement::Spread | Placement::Pack));
    if settings.placement.is_some_and(unknown) {
        return Err(Rejection::invalid("placement", "the placement is neither spread nor pack"));
    }
    Ok(())
}

impl Step<'_> {
    pub fn create_queue(&mut self, create: &CreateQueue) -> Outcome {
        let mut queue = Queue::new();
        queue.usage.at_ms = self.state.time_ms;
        queue.set(&create.settings.unwrap_or_default());
        self.state.queues.insert(create.name.as_str().into(), queue);
        self.state.requests.store(
            create.request.as_ref(),
            Answer::Queue(create.name.as_str().into()),
            self.state.time_ms,
        );
        Outcome::Queue(create.name.clone())
    }

    pub fn set_queue(&mut self, set: &SetQueue) -> Outcome {
        let queue = self.state.queues.get_mut(set.name.as_str()).expect("it was looked up");
        queue.set(&set.settings.unwrap_or_default());
        self.state.requests.store(set.request.as_ref(), Answer::Queue(set.name.as_str().into()), self.state.time_ms);
        Outcome::Queue(set.name.clone())
    }

    pub fn delete_queue(&mut self, delete: &DeleteQueue) -> Outcome {
        self.state.queues.remove(delete.name.as_str());
        let answer = Answer::Queue(delete.name.as_str().into());
        self.state.requests.store(delete.request.as_ref(), answer, self.state.time_ms);
        Outcome::Queue(delete.name.clone())
    }

    pub fn set_fair_share(&mut self, set: &SetFairShare) -> Outcome {
        let (now_ms, before) = (self.state.time_ms, self.state.half_life_ms);
        let names: Vec<_> = self.state.queues.keys().cloned().collect();
        for name in names {
            if let Some(queue) = self.state.queues.get_mut(&name) {
                queue.count_usage(now_ms, before);
            }
        }
        self.state.half_life_ms = set.half_life_ms;
        self.state.requests.store(set.request.as_ref(), Answer::FairShare(set.half_life_ms), now_ms);
        Outcome::FairShare(set.half_life_ms)
    }

    pub fn set_license(&mut self, set: &SetLicense) -> Outcome {
        let licenses = &mut self.state.licenses.by_name;
        licenses.entry(set.name.as_str().into()).or_default().total = set.total;
        if licenses.get(set.name.as_str()).is_some_and(|license| *license == crate::licenses::License::default()) {
            licenses.remove(set.name.as_str());
        }
        let answer = Answer::License(set.name.as_str().into());
        self.state.requests.store(set.request.as_ref(), answer, self.state.time_ms);
        Outcome::License(set.name.clone())
    }
}
