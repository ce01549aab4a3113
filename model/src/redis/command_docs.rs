//! `COMMAND` and its subcommands, generated from the table in [`spec`].
//!
//! The shape of the replies is documented under `COMMAND`, `COMMAND INFO` and `COMMAND DOCS`.
//! Left out on purpose: tips, subcommands, and the grammar of arguments.

use super::call::Outcome;
use super::codec::Protocol;
use super::error::{printable, CommandError};
use super::glob;
use super::number::parse_int;
use super::reply::{self, Reply};
use super::spec::{self, Flags, Group, Spec};
use bytes::Bytes;

const HELP: &[&str] = &[
    "COMMAND <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "(no subcommand)",
    "    Describes all commands.",
    "COUNT",
    "    Answers how many commands there are.",
    "DOCS [<command-name> ...]",
    "    Answers the documentation of the named commands, or of all.",
    "GETKEYS <full-command>",
    "    Answers the keys of a command.",
    "INFO [<command-name> ...]",
    "    Describes the named commands, or all.",
    "LIST [FILTERBY (MODULE <name>|ACLCAT <category>|PATTERN <pattern>)]",
    "    Answers the names of commands.",
    "HELP",
    "    Prints this help.",
];

/// The reply to `COMMAND …`; `args` begins with `COMMAND`.
pub fn command(args: &[Bytes], protocol: Protocol) -> Bytes {
    let outcome = match args {
        [] | [_] => Ok(describe_all(protocol)),
        [_, subcommand, rest @ ..] => dispatch(subcommand, rest, protocol),
    };
    outcome.unwrap_or_else(|error| error.to_reply())
}

fn dispatch(subcommand: &Bytes, rest: &[Bytes], protocol: Protocol) -> Outcome {
    let lower = subcommand.to_ascii_lowercase();
    let arity = |fits: bool| {
        if fits {
            return Ok(());
        }
        let name = String::from_utf8_lossy(&lower);
        Err(CommandError::Arity(format!("command|{name}")))
    };
    match &lower[..] {
        b"count" => {
            arity(rest.is_empty())?;
            Ok(reply::int(spec::all().len() as i64))
        }
        b"docs" => Ok(docs(rest, protocol)),
        b"getkeys" => {
            arity(rest.len() >= 2)?;
            getkeys(rest, protocol)
        }
        b"info" if rest.is_empty() => Ok(describe_all(protocol)),
        b"info" => {
            let mut reply = Reply::new(protocol);
            reply.array(rest.len());
            for name in rest {
                match spec::lookup(name) {
                    Some(spec) => describe(&mut reply, spec),
                    None => {
                        reply.nil();
                    }
                }
            }
            Ok(reply.finish())
        }
        b"list" => list(rest, protocol),
        b"help" => {
            arity(rest.is_empty())?;
            let mut reply = Reply::new(protocol);
            reply.array(HELP.len());
            for line in HELP {
                reply.simple(line);
            }
            Ok(reply.finish())
        }
        _ => Err(CommandError::UnknownSubcommand {
            command: "COMMAND",
            subcommand: printable(subcommand),
        }),
    }
}

fn describe_all(protocol: Protocol) -> Bytes {
    let mut reply = Reply::with_capacity(protocol, 16 * 1024);
    reply.array(spec::all().len());
    for spec in spec::all() {
        describe(&mut reply, spec);
    }
    reply.finish()
}

fn describe(reply: &mut Reply, spec: &Spec) {
    reply
        .array(10)
        .bulk(spec.name.as_bytes())
        .int(i64::from(spec.arity));
    let flags: Vec<_> = Flags::NAMES
        .iter()
        .filter(|(flag, _)| spec.flags.contains(*flag))
        .collect();
    reply.set(flags.len());
    for (_, name) in flags {
        reply.simple(name);
    }
    reply
        .int(i64::from(spec.first_key))
        .int(i64::from(spec.last_key));
    reply.int(i64::from(spec.key_step));
    let categories = categories(spec);
    reply.set(categories.len());
    for category in categories {
        reply.simple(&format!("@{category}"));
    }
    reply.set(0);
    describe_keys(reply, spec);
    reply.set(0);
}

/// The key specifications: where keys begin, and how to find the others.
fn describe_keys(reply: &mut Reply, spec: &Spec) {
    let access: [&str; 2] = match spec.is_readonly() {
        true => ["RO", "access"],
        false => ["RW", "update"],
    };
    let fixed = spec.first_key > 0;
    reply.set(usize::from(fixed) + usize::from(spec.count_at > 0));
    if fixed {
        // Counted from the first key, unless it counts from the end.
        let last = match i64::from(spec.last_key) {
            last if last < 0 => last,
            last => last - i64::from(spec.first_key),
        };
        // A shard channel has a slot, and is no key.
        match spec.group == Group::PubSub {
            true => begin_keys(reply, &["not_key"], spec.first_key),
            false => begin_keys(reply, &access, spec.first_key),
        }
        reply.bulk(b"find_keys").map(2).bulk(b"type").bulk(b"range");
        reply.bulk(b"spec").map(3).bulk(b"lastkey").int(last);
        reply.bulk(b"keystep").int(i64::from(spec.key_step));
        reply.bulk(b"limit").int(0);
    }
    if spec.count_at > 0 {
        begin_keys(reply, &access, spec.count_at);
        reply
            .bulk(b"find_keys")
            .map(2)
            .bulk(b"type")
            .bulk(b"keynum");
        reply.bulk(b"spec").map(3).bulk(b"keynumidx").int(0);
        reply.bulk(b"firstkey").int(1).bulk(b"keystep").int(1);
    }
}

fn begin_keys(reply: &mut Reply, access: &[&str], index: u8) {
    reply.map(3);
    reply.bulk(b"flags").set(access.len());
    for flag in access {
        reply.simple(flag);
    }
    reply
        .bulk(b"begin_search")
        .map(2)
        .bulk(b"type")
        .bulk(b"index");
    reply
        .bulk(b"spec")
        .map(1)
        .bulk(b"index")
        .int(i64::from(index));
}

fn categories(spec: &Spec) -> Vec<&'static str> {
    let has = |flag| spec.flags.contains(flag);
    let mut categories = Vec::new();
    let flushes = matches!(spec.name, "flushall" | "flushdb" | "dbsize");
    let of_connection = matches!(
        spec.name,
        "asking" | "readonly" | "readwrite" | "wait" | "waitaof"
    );
    match spec.group {
        Group::Generic if !of_connection => categories.push("keyspace"),
        Group::Server if flushes => categories.push("keyspace"),
        _ => {}
    }
    for (flag, category) in [
        (Flags::WRITE, "write"),
        (Flags::READONLY, "read"),
        (Flags::ADMIN, "admin"),
        (Flags::PUBSUB, "pubsub"),
    ] {
        if has(flag) {
            categories.push(category);
        }
    }
    match spec.group {
        Group::String => categories.push("string"),
        Group::Hash => categories.push("hash"),
        Group::List => categories.push("list"),
        Group::Set => categories.push("set"),
        Group::SortedSet => categories.push("sortedset"),
        Group::Bitmap => categories.push("bitmap"),
        Group::HyperLogLog => categories.push("hyperloglog"),
        _ => {}
    }
    categories.push(if has(Flags::FAST) { "fast" } else { "slow" });
    if has(Flags::DANGEROUS) {
        categories.push("dangerous");
    }
    match spec.group {
        Group::Connection => categories.push("connection"),
        Group::Transactions => categories.push("transaction"),
        _ if of_connection => categories.push("connection"),
        _ => {}
    }
    categories
}

fn docs(names: &[Bytes], protocol: Protocol) -> Bytes {
    let specs: Vec<&Spec> = match names {
        [] => spec::all().iter().collect(),
        names => names.iter().filter_map(|name| spec::lookup(name)).collect(),
    };
    let mut reply = Reply::with_capacity(protocol, specs.len() * 160 + 16);
    reply.map(specs.len());
    for spec in specs {
        reply.bulk(spec.name.as_bytes()).map(3);
        reply.bulk(b"summary").bulk(spec.summary.as_bytes());
        reply.bulk(b"since").bulk(spec.since.as_bytes());
        reply.bulk(b"group").bulk(spec.group.name().as_bytes());
    }
    reply.finish()
}

fn getkeys(args: &[Bytes], protocol: Protocol) -> Outcome {
    let spec = spec::lookup(&args[0]).ok_or(CommandError::GetKeysUnknown)?;
    if spec.first_key == 0 && spec.count_at == 0 {
        return Err(CommandError::GetKeysNone);
    }
    if !spec.accepts(args.len()) {
        return Err(CommandError::GetKeysArity);
    }
    if let Some(count) = args
        .get(usize::from(spec.count_at))
        .filter(|_| spec.count_at > 0)
    {
        let room = args.len() - usize::from(spec.count_at) - 1;
        let count = parse_int(count).and_then(|count| usize::try_from(count).ok());
        if count.is_none_or(|count| count == 0 || count > room) {
            let text = "ERR Invalid arguments specified for command";
            return Err(CommandError::Of(text));
        }
    }
    let indexes: Vec<usize> = spec::keys(spec, args).collect();
    if indexes.is_empty() {
        return Err(CommandError::GetKeysNone);
    }
    let mut reply = Reply::new(protocol);
    reply.array(indexes.len());
    for index in indexes {
        reply.bulk(&args[index]);
    }
    Ok(reply.finish())
}

fn list(options: &[Bytes], protocol: Protocol) -> Outcome {
    let names: Vec<&str> = match options {
        [] => spec::all().iter().map(|spec| spec.name).collect(),
        [filterby, filter, argument] if filterby.eq_ignore_ascii_case(b"filterby") => {
            let wanted: Box<dyn Fn(&Spec) -> bool> = match &filter.to_ascii_lowercase()[..] {
                // There are no modules that a command could come from.
                b"module" => Box::new(|_| false),
                b"aclcat" => Box::new(|spec| {
                    let categories = categories(spec);
                    categories
                        .iter()
                        .any(|c| argument.eq_ignore_ascii_case(c.as_bytes()))
                }),
                b"pattern" => Box::new(|spec| {
                    glob::matches(&argument.to_ascii_lowercase(), spec.name.as_bytes())
                }),
                _ => return Err(CommandError::Syntax),
            };
            spec::all()
                .iter()
                .filter(|spec| wanted(spec))
                .map(|spec| spec.name)
                .collect()
        }
        _ => return Err(CommandError::Syntax),
    };
    let mut reply = Reply::new(protocol);
    reply.array(names.len());
    for name in names {
        reply.bulk(name.as_bytes());
    }
    Ok(reply.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(line: &str) -> String {
        let args: Vec<Bytes> = line.split(' ').map(|arg| arg.to_owned().into()).collect();
        String::from_utf8(command(&args, Protocol::Resp3).to_vec()).unwrap()
    }

    #[test]
    fn get_is_described_as_redis_does() {
        assert_eq!(
            ask("COMMAND INFO get nosuch"),
            "*2\r\n*10\r\n$3\r\nget\r\n:2\r\n~2\r\n+readonly\r\n+fast\r\n:1\r\n:1\r\n:1\r\n\
             ~3\r\n+@read\r\n+@string\r\n+@fast\r\n~0\r\n~1\r\n%3\r\n$5\r\nflags\r\n~2\r\n+RO\r\n\
             +access\r\n$12\r\nbegin_search\r\n%2\r\n$4\r\ntype\r\n$5\r\nindex\r\n$4\r\nspec\r\n\
             %1\r\n$5\r\nindex\r\n:1\r\n$9\r\nfind_keys\r\n%2\r\n$4\r\ntype\r\n$5\r\nrange\r\n\
             $4\r\nspec\r\n%3\r\n$7\r\nlastkey\r\n:0\r\n$7\r\nkeystep\r\n:1\r\n$5\r\nlimit\r\n\
             :0\r\n~0\r\n_\r\n"
        );
    }

    #[test]
    fn subcommands() {
        let count = spec::all().len();
        assert_eq!(ask("COMMAND COUNT"), format!(":{count}\r\n"));
        assert!(ask("COMMAND").starts_with(&format!("*{count}\r\n*10\r\n$6\r\nappend\r\n")));
        assert_eq!(ask("COMMAND DOCS nosuch"), "%0\r\n");
        assert!(ask("command docs GET").starts_with("%1\r\n$3\r\nget\r\n%3\r\n$7\r\nsummary\r\n"));
        assert_eq!(
            ask("COMMAND LIST FILTERBY PATTERN MG*"),
            "*1\r\n$4\r\nmget\r\n"
        );
        assert_eq!(ask("COMMAND LIST FILTERBY MODULE x"), "*0\r\n");
        assert_eq!(ask("COMMAND LIST FILTERBY ACLCAT nosuch"), "*0\r\n");
        assert_eq!(ask("COMMAND LIST x"), "-ERR syntax error\r\n");
        assert_eq!(
            ask("COMMAND GETKEYS mset a 1 b 2"),
            "*2\r\n$1\r\na\r\n$1\r\nb\r\n"
        );
        assert_eq!(
            ask("COMMAND FOO"),
            "-ERR unknown subcommand 'FOO'. Try COMMAND HELP.\r\n"
        );
        assert_eq!(
            ask("COMMAND COUNT x"),
            "-ERR wrong number of arguments for 'command|count' command\r\n"
        );
        assert_eq!(
            ask("COMMAND GETKEYS ping x"),
            "-ERR The command has no key arguments\r\n"
        );
        assert_eq!(
            ask("COMMAND GETKEYS foo x"),
            "-ERR Invalid command specified\r\n"
        );
        assert_eq!(
            ask("COMMAND GETKEYS get a b"),
            "-ERR Invalid number of arguments specified for command\r\n"
        );
    }
}
