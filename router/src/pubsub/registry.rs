//! Who is subscribed to what: names and their subscribers, in order of name and connection.

use bytes::Bytes;
use std::collections::BTreeMap;

/// Kinds of names, each with a name space of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Channels: `SUBSCRIBE`, `PUBLISH`.
    Channel,
    /// Glob patterns of channels: `PSUBSCRIBE`.
    Pattern,
    /// Shard channels: `SSUBSCRIBE`, `SPUBLISH`.
    Shard,
}

impl Space {
    /// All of them.
    pub const ALL: [Space; 3] = [Space::Channel, Space::Pattern, Space::Shard];
}

/// Subscribers of a name, by connection.
pub type Subscribers<S> = BTreeMap<u64, S>;

/// See the module's documentation. `S` is what a subscriber is reached by.
///
/// Invariant: a name without subscribers is not there.
#[derive(Debug)]
pub struct Registry<S> {
    spaces: [BTreeMap<Bytes, Subscribers<S>>; 3],
    counts: [usize; 3],
    /// Subscriptions of each connection that has any.
    connections: BTreeMap<u64, usize>,
}

impl<S> Default for Registry<S> {
    fn default() -> Self {
        Registry {
            spaces: Default::default(),
            counts: [0; 3],
            connections: BTreeMap::new(),
        }
    }
}

impl<S> Registry<S> {
    /// Adds a subscription of the connection `id`; whether there was none yet.
    pub fn subscribe(&mut self, space: Space, name: &[u8], id: u64, subscriber: S) -> bool {
        let names = &mut self.spaces[space as usize];
        let subscribers = match names.get_mut(name) {
            Some(subscribers) => subscribers,
            // A copy: a slice would keep all of what it was received with.
            None => names.entry(Bytes::copy_from_slice(name)).or_default(),
        };
        let new = subscribers.insert(id, subscriber).is_none();
        if new {
            self.counts[space as usize] += 1;
            *self.connections.entry(id).or_default() += 1;
        }
        new
    }

    /// Removes a subscription; whether there was one.
    pub fn unsubscribe(&mut self, space: Space, name: &[u8], id: u64) -> bool {
        let names = &mut self.spaces[space as usize];
        let Some(subscribers) = names.get_mut(name) else {
            return false;
        };
        let found = subscribers.remove(&id).is_some();
        if subscribers.is_empty() {
            names.remove(name);
        }
        if found {
            self.counts[space as usize] -= 1;
            if let Some(count) = self.connections.get_mut(&id) {
                *count -= 1;
                if *count == 0 {
                    self.connections.remove(&id);
                }
            }
        }
        found
    }

    /// The subscribers of a name, if it has any.
    pub fn subscribers(&self, space: Space, name: &[u8]) -> Option<&Subscribers<S>> {
        self.spaces[space as usize].get(name)
    }

    /// All names that have subscribers, in ascending order, with them.
    pub fn names(&self, space: Space) -> impl Iterator<Item = (&Bytes, &Subscribers<S>)> {
        self.spaces[space as usize].iter()
    }

    /// Names that have subscribers.
    pub fn name_count(&self, space: Space) -> usize {
        self.spaces[space as usize].len()
    }

    /// Subscriptions in a space.
    pub fn count(&self, space: Space) -> usize {
        self.counts[space as usize]
    }

    /// Connections with a subscription.
    pub fn subscriber_count(&self) -> usize {
        self.connections.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        /// Against a set of triples, which is what a registry means.
        #[test]
        fn is_a_set_of_subscriptions(
            steps in proptest::collection::vec((any::<bool>(), 0..3usize, 0..4u8, 0..4u64), 0..80)
        ) {
            let mut registry = Registry::default();
            let mut model: BTreeSet<(usize, u8, u64)> = BTreeSet::new();
            for (add, space, name, id) in steps {
                let (at, key) = (Space::ALL[space], [name]);
                let changed = match add {
                    true => registry.subscribe(at, &key, id, ()),
                    false => registry.unsubscribe(at, &key, id),
                };
                let expected = match add {
                    true => model.insert((space, name, id)),
                    false => model.remove(&(space, name, id)),
                };
                prop_assert_eq!(changed, expected);
                let mut seen = BTreeSet::new();
                for (index, space) in Space::ALL.into_iter().enumerate() {
                    for (name, subscribers) in registry.names(space) {
                        prop_assert!(!subscribers.is_empty());
                        seen.extend(subscribers.keys().map(|id| (index, name[0], *id)));
                        let found = registry.subscribers(space, name).map(BTreeMap::len);
                        prop_assert_eq!(found, Some(subscribers.len()));
                    }
                    let names: BTreeSet<u8> = model
                        .iter()
                        .filter(|(at, ..)| *at == index)
                        .map(|(_, name, _)| *name)
                        .collect();
                    prop_assert_eq!(registry.name_count(space), names.len());
                    let count = model.iter().filter(|(at, ..)| *at == index).count();
                    prop_assert_eq!(registry.count(space), count);
                }
                prop_assert_eq!(&seen, &model);
                let ids: BTreeSet<u64> = model.iter().map(|(.., id)| *id).collect();
                prop_assert_eq!(registry.subscriber_count(), ids.len());
            }
        }
    }
}
