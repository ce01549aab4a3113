//! The clients in Rust that users of both doors write against, as they write it.

mod dynamo;

mod redis;

mod http;

use crate::cluster::{until, Cluster};
use crate::operator::command;

/// `rangekv ctl` with `words`, on a thread of its own, until it succeeds.
fn operate(cluster: &Cluster, words: &[&str]) -> tokio::task::JoinHandle<()> {
    let what = words.join(" ");
    let mut command = command(cluster, words);
    tokio::task::spawn_blocking(move || {
        until(&what, || {
            let output = command.output().map_err(|error| error.to_string())?;
            match output.status.success() {
                true => Ok(()),
                false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            }
        });
    })
}

/// Runs what is asynchronous, as `#[tokio::main]` would.
fn block_on(future: impl std::future::Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(future);
}
