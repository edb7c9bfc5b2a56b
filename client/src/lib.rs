//! Client of the grid: several coordinators behind one handle, mutual TLS, retries under one request id, and
//! streams that resume where they broke.
//!
//! ```no_run
//! # async fn example(ca_pem: Vec<u8>, cert_pem: Vec<u8>, key_pem: Vec<u8>) -> Result<(), client::Error> {
//! let endpoints = vec!["https://127.0.0.1:7070".to_owned(), "https://127.0.0.1:7071".to_owned()];
//! let grid = client::Grid::connect(client::Settings::new(endpoints, ca_pem, cert_pem, key_pem))?;
//! let job = grid.jobs().get(proto::v1::GetJobRequest { job_id: 42, last: false }).await?;
//! println!("{}", job.name);
//! # Ok(())
//! # }
//! ```
//!
//! *Invariant*: a write is sent again only under the request id that it was first sent with, so that a repeat
//! never makes a second job.

mod backoff;
mod connections;
mod error;
mod grid;
mod logs;
mod pages;
mod request_id;
mod services;
mod settings;
mod stream;
mod watch;

pub use connections::Connection;
pub use error::{Answer, Error};
pub use grid::Grid;
pub use logs::{Logs, Piece};
pub use request_id::request_id;
pub use services::{Cluster, Jobs, Queues, Workers};
pub use settings::{DEFAULT_TIMEOUT, Settings};
pub use stream::{Decided, JobStream};
pub use watch::Watch;
