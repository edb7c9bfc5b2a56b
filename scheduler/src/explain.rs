//! Why a task waits.
use proto::v1::{self, Capacity, Resources};
use crate::State;
/// The largest instance that a pool could ever launch: configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// What that instance has.
    pub largest: Capacity,
}
/// Whether some pool could ever hold one such task; `Err` says what is the most it could be.
pub fn feasible(resources: &Resources, pools: &[Pool]) -> Result<(), String> { unimplemented!() }
impl State {
    /// As [`feasible`].
    pub fn feasible(resources: &Resources, pools: &[Pool]) -> Result<(), String> { feasible(resources, pools) }
    /// Says why.
    pub fn explain(&self, job: u64, ordinal: Option<u32>, pools: &[Pool]) -> Option<v1::Explanation> { unimplemented!() }
    /// What fits where.
    pub fn plan_job(&self, job: &proto::internal::JobSubmission, pools: &[Pool]) -> v1::plan_jobs_response::JobPlan { unimplemented!() }
}
