//! What reaches a thread of the door from other threads: connections, responses, wishes.
//!
//! Invariant: a thread that sleeps is woken for mail that was sent before it fell asleep, and
//! for [`deposits`](ReplySink::deposit) once their depositor says so.

use super::connection::Connection;
use crate::poll::Waker;
use crate::session::HangUp;
use parking_lot::Mutex;
use rangekv_proto::{ReplySink, Response};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

/// Something for a thread.
pub(super) enum Mail {
    /// Take over a connection.
    Open(Box<Connection>),
    /// A response to a request of a connection.
    Response(u64, u64, Response),
    /// Messages wait for a connection.
    Messages(u64),
    /// Close a connection.
    HangUp(u64),
    /// Close it when what it has read is answered.
    Finish(u64),
    /// End when the last connection has.
    Stop,
    /// End.
    CutOff,
}

/// See the module's documentation.
pub(super) struct Inbox {
    // Held for a push or a swap of vectors. Each connection has at most a window of responses.
    mail: Mutex<Vec<Mail>>,
    /// Set under the lock, and only when there is no mail.
    asleep: AtomicBool,
    waker: Arc<Waker>,
}

impl Inbox {
    pub(super) fn new(waker: Arc<Waker>) -> Self {
        Inbox {
            mail: Mutex::default(),
            asleep: AtomicBool::new(false),
            waker,
        }
    }

    /// Sends mail, and wakes the thread.
    pub(super) fn send(&self, mail: Mail) {
        self.mail.lock().push(mail);
        self.nudge();
    }

    /// Wakes the thread if it sleeps.
    fn nudge(&self) {
        // Whoever pushed mail has held the lock since the thread fell asleep, or the thread has
        // seen the mail: no other order is needed than the lock's.
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed) {
            self.waker.wake();
        }
    }

    /// Swaps all mail for the empty `into`.
    pub(super) fn take(&self, into: &mut Vec<Mail>) {
        debug_assert!(into.is_empty());
        std::mem::swap(&mut *self.mail.lock(), into);
    }

    /// Whether the thread may sleep: from now on mail wakes it. `false`: there is some.
    pub(super) fn fall_asleep(&self) -> bool {
        let mail = self.mail.lock();
        let may = mail.is_empty();
        self.asleep.store(may, Ordering::Relaxed);
        may
    }

    /// The thread is awake, and will look.
    pub(super) fn awake(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }
}

/// Where one connection gets its mail. Ids are never reused: what comes late meets nobody.
pub(super) struct Mailbox {
    pub(super) inbox: Arc<Inbox>,
    pub(super) id: u64,
}

impl ReplySink for Mailbox {
    fn complete(&self, token: u64, response: Response) {
        self.inbox.send(Mail::Response(self.id, token, response));
    }

    fn deposit(&self, token: u64, response: Response) {
        let mail = Mail::Response(self.id, token, response);
        self.inbox.mail.lock().push(mail);
    }

    fn nudge(&self) {
        self.inbox.nudge();
    }
}

impl HangUp for Mailbox {
    fn hang_up(&self) {
        self.inbox.send(Mail::HangUp(self.id));
    }
    fn finish(&self) {
        self.inbox.send(Mail::Finish(self.id));
    }
    fn wake(&self) {
        self.inbox.send(Mail::Messages(self.id));
    }
}
