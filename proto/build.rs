//! Compiles the .proto files in pure Rust: no `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(["proto/internal.proto", "proto/etcd.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .bytes(".")
        // Encoded maps in a fixed order: replies to equal commands are equal bytes.
        .btree_map(".")
        .compile_fds(descriptors)?;
    Ok(())
}
