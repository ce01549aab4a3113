//! Who is connected to a Redis door: what `CLIENT LIST` shows, and `CLIENT KILL` reaches.

use parking_lot::Mutex;
use rangekv_model::redis::codec::Protocol;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

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
    seen: Mutex<(ClientState, u64)>,
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
        let seen = Mutex::new((ClientState::default(), now_ms));
        let client = Arc::new(Client {
            id,
            address,
            local_address,
            since_ms: now_ms,
            hang_up,
            seen,
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
    pub(super) fn update(&self, state: &ClientState, now_ms: u64) {
        let mut seen = self.seen.lock();
        let (old, last_ms) = &mut *seen;
        *last_ms = now_ms;
        old.last_command = state.last_command;
        old.db = state.db;
        // The rest changes a few times in the life of a connection: strings are copied then.
        if *old != *state {
            *old = state.clone();
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
        self.seen.lock().0.name.clone()
    }

    /// The line of `CLIENT LIST`, without a line end.
    pub(super) fn line(&self, now_ms: u64) -> String {
        let seen = self.seen.lock();
        let (state, last_ms) = &*seen;
        let mut line = format!(
            "id={} addr={} laddr={}",
            self.id, self.address, self.local_address
        );
        let mut flags = String::new();
        if state.no_evict {
            flags.push('e');
        }
        if state.no_touch {
            flags.push('T');
        }
        if flags.is_empty() {
            flags.push('N');
        }
        let command = if state.last_command.is_empty() {
            "NULL"
        } else {
            state.last_command
        };
        let written = write!(
            line,
            " name={} age={} idle={} flags={flags} db={} cmd={command} user=default resp={} \
             lib-name={} lib-ver={}",
            state.name,
            now_ms.saturating_sub(self.since_ms) / 1000,
            now_ms.saturating_sub(*last_ms) / 1000,
            state.db,
            state.protocol.version(),
            state.lib_name,
            state.lib_version,
        );
        debug_assert!(written.is_ok(), "a String takes whatever is written to it");
        line
    }
}
