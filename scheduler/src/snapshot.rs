//! The state as bytes.
use bytes::Bytes;
use crate::State;
/// A snapshot that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed snapshot: {0}")]
pub struct Malformed(pub(crate) &'static str);
impl State {
    /// The pieces of a snapshot, in order.
    pub fn encode(&self) -> impl Iterator<Item = Bytes> + '_ { std::iter::empty() }
    /// The state that [`Self::encode`] wrote.
    pub fn decode(pieces: impl IntoIterator<Item = Bytes>) -> Result<Self, Malformed> { unimplemented!() }
}
