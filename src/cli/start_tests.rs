//! Command lines, and what becomes of them.

use super::*;
use crate::cli::{Cli, Command};
use clap::Parser;

fn parse(line: &str) -> Result<Start, String> {
    let words = ["rangekv", "start"]
        .into_iter()
        .chain(line.split_whitespace());
    let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
    match cli.command {
        Command::Start(args) => args.plan().map_err(|error| error.to_string()),
        other => panic!("{other:?}"),
    }
}

fn options(line: &str) -> Options {
    parse(line)
        .unwrap_or_else(|error| panic!("{line}: {error}"))
        .options
}

fn members(list: &str) -> Vec<Member> {
    let member = |entry: &str| {
        let (name, address) = entry.split_once('=').unwrap();
        Member {
            name: name.into(),
            address: address.into(),
        }
    };
    list.split(',').map(member).collect()
}

const MEMBERS: &str = "n1=10.0.0.11:50051,n2=10.0.0.12:50051,n3=10.0.0.13:50051";
const REDIS_MAP: &str = "10.0.0.11:50051=10.0.0.11:6379,10.0.0.12:50051=10.0.0.12:6379";

#[test]
fn threads_for_redis_are_given_or_follow_the_cores() {
    assert_eq!(options("--redis-threads 3").redis_threads().get(), 3);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    assert_eq!(options("").redis_threads().get(), cores.min(16));
}

#[test]
fn caches_are_of_a_given_size_or_follow_the_memory() {
    assert_eq!(options("--cache 4GiB").cache_bytes(), 4 << 30);
    let usual = options("").cache_bytes();
    assert!((32 << 20..=1 << 30).contains(&usual), "{usual}");
}

#[test]
fn no_flags_make_a_cluster_of_one() {
    let options = options("");
    assert_eq!(options.first_start, FirstStart::Single);
    assert_eq!(options.data_dir, PathBuf::from("rangekv-data"));
    assert_eq!(options.grpc.bind, "127.0.0.1:50051");
    assert_eq!(options.redis.bind, "127.0.0.1:6379");
    assert_eq!(options.http.bind, "127.0.0.1:8080");
    assert!(!options.http_asked_for);
    assert_eq!(options.kv_http.bind, "127.0.0.1:9080");
    assert!(!options.kv_http_asked_for);
    assert_eq!(options.name, None);
}

/// ACCEPTANCE E1, as its users type it.
#[test]
fn camel_case_flags_of_the_vm_guide() {
    let typed = format!(
        "--address 10.0.0.11:50051 --redisAddress 10.0.0.11:6379 --dynamoAddress 10.0.0.11:8000 \
         --raftId n1 --raftDataDir /var/lib/n1 --raftRedisMap {REDIS_MAP} \
         --raftBootstrapMembers {MEMBERS} --raftBootstrap"
    );
    for line in [
        typed.clone(),
        typed.replace("--raftBootstrap\n", "--raftBootstrap=true"),
        typed
            .replace("--raftId n1", "--raftId=n1")
            .replace("--address ", "--address="),
    ] {
        let start = parse(&line).unwrap();
        let options = start.options;
        assert_eq!(options.first_start, FirstStart::Bootstrap(members(MEMBERS)));
        assert_eq!(options.name.as_deref(), Some("n1"));
        assert_eq!(options.data_dir, PathBuf::from("/var/lib/n1"));
        assert_eq!(options.redis.advertise.as_deref(), Some("10.0.0.11:6379"));
        assert_eq!(options.dynamo.bind, "10.0.0.11:8000");
        assert!(options.dynamo_asked_for);
    }
}

/// ACCEPTANCE E2.
#[test]
fn without_bootstrap_a_named_store_waits() {
    let base = "--address 10.0.0.12:50051 --raftId n2 --raftDataDir /d";
    for line in [
        base.to_string(),
        format!("{base} --raftRedisMap {REDIS_MAP}"),
        format!("{base} --raftBootstrap=false"),
        format!("{base} --raftBootstrapMembers {MEMBERS}"),
    ] {
        assert_eq!(options(&line).first_start, FirstStart::Wait, "{line}");
    }
}

#[test]
fn booleans_take_true_and_false_after_an_equals_sign_only() {
    let base = "--id n1 --bootstrap";
    for (line, first_start) in [
        (base.to_string(), FirstStart::Single),
        (format!("{base}=true"), FirstStart::Single),
        (format!("{base}=false"), FirstStart::Wait),
        (format!("{base} --address 127.0.0.1:1"), FirstStart::Single),
    ] {
        assert_eq!(options(&line).first_start, first_start, "{line}");
    }
    assert!(parse("--id n1 --bootstrap=perhaps").is_err());
}

#[test]
fn joining() {
    let line = "--id n4 --address 10.0.0.14:50051 --data-dir d --join 10.0.0.11:50051,n2:50051";
    let join = vec!["10.0.0.11:50051".to_string(), "n2:50051".to_string()];
    assert_eq!(options(line).first_start, FirstStart::Join(join));
}

/// ACCEPTANCE C7: what clap's environment lookup hands over, variables set to nothing included.
#[test]
fn variables_of_a_container() {
    let text = |value: &str| Some(value.to_owned());
    let container = StartArgs {
        node_name: text("node4"),
        address: text("10.0.0.14:50051"),
        http_address: text(":8080"),
        join: text("node1:50051"),
        data_dir: Some("/data".into()),
        ..Default::default()
    };
    let start = container.plan().unwrap();
    assert_eq!(start.options.name.as_deref(), Some("node4"));
    assert_eq!(
        start.options.first_start,
        FirstStart::Join(vec!["node1:50051".into()])
    );
    assert_eq!(start.options.http.bind, "0.0.0.0:8080");
    assert_eq!(start.options.http.advertise.as_deref(), Some("10.0.0.14"));
    assert!(start.options.http_asked_for);

    let first = StartArgs {
        join: text(""),
        ..container.clone()
    };
    assert_eq!(first.plan().unwrap().options.first_start, FirstStart::Wait);

    for (missing, named) in [
        (
            StartArgs {
                node_name: text(" "),
                ..container.clone()
            },
            "NODE_ID",
        ),
        (
            StartArgs {
                address: None,
                ..container.clone()
            },
            "RAFT_ADDR",
        ),
        (
            StartArgs {
                data_dir: None,
                ..container.clone()
            },
            "DATA_DIR",
        ),
    ] {
        let error = missing.plan().unwrap_err().to_string();
        assert!(error.contains(named), "{named}: {error}");
    }
}

#[test]
fn id_goes_before_node_name() {
    let both = StartArgs {
        id: Some("n1".into()),
        node_name: Some("first".into()),
        ..Default::default()
    };
    assert_eq!(both.plan().unwrap().options.name.as_deref(), Some("n1"));
}

/// ACCEPTANCE E3: what is wrong is quoted, and the message says what is expected.
#[test]
fn refusals_quote_the_entry_and_say_what_is_expected() {
    let n1 = "--id n1 --address 10.0.0.11:50051 --bootstrap --bootstrap-members";
    let map = "--id n1 --address 10.0.0.11:50051 --redis-map";
    for (line, quoted) in [
        (format!("{n1} n1"), "'n1'"),
        (format!("{n1} n1=10.0.0.11"), "'n1=10.0.0.11'"),
        (format!("{n1} =10.0.0.11:50051"), "'=10.0.0.11:50051'"),
        (
            format!("{n1} n1=10.0.0.11:50051,n2=10.0.0.12:port"),
            "'n2=10.0.0.12:port'",
        ),
        (
            format!("{n1} n1=10.0.0.11:50051,n1=10.0.0.12:50051"),
            "'n1=10.0.0.12:50051'",
        ),
        (
            format!("{n1} n1=10.0.0.11:50051,n2=10.0.0.11:50051"),
            "'n2=10.0.0.11:50051'",
        ),
        (format!("{n1} ,"), "--bootstrap-members"),
        (format!("{n1} n2=10.0.0.12:50051"), "'n1=10.0.0.11:50051'"),
        (format!("{n1} n1=10.0.0.99:50051"), "'n1=10.0.0.99:50051'"),
        (format!("{n1} n1=0.0.0.0:50051"), "'n1=0.0.0.0:50051'"),
        (format!("--bootstrap --bootstrap-members {MEMBERS}"), "--id"),
        (format!("{map} 10.0.0.11:50051"), "'10.0.0.11:50051'"),
        (
            format!("{map} 10.0.0.11=10.0.0.11:6379"),
            "'10.0.0.11=10.0.0.11:6379'",
        ),
        (
            format!("{map} 10.0.0.11:50051=redis"),
            "'10.0.0.11:50051=redis'",
        ),
        (
            format!("{map} 10.0.0.11:50051=10.0.0.11:1,10.0.0.11:50051=10.0.0.11:2"),
            "'10.0.0.11:50051=10.0.0.11:2'",
        ),
        ("--address nowhere".into(), "'nowhere'"),
        ("--redis-address 6379".into(), "'6379'"),
        ("--dynamo-address 8000".into(), "'8000'"),
        ("--id n --address a:1 --data-dir d --join a".into(), "'a'"),
        ("--advertise-address a:b:c".into(), "'a:b:c'"),
    ] {
        let error = parse(&line).unwrap_err();
        assert!(error.contains(quoted), "{line}: {error}");
        assert!(error.to_lowercase().contains("expected"), "{line}: {error}");
    }
}

#[test]
fn contradictions() {
    for (line, named) in [
        (
            "--bootstrap --join a:1 --id n --address b:1 --data-dir d",
            "--join and --bootstrap contradict",
        ),
        ("--initial-ranges 0", "1..=16384"),
        ("--initial-ranges 16385", "1..=16384"),
        ("--redis-threads 0", "1..=64"),
        (
            "--cache 4GB",
            "'4GB' for '--cache <SIZE>': a size from 32MiB",
        ),
        ("--cache 31MiB", "a size from 32MiB to 1024GiB"),
        ("--cache 1025GiB", "a size from 32MiB to 1024GiB"),
        ("--log-format xml", "xml"),
    ] {
        let error = parse(line).unwrap_err();
        assert!(error.contains(named), "{line}: {error}");
    }
}

#[test]
fn nobody_is_told_an_address_that_means_himself() {
    let redis = |address: &str| {
        format!(
            "--id n1 --address 10.0.0.11:50051 --redis-address {address} --bootstrap \
             --bootstrap-members {MEMBERS}"
        )
    };
    let join = |flags: &str| format!("--id n4 --data-dir d --join 10.0.0.11:50051 {flags}");
    for (line, flag) in [
        (redis("127.0.0.1:6379"), "--redis-address"),
        (
            redis("10.0.0.11:6379").replace("--address 10.0.0.11", "--address 0.0.0.0"),
            "set --adv",
        ),
        (join("--address 0.0.0.0:50051"), "set --advertise-address"),
        (join("--address localhost:50051"), "set --advertise-address"),
        (
            join("--address 0.0.0.0:50051 --advertise-address localhost"),
            "change --advertise-address",
        ),
        (
            "--id n2 --address 0.0.0.0:50051".into(),
            "set --advertise-address",
        ),
        (
            format!("--id n2 --address 127.0.0.1:50051 --redis-map {REDIS_MAP}"),
            "--advertise",
        ),
    ] {
        let error = parse(&line).unwrap_err();
        assert!(error.contains(flag), "{line}: {error}");
    }
}

#[test]
fn what_is_told_instead() {
    let join = "--id n4 --data-dir d --join 10.0.0.11:50051";
    for (line, grpc, redis) in [
        (format!("{join} --address 10.0.0.14:50051"), None, None),
        (
            format!("{join} --address 0.0.0.0:50051 --advertise-address node4"),
            Some("node4"),
            Some("node4"),
        ),
        (
            format!("{join} --address 10.0.0.14:50051 --redis-address 0.0.0.0:6379"),
            None,
            Some("10.0.0.14"),
        ),
        // One machine: loopback is what its members call each other.
        (
            "--id n2 --data-dir d --address 127.0.0.1:2 --join 127.0.0.1:1".into(),
            None,
            None,
        ),
        // Nobody else is there to be misled.
        (
            "--address 0.0.0.0:50051 --redis-address 0.0.0.0:6379".into(),
            None,
            None,
        ),
    ] {
        let options = options(&line);
        assert_eq!(options.grpc.advertise.as_deref(), grpc, "{line}");
        assert_eq!(options.redis.advertise.as_deref(), redis, "{line}");
    }
}

#[test]
fn redis_listens_on_the_host_of_grpc() {
    assert_eq!(
        options("--address 10.0.0.11:7000").redis.bind,
        "10.0.0.11:6379"
    );
}
