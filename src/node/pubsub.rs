//! Pub/Sub messages of other nodes, on their way to this node's subscribers.
//!
//! They come on the links between stores, and leave the links' tasks at once: handing a message to
//! ten thousand subscribers takes long, and Raft's messages stand behind it. One thread hands them
//! out, in the order in which they came. Their senders bound how many are under way
//! (`PUBSUB_MESSAGES_MAX` in lane.rs).

use bytes::Bytes;
use parking_lot::Mutex;
use rangekv_proto::{ReplySink, RequestError, StoreId};
use rangekv_router::pubsub::Hub;
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::Arc;

/// Messages handed out before their senders are told.
const BATCH_MAX: usize = 256;

/// See the module's documentation.
pub struct Inbound {
    messages: Sender<Message>,
    /// The number of each store's newest link.
    links: Mutex<BTreeMap<StoreId, Arc<AtomicU64>>>,
}

/// A link that messages come on.
///
/// What is left on a link when the next one of the same store is open is not handed out: it
/// would come after what its publishers have published since.
pub struct Incoming {
    messages: Sender<Message>,
    newest: Arc<AtomicU64>,
    number: u64,
}

struct Message {
    newest: Arc<AtomicU64>,
    number: u64,
    ask: Bytes,
    sink: Arc<dyn ReplySink>,
    token: u64,
}

impl Inbound {
    /// Starts the thread, which ends with the last of this and its links.
    pub fn start(hub: Arc<Hub>) -> io::Result<Self> {
        let (messages, received) = channel();
        std::thread::Builder::new()
            .name("pubsub".into())
            .spawn(move || hand_out(&hub, &received))?;
        Ok(Inbound {
            messages,
            links: Mutex::default(),
        })
    }

    /// A store has opened a link.
    pub fn link(&self, from: StoreId) -> Incoming {
        let newest = self.links.lock().entry(from).or_default().clone();
        let number = newest.fetch_add(1, Ordering::Relaxed) + 1;
        Incoming {
            messages: self.messages.clone(),
            newest,
            number,
        }
    }
}

impl Incoming {
    /// A message, and who hears what became of it.
    pub fn push(&self, ask: Bytes, sink: &Arc<dyn ReplySink>, token: u64) {
        let message = Message {
            newest: self.newest.clone(),
            number: self.number,
            ask,
            sink: sink.clone(),
            token,
        };
        if self.messages.send(message).is_err() {
            let why = "the node's Pub/Sub has stopped".into();
            sink.complete(token, Err(RequestError::Unavailable(why)));
        }
    }
}

fn hand_out(hub: &Hub, received: &Receiver<Message>) {
    let mut answered: Vec<Arc<dyn ReplySink>> = Vec::new();
    while let Ok(first) = received.recv() {
        let rest = received.try_iter().take(BATCH_MAX - 1);
        for message in std::iter::once(first).chain(rest) {
            let response = match message.newest.load(Ordering::Relaxed) == message.number {
                true => hub.answer_encoded(&message.ask),
                false => Err(RequestError::Unavailable(
                    "of a link before this one".into(),
                )),
            };
            message.sink.deposit(message.token, response);
            if !answered.iter().any(|sink| Arc::ptr_eq(sink, &message.sink)) {
                answered.push(message.sink);
            }
        }
        answered.drain(..).for_each(|sink| sink.nudge());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rangekv_proto::Response;
    use rangekv_router::pubsub::{Answer, Ask};
    use std::sync::mpsc;

    struct Answers(mpsc::Sender<(u64, Response)>);
    impl ReplySink for Answers {
        fn complete(&self, token: u64, response: Response) {
            self.0.send((token, response)).unwrap();
        }
    }

    #[test]
    fn answers_in_order_and_hands_out_nothing_of_an_older_link() {
        let inbound = Inbound::start(Arc::default()).unwrap();
        let (answers, answered) = mpsc::channel();
        let sink: Arc<dyn ReplySink> = Arc::new(Answers(answers));
        let (old, other) = (inbound.link(StoreId(2)), inbound.link(StoreId(3)));
        let new = inbound.link(StoreId(2));
        let ask = Ask::Patterns.encode();
        for (token, link) in [&old, &new, &other, &old].into_iter().enumerate() {
            link.push(ask.clone(), &sink, token as u64);
        }
        new.push(Bytes::from_static(b"\xff"), &sink, 4);
        let nothing = Answer::Names(Vec::new()).encode();
        for token in 0..5 {
            let (answered, response) = answered.recv().unwrap();
            assert_eq!(answered, token);
            match token {
                1 | 2 => assert_eq!(response, Ok(nothing.clone())),
                0 | 3 => assert!(matches!(response, Err(RequestError::Unavailable(_)))),
                _ => assert!(matches!(response, Err(RequestError::Invalid(_)))),
            }
        }
    }
}
