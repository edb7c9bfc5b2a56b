//! Compiles the .proto files without protoc, and keeps their descriptors for reflection and for the test
//! that enumerates every method.

use std::{env, error::Error, fs, path::PathBuf};

const FILES: [&str; 9] = [
    "millgrid/v1/jobs.proto",
    "millgrid/v1/queues.proto",
    "millgrid/v1/workers.proto",
    "millgrid/v1/cluster.proto",
    "millgrid/internal/v1/command.proto",
    "millgrid/internal/v1/relay.proto",
    "millgrid/internal/v1/peer.proto",
    "millgrid/internal/v1/snapshot.proto",
    "millgrid/internal/v1/history.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), prost::Message::encode_to_vec(&descriptors))?;
    let grpc = env::var_os("CARGO_FEATURE_GRPC").is_some();
    tonic_prost_build::configure()
        .build_client(grpc)
        .build_server(grpc)
        .bytes(".")
        .btree_map(".")
        .compile_fds(descriptors)?;
    Ok(())
}
