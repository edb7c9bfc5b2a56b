//! `millgrid version`

use serde::Serialize;

use crate::{failure::Failure, output::Output};

#[derive(Serialize)]
struct Version {
    name: &'static str,
    version: &'static str,
}

/// Says which release this is.
pub fn run(output: Output) -> Result<u8, Failure> {
    let version = Version { name: "millgrid", version: env!("CARGO_PKG_VERSION") };
    output.one(&version, version.version, || format!("millgrid {}", version.version))?;
    Ok(0)
}
