//! Compiles the .proto files in pure Rust: no `protoc` is needed.

use protox::prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(["proto/internal.proto", "proto/etcd.proto"], ["proto"])?;
    // For gRPC reflection.
    let encoded = descriptors.encode_to_vec();
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), encoded)?;
    tonic_prost_build::configure()
        .bytes(".")
        // Encoded maps in a fixed order: replies to equal commands are equal bytes.
        .btree_map(".")
        .compile_fds(descriptors)?;
    Ok(())
}
