//! `rangekv start`: the process's runtime, logging and signals around [`run`].

use super::options::Options;
use super::process::{run, Stop};
use crate::cli::start::LogFormat;
use rangekv_router::server::THREADS as REDIS_THREADS;
use std::io::IsTerminal;
use std::process::ExitCode;
use tokio::signal::unix::{signal, SignalKind};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

/// Set by `rangekv demo` for its stores: they end when it does, however it ends.
pub const ENDS_WITH_PARENT: &str = "RANGEKV_ENDS_WITH_PARENT";

/// Name of the runtime's threads.
const IO_THREADS: &str = "io";

/// Runs a node until SIGTERM or SIGINT. A second signal skips moving leaders away.
pub fn start(options: Options, log_format: LogFormat) -> ExitCode {
    log(log_format);
    end_with_panics_of_threads();
    if std::env::var_os(ENDS_WITH_PARENT).is_some() {
        let signal = Some(rustix::process::Signal::TERM);
        if let Err(error) = rustix::process::set_parent_process_death_signal(signal) {
            tracing::warn!(%error, "this process may outlive its parent");
        }
    }
    match block_on(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rangekv: {}", with_causes(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error and its causes, save those that the text before them contains.
pub fn with_causes(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !text.contains(&cause) {
            text = match text.is_empty() {
                true => cause,
                false => format!("{text}: {cause}"),
            };
        }
    }
    text
}

/// A panic of a thread of ours is a broken invariant, or leaves work undone for ever: the
/// process ends, and others take over. A panic of one connection's task or turn ends that
/// connection.
fn end_with_panics_of_threads() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        match std::thread::current().name() {
            Some(IO_THREADS | REDIS_THREADS) => {}
            _ => std::process::abort(),
        }
    }));
}

fn block_on(options: Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(options.runtime_threads())
        .thread_name(IO_THREADS)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let (mut term, mut int) = (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        );
        let (stop, stopped) = watch::channel(Stop::No);
        tokio::spawn(async move {
            for wish in [Stop::Gracefully, Stop::AtOnce] {
                tokio::select! {
                    _ = term.recv() => {}
                    _ = int.recv() => {}
                }
                stop.send_replace(wish);
            }
        });
        run(options, stopped).await
    })
}

fn log(format: LogFormat) {
    let filter = EnvFilter::try_from_env("RANGEKV_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.with_target(false).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_is_named_once() {
        let full = std::io::Error::other("no space");
        let error = anyhow::Error::new(full)
            .context("the log: no space")
            .context("starting");
        assert_eq!(with_causes(&error), "starting: the log: no space");
    }
}
