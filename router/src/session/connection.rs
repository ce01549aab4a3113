//! Commands that concern the connection or the door, and never leave it.
//!
//! Texts and precedence of errors are those of Redis 7.2. There are no users and passwords:
//! the default user is everyone, as in a Redis without `requirepass`.

use super::clients::{ClientState, ClientType};
use super::info::REDIS_VERSION;
use super::walk::integer;
use super::Session;
use bytes::Bytes;
use rangekv_model::redis::codec::Protocol;
use rangekv_model::redis::error::CommandError;
use rangekv_model::redis::reply::{self, Reply};
use rangekv_model::redis::spec::Spec;
use rangekv_model::redis::{command_docs, keys, number};

const NO_PASSWORD: &str = "ERR AUTH <password> called without any password configured for the \
                           default user. Are you sure your configuration is correct?";
const CLIENT_HELP: &[&str] = &[
    "CLIENT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "GETNAME",
    "    Answers the name of the connection.",
    "GETREDIR",
    "    Answers -1: nobody is tracked.",
    "ID",
    "    Answers the id of the connection.",
    "INFO",
    "    Describes the connection.",
    "KILL <ip:port>",
    "    Closes the connection from there.",
    "KILL <option> <value> [<option> <value> ...]",
    "    Closes connections by ID, ADDR, LADDR, TYPE and USER; not the own one but with SKIPME no.",
    "LIST [TYPE (NORMAL|MASTER|REPLICA|PUBSUB)|ID <id> [<id> ...]]",
    "    Describes all connections to this node, or some.",
    "NO-EVICT (ON|OFF)",
    "    Is remembered and shown: nobody is evicted.",
    "NO-TOUCH (ON|OFF)",
    "    Is remembered and shown: no use of a key is recorded.",
    "PAUSE <timeout> [WRITE|ALL]",
    "    Lets writes, or all commands on data, wait for so many milliseconds on this node.",
    "REPLY (ON|OFF|SKIP)",
    "    Sets whether commands of the connection are replied to.",
    "SETINFO (LIB-NAME|LIB-VER) <value>",
    "    Sets what the connection is used by.",
    "SETNAME <name>",
    "    Names the connection.",
    "TRACKINGINFO",
    "    Answers that nobody is tracked.",
    "UNBLOCK <id> [TIMEOUT|ERROR]",
    "    Answers 0: no command blocks.",
    "UNPAUSE",
    "    Ends a PAUSE.",
    "HELP",
    "    Prints this help.",
];
const WRONG_PASSWORD: &str = "WRONGPASS invalid username-password pair or user is disabled.";

impl Session {
    /// Answers a command of `Route::Connection`.
    pub(super) fn connection_command(
        &mut self,
        spec: &'static Spec,
        args: &[Bytes],
        now_ms: u64,
    ) -> Bytes {
        let answer = match spec.name {
            "ping" => match args {
                [_] => Ok(reply::simple("PONG")),
                [_, text] => Ok(reply::bulk(text)),
                _ => Err(arity("ping")),
            },
            "echo" => Ok(reply::bulk(&args[1])),
            "select" => self.select(&args[1]),
            "hello" => self.hello(args),
            "auth" => auth(args),
            "quit" => {
                self.closing = true;
                self.end_subscriptions();
                Ok(reply::ok())
            }
            "reset" => {
                self.end_subscriptions();
                self.state = ClientState::default();
                self.transaction.reset();
                Ok(reply::simple("RESET"))
            }
            "client" => self.client_command(args, now_ms),
            "command" => Ok(command_docs::command(args, self.state.protocol)),
            "info" => Ok(self.info(args)),
            "config" => self.config_command(args),
            "slowlog" => self.slowlog_command(args),
            "latency" => self.latency_command(args),
            // Reads are linearizable on every node, and slots do not migrate between nodes.
            "readonly" | "readwrite" | "asking" => Ok(reply::ok()),
            "time" => Ok(self.time()),
            other => Err(reply::error(&format!(
                "ERR '{other}' is not answered by this door"
            ))),
        };
        answer.unwrap_or_else(|error| error)
    }

    fn select(&mut self, index: &[u8]) -> Result<Bytes, Bytes> {
        match u8::try_from(integer(index)?) {
            Ok(db) if db < keys::DATABASES => {
                self.state.db = db;
                Ok(reply::ok())
            }
            _ => Err(CommandError::DatabaseOutOfRange.to_reply()),
        }
    }

    fn hello(&mut self, args: &[Bytes]) -> Result<Bytes, Bytes> {
        let mut protocol = self.state.protocol;
        if let Some(version) = args.get(1) {
            protocol = match integer(version) {
                Ok(2) => Protocol::Resp2,
                Ok(3) => Protocol::Resp3,
                Ok(_) => return Err(reply::error("NOPROTO unsupported protocol version")),
                Err(_) => {
                    let text = "ERR Protocol version is not an integer or out of range";
                    return Err(reply::error(text));
                }
            };
        }
        let mut name = None;
        let mut options = args.get(2..).unwrap_or_default();
        while let Some(option) = options.first() {
            options = match options {
                [_, user, _, rest @ ..] if option.eq_ignore_ascii_case(b"auth") => {
                    if user[..] != b"default"[..] {
                        return Err(reply::error(WRONG_PASSWORD));
                    }
                    rest
                }
                [_, value, rest @ ..] if option.eq_ignore_ascii_case(b"setname") => {
                    name = Some(client_name(value)?);
                    rest
                }
                _ => {
                    let option = String::from_utf8_lossy(option);
                    let text = format!("ERR Syntax error in HELLO option '{option}'");
                    return Err(reply::error(&text));
                }
            };
        }
        self.state.protocol = protocol;
        if let Some(name) = name {
            self.state.name = name;
        }
        let mut reply = Reply::new(protocol);
        reply.map(7);
        reply.bulk(b"server").bulk(b"redis");
        reply.bulk(b"version").bulk(REDIS_VERSION.as_bytes());
        reply.bulk(b"proto").int(i64::from(protocol.version()));
        reply.bulk(b"id").int(self.client.id as i64);
        reply.bulk(b"mode").bulk(b"standalone");
        reply.bulk(b"role").bulk(b"master");
        reply.bulk(b"modules").array(0);
        Ok(reply.finish())
    }

    fn time(&self) -> Bytes {
        let micros = self.door.node.unix_micros();
        let mut reply = Reply::new(self.state.protocol);
        reply.array(2);
        reply.bulk((micros / 1_000_000).to_string().as_bytes());
        reply.bulk((micros % 1_000_000).to_string().as_bytes());
        reply.finish()
    }

    fn client_command(&mut self, args: &[Bytes], now_ms: u64) -> Result<Bytes, Bytes> {
        let sub = String::from_utf8_lossy(&args[1]).to_ascii_lowercase();
        match (sub.as_str(), &args[2..]) {
            ("id", []) => Ok(reply::int(self.client.id as i64)),
            ("getname", []) => match self.state.name.is_empty() {
                true => Ok(reply::nil(self.state.protocol)),
                false => Ok(reply::bulk(self.state.name.as_bytes())),
            },
            ("setname", [name]) => {
                self.state.name = client_name(name)?;
                Ok(reply::ok())
            }
            ("setinfo", [attribute, value]) => self.set_info(attribute, value),
            ("no-evict", [switch]) => {
                self.state.no_evict = on_or_off(switch)?;
                Ok(reply::ok())
            }
            ("no-touch", [switch]) => {
                self.state.no_touch = on_or_off(switch)?;
                Ok(reply::ok())
            }
            ("reply", [mode]) => {
                if mode.eq_ignore_ascii_case(b"on") {
                    self.state.muted = false;
                } else if mode.eq_ignore_ascii_case(b"off") {
                    self.state.muted = true;
                } else if mode.eq_ignore_ascii_case(b"skip") {
                    self.state.skip_one = !self.state.muted;
                } else {
                    return Err(CommandError::Syntax.to_reply());
                }
                Ok(reply::ok())
            }
            ("info", []) => {
                self.client.update(&self.state, self.holdings(), now_ms);
                Ok(self.text(&format!("{}\n", self.client.line(now_ms))))
            }
            ("list", filter) => self.client_list(filter, now_ms),
            ("help", []) => Ok(help(CLIENT_HELP, self.state.protocol)),
            // Nobody is tracked: that would take word from every store of every write.
            ("getredir", []) => Ok(reply::int(-1)),
            ("tracking", [switch, ..]) => match on_or_off(switch)? {
                false => Ok(reply::ok()),
                true => {
                    let text = "ERR client tracking is not supported: no store knows all writes";
                    Err(reply::error(text))
                }
            },
            ("trackinginfo", []) => {
                let mut reply = Reply::new(self.state.protocol);
                reply.map(3).bulk(b"flags").set(1).bulk(b"off");
                reply.bulk(b"redirect").int(-1).bulk(b"prefixes").array(0);
                Ok(reply.finish())
            }
            ("caching", [_]) => Err(reply::error(
                "ERR CLIENT CACHING can be called only when the client is in tracking mode with \
                 OPTIN or OPTOUT mode enabled",
            )),
            ("unblock", [id, how @ ..]) if how.len() <= 1 => {
                let is = |how: &Bytes, name: &[u8]| how.eq_ignore_ascii_case(name);
                if !how
                    .iter()
                    .all(|how| is(how, b"timeout") || is(how, b"error"))
                {
                    let text = "ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR";
                    return Err(reply::error(text));
                }
                integer(id)?;
                // Nobody waits in a way that this would end.
                Ok(reply::int(0))
            }
            ("pause", [timeout, mode @ ..]) if mode.len() <= 1 => {
                let all = match mode {
                    [] => true,
                    [mode] if mode.eq_ignore_ascii_case(b"all") => true,
                    [mode] if mode.eq_ignore_ascii_case(b"write") => false,
                    _ => {
                        let text = "ERR CLIENT PAUSE mode must be WRITE or ALL";
                        return Err(reply::error(text));
                    }
                };
                let timeout_ms = pause_ms(timeout)?;
                let until_ms = now_ms.saturating_add(timeout_ms);
                self.door.pause.begin(until_ms, all, now_ms);
                Ok(reply::ok())
            }
            ("unpause", []) => {
                self.door.pause.end();
                for client in self.door.clients.all() {
                    client.thread().wake();
                }
                Ok(reply::ok())
            }
            ("pause" | "unblock", [_, _, _, ..]) => Err(reply::error(&format!(
                "ERR unknown subcommand or wrong number of arguments for '{}'. Try CLIENT HELP.",
                String::from_utf8_lossy(&args[1])
            ))),
            ("kill", [_, ..]) => self.client_kill(&args[2..], now_ms),
            (
                name @ ("id" | "getname" | "setname" | "setinfo" | "no-evict" | "no-touch"
                | "reply" | "info" | "kill" | "help" | "getredir" | "tracking"
                | "trackinginfo" | "caching" | "unblock" | "pause" | "unpause"),
                _,
            ) => Err(arity(&format!("client|{name}"))),
            _ => Err(unknown_subcommand("CLIENT", &args[1])),
        }
    }

    fn set_info(&mut self, attribute: &[u8], value: &[u8]) -> Result<Bytes, Bytes> {
        let (field, name) = if attribute.eq_ignore_ascii_case(b"lib-name") {
            (&mut self.state.lib_name, "lib-name")
        } else if attribute.eq_ignore_ascii_case(b"lib-ver") {
            (&mut self.state.lib_version, "lib-ver")
        } else {
            let attribute = String::from_utf8_lossy(attribute);
            return Err(reply::error(&format!(
                "ERR Unrecognized option '{attribute}'"
            )));
        };
        if !value.iter().all(u8::is_ascii_graphic) {
            let text = format!("ERR {name} cannot contain spaces, newlines or special characters.");
            return Err(reply::error(&text));
        }
        *field = String::from_utf8_lossy(value).into_owned();
        Ok(reply::ok())
    }

    fn client_list(&self, filter: &[Bytes], now_ms: u64) -> Result<Bytes, Bytes> {
        self.client.update(&self.state, self.holdings(), now_ms);
        let is = |i: usize, name: &[u8]| filter[i].eq_ignore_ascii_case(name);
        let mut chosen = self.door.clients.all();
        match filter {
            [] => {}
            [_, _, ..] if is(0, b"id") => {
                let invalid = |_| reply::error("ERR Invalid client ID");
                let ids: Result<Vec<i64>, Bytes> = filter[1..]
                    .iter()
                    .map(|id| integer(id).map_err(invalid))
                    .collect();
                let ids = ids?;
                chosen.retain(|client| ids.contains(&(client.id as i64)));
            }
            [_, kind] if is(0, b"type") => {
                let kind = client_type(kind)?;
                chosen.retain(|client| client.is_a(kind));
            }
            _ => return Err(CommandError::Syntax.to_reply()),
        }
        let mut text = String::new();
        for client in chosen {
            text.push_str(&client.line(now_ms));
            text.push('\n');
        }
        Ok(self.text(&text))
    }

    fn client_kill(&mut self, args: &[Bytes], now_ms: u64) -> Result<Bytes, Bytes> {
        self.client.update(&self.state, self.holdings(), now_ms);
        if let [address] = args {
            let all = self.door.clients.all();
            let found = all.iter().find(|c| c.address.as_bytes() == &address[..]);
            let client = found.ok_or_else(|| reply::error("ERR No such client"))?;
            if client.id == self.client.id {
                self.closing = true;
            } else {
                client.kill();
            }
            return Ok(reply::ok());
        }
        let mut doomed = self.door.clients.all();
        let mut skip_me = true;
        for option in args.chunks(2) {
            let [name, value] = option else {
                return Err(CommandError::Syntax.to_reply());
            };
            match &name.to_ascii_lowercase()[..] {
                b"id" => {
                    let id = integer(value).ok().filter(|id| *id > 0);
                    let text = "ERR client-id should be greater than 0";
                    let id = id.ok_or_else(|| reply::error(text))?;
                    doomed.retain(|client| client.id as i64 == id);
                }
                b"addr" => doomed.retain(|client| client.address.as_bytes() == &value[..]),
                b"laddr" => doomed.retain(|client| client.local_address.as_bytes() == &value[..]),
                b"type" => {
                    let kind = client_type(value)?;
                    doomed.retain(|client| client.is_a(kind));
                }
                b"user" if value[..] == b"default"[..] => {}
                b"user" => {
                    let user = String::from_utf8_lossy(value);
                    return Err(reply::error(&format!("ERR No such user '{user}'")));
                }
                b"skipme" if value.eq_ignore_ascii_case(b"yes") => skip_me = true,
                b"skipme" if value.eq_ignore_ascii_case(b"no") => skip_me = false,
                _ => return Err(CommandError::Syntax.to_reply()),
            }
        }
        doomed.retain(|client| !skip_me || client.id != self.client.id);
        for client in &doomed {
            if client.id == self.client.id {
                self.closing = true;
            } else {
                client.kill();
            }
        }
        Ok(reply::int(doomed.len() as i64))
    }

    fn text(&self, text: &str) -> Bytes {
        let mut reply = Reply::new(self.state.protocol);
        reply.verbatim(b"txt", text.as_bytes());
        reply.finish()
    }
}

fn client_type(name: &[u8]) -> Result<ClientType, Bytes> {
    ClientType::parse(name).ok_or_else(|| {
        let name = String::from_utf8_lossy(&name[..name.len().min(128)]);
        reply::error(&format!("ERR Unknown client type '{name}'"))
    })
}

fn auth(args: &[Bytes]) -> Result<Bytes, Bytes> {
    match args {
        [_, _] => Err(reply::error(NO_PASSWORD)),
        [_, user, _] if user[..] == b"default"[..] => Ok(reply::ok()),
        [_, _, _] => Err(reply::error(WRONG_PASSWORD)),
        _ => Err(CommandError::Syntax.to_reply()),
    }
}

/// The milliseconds of a `CLIENT PAUSE`.
fn pause_ms(timeout: &[u8]) -> Result<u64, Bytes> {
    match number::parse_int(timeout) {
        Some(ms) => u64::try_from(ms).map_err(|_| reply::error("ERR timeout is negative")),
        None => Err(reply::error(
            "ERR timeout is not an integer or out of range",
        )),
    }
}

fn client_name(name: &[u8]) -> Result<String, Bytes> {
    if !name.iter().all(u8::is_ascii_graphic) {
        let text = "ERR Client names cannot contain spaces, newlines or special characters.";
        return Err(reply::error(text));
    }
    Ok(String::from_utf8_lossy(name).into_owned())
}

fn on_or_off(switch: &[u8]) -> Result<bool, Bytes> {
    if switch.eq_ignore_ascii_case(b"on") {
        Ok(true)
    } else if switch.eq_ignore_ascii_case(b"off") {
        Ok(false)
    } else {
        Err(CommandError::Syntax.to_reply())
    }
}

/// The reply to `HELP` of a command.
pub(super) fn help(lines: &[&str], protocol: Protocol) -> Bytes {
    let mut reply = Reply::new(protocol);
    reply.array(lines.len());
    for line in lines {
        reply.simple(line);
    }
    reply.finish()
}

pub(super) fn arity(name: &str) -> Bytes {
    CommandError::Arity(name.to_owned()).to_reply()
}

pub(super) fn unknown_subcommand(command: &'static str, typed: &[u8]) -> Bytes {
    let subcommand = String::from_utf8_lossy(&typed[..typed.len().min(128)]).into_owned();
    CommandError::UnknownSubcommand {
        command,
        subcommand,
    }
    .to_reply()
}
