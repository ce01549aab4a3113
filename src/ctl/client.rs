//! Asks stores: one after the other, until one answers or the time is up; and again, while what
//! was ordered is under way.

use super::args::{CtlArgs, CtlSubcommand, ProbeArgs, CTL_EXIT};
use super::recover;
use super::table::{self, Names};
use super::wire::{CtlCommand, StoreInfo, Underway, LEADER_HINT};
use crate::cli::{output, Invalid};
use crate::container::noted_address;
use crate::node::dial;
use rangekv_proto::internal as pb;
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::Instant;
use tonic::{Code, Status};

/// Pause after all endpoints were asked in vain; doubles up to `RETRY_PAUSE_MAX`.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(100);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(2);
/// How often one looks at what is under way.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Why there is nothing to print.
#[derive(Debug)]
enum Problem {
    /// The cluster refused.
    Refused(String),
    /// Nobody answered, and nothing was changed.
    Unavailable(String),
    /// It may or may not have been done.
    Unknown(String),
}

impl Problem {
    fn exit(&self) -> ExitCode {
        let (why, code) = match self {
            Self::Refused(why) => (why, CTL_EXIT.refused),
            Self::Unavailable(why) => (why, CTL_EXIT.unavailable),
            Self::Unknown(why) => (why, CTL_EXIT.unknown),
        };
        eprintln!("rangekv: {why}");
        ExitCode::from(code)
    }
}

/// Runs one command of `rangekv ctl`; see [`CTL_EXIT`].
pub fn ctl(args: &CtlArgs) -> ExitCode {
    if let CtlSubcommand::Recover(command) = &args.command {
        return recover::run(command);
    }
    let command = match args.command.command() {
        Ok(command) => command,
        Err(invalid) => return invalid.exit(),
    };
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return Problem::Refused(error).exit(),
    };
    let (json, done) = match runtime.block_on(pursue(args, &command)) {
        Ok(answer) => answer,
        Err(problem) => return problem.exit(),
    };
    let names = match args.json {
        true => Names::new(),
        false => runtime.block_on(names(args)),
    };
    match print(args, &command, &json, &names) {
        Ok(()) if done => ExitCode::SUCCESS,
        Ok(()) => ExitCode::from(CTL_EXIT.underway),
        Err(why) => Problem::Refused(why).exit(),
    }
}

/// The answer to `command`, and whether it is done; waits for that as long as it was asked to.
async fn pursue(args: &CtlArgs, command: &CtlCommand) -> Result<(String, bool), Problem> {
    let began = Instant::now();
    let mut shown = String::new();
    loop {
        let json = ask(args, command).await?;
        let Some(wait) = args.command.wait() else {
            return Ok((json, true));
        };
        let Underway { done, waits_for } = serde_json::from_str(&json)
            .map_err(|error| Problem::Unknown(not_understood(&error, &json)))?;
        if done || wait.is_zero() {
            return Ok((json, true));
        }
        if began.elapsed() >= wait {
            return Ok((json, false));
        }
        if !args.json && waits_for != shown {
            eprintln!("{waits_for}");
            shown = waits_for;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Runs `rangekv probe`. Exit status 1: no store answered at that address in time.
pub fn probe(args: &ProbeArgs) -> ExitCode {
    let address = match args.address.clone().map_or_else(noted_address, Ok) {
        Ok(address) => address,
        Err(why) => {
            eprintln!("rangekv: {why}");
            return ExitCode::FAILURE;
        }
    };
    if let Err(invalid) = crate::cli::address::check("the address", &address) {
        return invalid.exit();
    }
    let asking = identify(&address, args.timeout);
    let identity = runtime().and_then(|runtime| runtime.block_on(asking));
    let printed = identity.and_then(|identity| match args.json {
        true => output::print(format_args!("{:#}", identity_json(&identity))),
        false => output::print(describe(&address, &identity)),
    });
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rangekv: {error}");
            ExitCode::FAILURE
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, String> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build();
    runtime.map_err(|error| format!("can't start a runtime: {error}"))
}

async fn ask(args: &CtlArgs, command: &CtlCommand) -> Result<String, Problem> {
    let json = serde_json::to_string(command).map_err(|e| Problem::Refused(e.to_string()))?;
    let deadline = Instant::now() + args.timeout;
    let mut pause = RETRY_PAUSE_MIN;
    // Whether a store may have got the command, and carried it out, without an answer to us.
    let mut sent = false;
    loop {
        let mut failures = Vec::new();
        let mut turn: Vec<String> = args.endpoints.iter().rev().cloned().collect();
        while let Some(endpoint) = turn.pop() {
            let status = match ask_one(&endpoint, &json, deadline).await {
                Ok(reply) if reply.error.is_empty() => return Ok(reply.json),
                Ok(reply) if reply.outcome_unknown => {
                    sent = true;
                    failures.push(format!("{endpoint}: {}", reply.error));
                    continue;
                }
                Ok(reply) => return Err(Problem::Refused(reply.error)),
                Err(status) => status,
            };
            if !may_be_asked_again(&status) {
                let about = about(&endpoint, &status);
                return Err(Problem::Refused(format!("{about} ({:?})", status.code())));
            }
            sent |= status.code() != Code::Unavailable;
            if let Some(leader) = hint(&status).filter(|leader| !args.endpoints.contains(leader)) {
                if endpoint != leader {
                    turn.push(leader);
                }
            }
            failures.push(about(&endpoint, &status));
        }
        if Instant::now() + pause >= deadline {
            let why = failures.join("; ");
            return Err(match sent && command.changes() {
                true => Problem::Unknown(format!("it may or may not have been done: {why}")),
                false => Problem::Unavailable(format!("no answer within --timeout: {why}")),
            });
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_PAUSE_MAX);
    }
}

async fn ask_one(endpoint: &str, json: &str, deadline: Instant) -> Result<pb::CtlReply, Status> {
    let request = pb::CtlRequest {
        json: json.to_owned(),
    };
    let late = |what: &str| Status::unavailable(format!("{endpoint}: {what}"));
    let client = tokio::time::timeout_at(deadline, dial::dial(endpoint)).await;
    let mut client = client.map_err(|_| late("no connection"))??;
    let reply = tokio::time::timeout_at(deadline, client.ctl(request)).await;
    let reply = reply.map_err(|_| Status::deadline_exceeded("no answer"))??;
    Ok(reply.into_inner())
}

/// Who leads the placement driver's group, if the store that can't answer knows.
fn hint(status: &Status) -> Option<String> {
    let leader = status.metadata().get(LEADER_HINT)?;
    leader.to_str().ok().map(str::to_owned)
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

fn not_understood(error: &serde_json::Error, json: &str) -> String {
    format!("the store's answer is not understood ({error}): {json}")
}

/// What people call the stores; who can't be asked now is shown by number.
async fn names(args: &CtlArgs) -> Names {
    let stores = ask(args, &CtlCommand::StoreList).await.ok();
    let stores = stores.and_then(|json| serde_json::from_str::<Vec<StoreInfo>>(&json).ok());
    let stores = stores.unwrap_or_default().into_iter();
    stores.map(|store| (store.id, store.name)).collect()
}

fn print(args: &CtlArgs, command: &CtlCommand, json: &str, names: &Names) -> Result<(), String> {
    let unexpected = |error| not_understood(&error, json);
    let text = if args.json {
        let value: serde_json::Value = serde_json::from_str(json).map_err(unexpected)?;
        format!("{value:#}")
    } else {
        table::render(command, json, names).map_err(unexpected)?
    };
    output::print(text)
}

async fn identify(address: &str, timeout: Duration) -> Result<pb::Identity, String> {
    let asking = async {
        let mut client = dial::dial(address).await?;
        Ok::<_, Status>(client.identify(pb::ProbeRequest {}).await?.into_inner())
    };
    match tokio::time::timeout(timeout, asking).await {
        Ok(Ok(identity)) => Ok(identity),
        Ok(Err(status)) => Err(format!(
            "no RangeKV store answers: {}",
            about(address, &status)
        )),
        Err(_) => Err(format!("{address}: no answer within {timeout:?}")),
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
