//! Asks stores: one after the other, until one answers or the time is up.

use super::args::{CtlArgs, ProbeArgs};
use super::table;
use super::wire::CtlCommand;
use crate::cli::{output, Invalid};
use crate::node::dial;
use rangekv_proto::internal as pb;
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::Instant;
use tonic::{Code, Status};

/// Pause after all endpoints were asked in vain; doubles up to `RETRY_PAUSE_MAX`.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(100);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(2);

/// Runs one command of `rangekv ctl`. Exit status 2: the command line is wrong; 1: the cluster
/// refused, or nobody answered in time.
pub fn ctl(args: &CtlArgs) -> ExitCode {
    let command = match args.command.command() {
        Ok(command) => command,
        Err(invalid) => return invalid.exit(),
    };
    finish(block_on(ask(args, &command)).and_then(|json| print(args, &command, &json)))
}

/// Runs `rangekv probe`. Exit status 1: no store answered at that address in time.
pub fn probe(args: &ProbeArgs) -> ExitCode {
    if let Err(invalid) = crate::cli::address::check("the address", &args.address) {
        return invalid.exit();
    }
    finish(
        block_on(identify(args)).and_then(|identity| match args.json {
            true => output::print(format_args!("{:#}", identity_json(&identity))),
            false => output::print(describe(&args.address, &identity)),
        }),
    )
}

fn finish(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rangekv: {error}");
            ExitCode::FAILURE
        }
    }
}

fn block_on<T>(asking: impl std::future::Future<Output = Result<T, String>>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("can't start a runtime: {error}"))?;
    runtime.block_on(asking)
}

async fn ask(args: &CtlArgs, command: &CtlCommand) -> Result<String, String> {
    let json = serde_json::to_string(command).map_err(|error| error.to_string())?;
    let deadline = Instant::now() + args.timeout;
    let mut pause = RETRY_PAUSE_MIN;
    loop {
        let mut failures = Vec::new();
        for endpoint in &args.endpoints {
            match ask_one(endpoint, &json, deadline).await {
                Ok(reply) if reply.error.is_empty() => return Ok(reply.json),
                Ok(reply) => return Err(reply.error),
                Err(status) if may_be_asked_again(&status) => {
                    failures.push(about(endpoint, &status));
                }
                Err(status) => {
                    return Err(format!(
                        "{} ({:?})",
                        about(endpoint, &status),
                        status.code()
                    ));
                }
            }
        }
        if Instant::now() + pause >= deadline {
            return Err(format!(
                "no answer within --timeout: {}",
                failures.join("; ")
            ));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_PAUSE_MAX);
    }
}

async fn ask_one(endpoint: &str, json: &str, deadline: Instant) -> Result<pb::CtlReply, Status> {
    let asking = async {
        let request = pb::CtlRequest {
            json: json.to_owned(),
        };
        Ok(dial::dial(endpoint).await?.ctl(request).await?.into_inner())
    };
    tokio::time::timeout_at(deadline, asking)
        .await
        .unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer")))
}

/// What went wrong where; dialing says where by itself.
fn about(endpoint: &str, status: &Status) -> String {
    match status.message().starts_with(endpoint) {
        true => status.message().to_owned(),
        false => format!("{endpoint}: {}", status.message()),
    }
}

/// Whether another endpoint, or the same one later, may answer. A connection that broke is
/// `Unknown` or `Cancelled`; see [`super::wire`] for why repeating does no harm.
fn may_be_asked_again(status: &Status) -> bool {
    let again = [
        Code::Unavailable,
        Code::DeadlineExceeded,
        Code::Unknown,
        Code::Cancelled,
        Code::Aborted,
    ];
    again.contains(&status.code())
}

fn print(args: &CtlArgs, command: &CtlCommand, json: &str) -> Result<(), String> {
    let unexpected = |error| format!("the store's answer is not understood ({error}): {json}");
    let text = if args.json {
        let value: serde_json::Value = serde_json::from_str(json).map_err(unexpected)?;
        format!("{value:#}")
    } else {
        table::render(command, json).map_err(unexpected)?
    };
    output::print(text)
}

async fn identify(args: &ProbeArgs) -> Result<pb::Identity, String> {
    let asking = async {
        let mut client = dial::dial(&args.address).await?;
        Ok::<_, Status>(client.identify(pb::ProbeRequest {}).await?.into_inner())
    };
    match tokio::time::timeout(args.timeout, asking).await {
        Ok(Ok(identity)) => Ok(identity),
        Ok(Err(status)) => Err(format!(
            "no RangeKV store answers: {}",
            about(&args.address, &status)
        )),
        Err(_) => Err(format!(
            "{}: no answer within {:?}",
            args.address, args.timeout
        )),
    }
}

fn describe(address: &str, identity: &pb::Identity) -> String {
    let mut text = if identity.cluster == 0 {
        format!("{address}: a RangeKV store without a cluster; it waits to be given its place\n")
    } else {
        format!(
            "{address}: RangeKV store {} \"{}\" of cluster {:016x}\n",
            identity.store, identity.name, identity.cluster
        )
    };
    for (what, address) in [
        ("gRPC", &identity.grpc_address),
        ("Redis", &identity.redis_address),
        ("DynamoDB", &identity.dynamo_address),
        ("HTTP", &identity.http_address),
    ] {
        if !address.is_empty() {
            text += &format!("  {what:<9} {address}\n");
        }
    }
    text.truncate(text.trim_end().len());
    text
}

fn identity_json(identity: &pb::Identity) -> serde_json::Value {
    serde_json::json!({
        "cluster": format!("{:016x}", identity.cluster),
        "store": identity.store,
        "name": identity.name,
        "incarnation": format!("{:016x}", identity.incarnation),
        "grpc_address": identity.grpc_address,
        "redis_address": identity.redis_address,
        "dynamo_address": identity.dynamo_address,
        "http_address": identity.http_address,
        "format": identity.format,
    })
}

impl Invalid {
    /// Prints the message as clap prints its own, with clap's exit status.
    pub fn exit(&self) -> ExitCode {
        eprintln!("error: {self}\n\nFor more information, try '--help'.");
        ExitCode::from(2)
    }
}
