//! Compiles the .proto files in pure Rust: no `protoc` is needed.

use protox::prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let served = protox::compile(
        [
            "proto/internal.proto",
            "proto/raft_admin.proto",
            "proto/distribution.proto",
        ],
        ["proto"],
    )?;
    // For gRPC reflection, with the comments: they are what `describe` shows.
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), served.encode_to_vec())?;
    // Spoken to others, not served: no part of the reflection.
    let spoken = protox::compile(["proto/etcd.proto"], ["proto"])?;
    for descriptors in [served, spoken] {
        tonic_prost_build::configure()
            .bytes(".")
            // Encoded maps in a fixed order: replies to equal commands are equal bytes.
            .btree_map(".")
            .compile_fds(descriptors)?;
    }
    Ok(())
}
