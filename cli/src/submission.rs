//! From a command line and a script to a job: options, the script's own lines, rows, files, checks.

pub mod build;
pub mod directives;
pub mod needs;
pub mod options;
pub mod placeholders;
pub mod retrying;
pub mod rows;
pub mod upload;
