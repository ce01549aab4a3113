//! Requests in flight on one link: the link's own token for each, and what to answer.
//!
//! Tokens are slot numbers below and the slot's generation above, so that an answer that
//! comes twice, or late, meets nobody else's request.

use rangekv_proto::ReplySink;
use std::sync::Arc;

/// Someone who waits for a response.
pub struct Waiting {
    /// Gets it.
    pub sink: Arc<dyn ReplySink>,
    /// The sink's own name for the request.
    pub token: u64,
    /// Nothing can have been proposed, whatever happened to it.
    pub harmless: bool,
    /// Handed to the link: it may have arrived.
    pub sent: bool,
    /// Bytes of a Pub/Sub message; `None` = it is none.
    pub pubsub: Option<usize>,
}

/// A slab of [`Waiting`].
#[derive(Default)]
pub struct Tokens {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

struct Slot {
    generation: u32,
    waiting: Option<Waiting>,
}

impl Tokens {
    /// Number of requests in flight.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Adds a request; returns its token on the link.
    pub fn insert(&mut self, waiting: Waiting) -> u64 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                generation: 0,
                waiting: None,
            });
            u32::try_from(self.slots.len() - 1).expect("bounded far below 2^32")
        });
        let slot = &mut self.slots[index as usize];
        debug_assert!(slot.waiting.is_none());
        slot.waiting = Some(waiting);
        u64::from(slot.generation) << 32 | u64::from(index)
    }

    /// The request was handed to the link.
    pub fn mark_sent(&mut self, token: u64) {
        if let Some(waiting) = self.slot(token).and_then(|s| s.waiting.as_mut()) {
            waiting.sent = true;
        }
    }

    /// Takes out the request that was given `token`, unless it was taken before.
    pub fn remove(&mut self, token: u64) -> Option<Waiting> {
        let slot = self.slot(token)?;
        let waiting = slot.waiting.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(token as u32);
        Some(waiting)
    }

    /// Takes out everything.
    pub fn drain(&mut self) -> Vec<Waiting> {
        let mut drained = Vec::with_capacity(self.len());
        for (index, slot) in self.slots.iter_mut().enumerate() {
            if let Some(waiting) = slot.waiting.take() {
                slot.generation = slot.generation.wrapping_add(1);
                self.free.push(index as u32);
                drained.push(waiting);
            }
        }
        drained
    }

    fn slot(&mut self, token: u64) -> Option<&mut Slot> {
        let generation = (token >> 32) as u32;
        self.slots
            .get_mut(token as u32 as usize)
            .filter(|slot| slot.generation == generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rangekv_proto::Response;

    struct Nobody;
    impl ReplySink for Nobody {
        fn complete(&self, _: u64, _: Response) {}
    }

    fn waiting(token: u64) -> Waiting {
        Waiting {
            sink: Arc::new(Nobody),
            token,
            harmless: false,
            sent: false,
            pubsub: None,
        }
    }

    #[test]
    fn each_token_is_answered_once() {
        let mut tokens = Tokens::default();
        let (a, b) = (tokens.insert(waiting(10)), tokens.insert(waiting(11)));
        assert_eq!(tokens.len(), 2);
        assert_eq!(tokens.remove(a).unwrap().token, 10);
        assert!(tokens.remove(a).is_none(), "twice");
        let c = tokens.insert(waiting(12));
        assert_eq!(c as u32, a as u32, "slots are used again");
        assert!(
            tokens.remove(a).is_none(),
            "a late answer meets nobody else"
        );
        assert_eq!(tokens.remove(c).unwrap().token, 12);
        assert_eq!(tokens.remove(b).unwrap().token, 11);
        assert_eq!(tokens.len(), 0);
        assert!(tokens.remove(u64::MAX).is_none());
    }

    #[test]
    fn draining_tells_what_was_sent_and_ends_all_tokens() {
        let mut tokens = Tokens::default();
        let all: Vec<u64> = (0..3).map(|n| tokens.insert(waiting(n))).collect();
        tokens.mark_sent(all[1]);
        let drained = tokens.drain();
        assert_eq!(
            drained
                .iter()
                .map(|w| (w.token, w.sent))
                .collect::<Vec<_>>(),
            [(0, false), (1, true), (2, false)]
        );
        assert_eq!(tokens.len(), 0);
        assert!(all.into_iter().all(|t| tokens.remove(t).is_none()));
    }
}
