//! Who is connected to a Redis door: what `CLIENT LIST` shows, and `CLIENT KILL` reaches.

use crate::pubsub::Outbox;
use parking_lot::Mutex;
use rangekv_model::redis::codec::Protocol;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// How a connection is closed from outside its own task.
pub trait HangUp: Send + Sync {
    /// Closes the connection soon. Called from any thread, never blocks.
    fn hang_up(&self);

    /// Closes it when what it has read is answered. Called from any thread, never blocks.
    fn finish(&self);

    /// Messages of Pub/Sub wait for it: it is to have a turn. Called from any thread, never blocks.
    fn wake(&self);
}

/// The state of a connection that commands change.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ClientState {
    pub db: u8,
    pub protocol: Protocol,
    pub name: String,
    pub lib_name: String,
    pub lib_version: String,
    pub no_evict: bool,
    pub no_touch: bool,
    /// `CLIENT REPLY OFF`.
    pub muted: bool,
    /// `CLIENT REPLY SKIP`: the next reply is left out.
    pub skip_one: bool,
    pub last_command: &'static str,
    /// Its subcommand, in lower case; empty if it has none.
    pub last_subcommand: String,
}

/// What a connection has at a moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Holdings {
    /// Subscriptions to channels, patterns and shard channels.
    pub subscriptions: [usize; 3],
    /// Commands queued since `MULTI`, and their bytes.
    pub queued: Option<(usize, usize)>,
    /// Keys that it watches.
    pub watched: usize,
    /// Bytes of commands that are not answered, and of replies that wait for those before them.
    pub held_bytes: usize,
}

/// A connection, as others see it.
pub struct Client {
    /// Never reused within a process.
    pub id: u64,
    /// The client's address.
    pub address: String,
    /// The address it connected to.
    pub local_address: String,
    since_ms: u64,
    hang_up: Arc<dyn HangUp>,
    // Copied by its own session once per batch, read by `CLIENT LIST`: hardly ever contended.
    seen: Mutex<Seen>,
    /// Bytes received and not yet understood, and of replies that its socket does not take.
    unread: AtomicUsize,
    unsent: AtomicUsize,
    /// Made with its first subscription.
    outbox: OnceLock<Arc<Outbox>>,
}

#[derive(Default)]
struct Seen {
    state: ClientState,
    holdings: Holdings,
    /// When it sent its last command.
    last_ms: u64,
}

/// Kinds of connections by which `CLIENT LIST` and `CLIENT KILL` choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientType {
    Normal,
    PubSub,
    /// Of a master or replica, of which there are none.
    Other,
}

impl ClientType {
    /// The kind of this name.
    pub fn parse(name: &[u8]) -> Option<Self> {
        match &name.to_ascii_lowercase()[..] {
            b"normal" => Some(ClientType::Normal),
            b"pubsub" => Some(ClientType::PubSub),
            b"master" | b"replica" | b"slave" => Some(ClientType::Other),
            _ => None,
        }
    }
}

/// The connections of a door.
#[derive(Default)]
pub struct Clients {
    last_id: AtomicU64,
    refused: AtomicU64,
    // Taken when a connection opens or closes, and by CLIENT LIST.
    live: Mutex<BTreeMap<u64, Arc<Client>>>,
}

impl Clients {
    /// Registers a connection; `None` if there are `clients_max` already.
    pub fn open(
        &self,
        address: String,
        local_address: String,
        hang_up: Arc<dyn HangUp>,
        now_ms: u64,
        clients_max: usize,
    ) -> Option<Arc<Client>> {
        let mut live = self.live.lock();
        if live.len() >= clients_max {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let seen = Mutex::new(Seen {
            last_ms: now_ms,
            ..Seen::default()
        });
        let client = Arc::new(Client {
            id,
            address,
            local_address,
            since_ms: now_ms,
            hang_up,
            seen,
            unread: AtomicUsize::new(0),
            unsent: AtomicUsize::new(0),
            outbox: OnceLock::new(),
        });
        live.insert(id, client.clone());
        Some(client)
    }

    /// Forgets a connection.
    pub fn close(&self, id: u64) {
        self.live.lock().remove(&id);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.live.lock().len()
    }

    /// How many there have been.
    pub fn accepted(&self) -> u64 {
        self.last_id.load(Ordering::Relaxed)
    }

    /// How many were refused for being too many.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// All of them, by id.
    pub fn all(&self) -> Vec<Arc<Client>> {
        self.live.lock().values().cloned().collect()
    }
}

impl Client {
    /// Shows others what the connection has become.
    pub(super) fn update(&self, state: &ClientState, holdings: Holdings, now_ms: u64) {
        let mut seen = self.seen.lock();
        seen.last_ms = now_ms;
        seen.holdings = holdings;
        let old = &mut seen.state;
        old.last_command = state.last_command;
        old.db = state.db;
        // The rest changes a few times in the life of a connection: strings are copied then.
        if *old != *state {
            *old = state.clone();
        }
    }

    /// Shows others how many bytes wait on both sides of its socket.
    pub(crate) fn buffers(&self, unread: usize, unsent: usize) {
        self.unread.store(unread, Ordering::Relaxed);
        self.unsent.store(unsent, Ordering::Relaxed);
    }

    /// Its messages wait there.
    pub(super) fn has_outbox(&self, outbox: &Arc<Outbox>) {
        self.outbox.get_or_init(|| outbox.clone());
    }

    /// Whether it is of this kind.
    pub(super) fn is_a(&self, kind: ClientType) -> bool {
        let subscribes = self.seen.lock().holdings.subscriptions != [0; 3];
        match kind {
            ClientType::Normal => !subscribes,
            ClientType::PubSub => subscribes,
            ClientType::Other => false,
        }
    }

    /// Closes the connection when what it has read is answered.
    pub fn finish(&self) {
        self.hang_up.finish();
    }

    /// How its thread is reached.
    pub(super) fn thread(&self) -> Arc<dyn HangUp> {
        self.hang_up.clone()
    }

    /// Closes the connection.
    pub(super) fn kill(&self) {
        self.hang_up.hang_up();
    }

    /// The name that the client has given itself.
    pub(super) fn name(&self) -> String {
        self.seen.lock().state.name.clone()
    }

    /// The line of `CLIENT LIST`, without a line end. Of the fields of Redis 7.2 those about the
    /// insides of its buffers are missing, and `fd`.
    pub(super) fn line(&self, now_ms: u64) -> String {
        let seen = self.seen.lock();
        let Seen {
            state,
            holdings,
            last_ms,
        } = &*seen;
        let mut line = format!(
            "id={} addr={} laddr={}",
            self.id, self.address, self.local_address
        );
        let (unread, unsent) = (
            self.unread.load(Ordering::Relaxed),
            self.unsent.load(Ordering::Relaxed),
        );
        let (messages, messages_bytes) = self.outbox.get().map_or((0, 0), |o| o.waiting());
        let [channels, patterns, shards] = holdings.subscriptions;
        let mut flags = String::new();
        for (flag, is_set) in [
            ('P', holdings.subscriptions != [0; 3]),
            ('x', holdings.queued.is_some()),
            ('e', state.no_evict),
            ('T', state.no_touch),
        ] {
            if is_set {
                flags.push(flag);
            }
        }
        if flags.is_empty() {
            flags.push('N');
        }
        let command = match (state.last_command, &state.last_subcommand[..]) {
            ("", _) => "NULL".to_owned(),
            (name, "") => name.to_owned(),
            (name, sub) => format!("{name}|{sub}"),
        };
        let queued = holdings.queued.map_or(-1, |(count, _)| count as i64);
        let queued_bytes = holdings.queued.map_or(0, |(_, bytes)| bytes);
        let events = if unsent > 0 { "rw" } else { "r" };
        let kept = [
            unread,
            holdings.held_bytes,
            queued_bytes,
            unsent,
            messages_bytes,
        ];
        let total = size_of::<super::Session>() + kept.iter().sum::<usize>();
        let written = write!(
            line,
            " name={} age={} idle={} flags={flags} db={} sub={channels} psub={patterns} \
             ssub={shards} multi={queued} watch={} qbuf={unread} argv-mem={} \
             multi-mem={queued_bytes} obl={unsent} oll={messages} omem={messages_bytes} \
             tot-mem={total} events={events} cmd={command} user=default redir=-1 resp={} \
             lib-name={} lib-ver={}",
            state.name,
            now_ms.saturating_sub(self.since_ms) / 1000,
            now_ms.saturating_sub(*last_ms) / 1000,
            state.db,
            holdings.watched,
            holdings.held_bytes,
            state.protocol.version(),
            state.lib_name,
            state.lib_version,
        );
        debug_assert!(written.is_ok(), "a String takes whatever is written to it");
        line
    }
}
