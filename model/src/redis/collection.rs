//! What all collections share: a metadata record, a record per element, and that a collection
//! without elements does not exist.
//!
//! To open a collection is to read one record, whatever its size; to delete it is to delete
//! that record: the elements that stay behind are garbage, which [`sweep`](super::sweep)
//! collects. A new collection takes a version that its key never had before, so that it cannot
//! mistake such garbage for its own.

use super::call::Call;
use super::error::CommandError;
use super::keys;
use super::meta::{Encoding, Meta};
use super::value::Kind;
use crate::eval::View;
use bytes::Bytes;
use std::ops::ControlFlow;

/// Called with the hash of a member or field, itself, and its value, until it breaks.
pub(crate) type MemberVisitor<'a> = &'a mut dyn FnMut(u64, &[u8], &[u8]) -> ControlFlow<()>;

/// An opened collection. What is changed in `meta` counts once [`Call::save`] was called.
#[derive(Clone, Debug)]
pub(crate) struct Collection {
    /// The record key.
    pub key: Bytes,
    pub meta: Meta,
    /// What its metadata record was when it was opened.
    stored: Option<Meta>,
    /// What its sub-keys begin with.
    prefix: Vec<u8>,
}

/// A random number takes this many bits of a version, the time in milliseconds the others,
/// which is enough until the year 2527.
const VERSION_SEED_BITS: u32 = 20;

impl Call<'_, '_> {
    /// The collection at a record key, if there is one; an error if something else is there.
    pub fn open(&mut self, key: &Bytes, kind: Kind) -> Result<Option<Collection>, CommandError> {
        let Some(value) = self.read(key) else {
            return Ok(None);
        };
        match Meta::parse(&value) {
            Some(meta) if meta.kind == kind => {
                let mut found = Collection::new(key.clone(), meta);
                found.stored = Some(found.meta.clone());
                Ok(Some(found))
            }
            _ => Err(CommandError::WrongType),
        }
    }

    /// As [`open`](Self::open), or an empty collection.
    pub fn open_or_create(&mut self, key: &Bytes, kind: Kind) -> Result<Collection, CommandError> {
        let found = self.open(key, kind)?;
        Ok(found.unwrap_or_else(|| self.create(key, kind)))
    }

    /// An empty collection in the place of whatever is at the key, once it is saved.
    pub fn create(&self, key: &Bytes, kind: Kind) -> Collection {
        Collection::new(key.clone(), Meta::new(kind, self.fresh_version()))
    }

    /// A version that no collection at any key had: time never runs backwards in a range, and
    /// the seeds of commands of one millisecond differ in their low bits.
    pub fn fresh_version(&self) -> u64 {
        let low = self.context.seed & ((1 << VERSION_SEED_BITS) - 1);
        self.context.now_ms << VERSION_SEED_BITS | low
    }

    /// Writes the metadata if it has changed, or removes it if there are no elements left.
    ///
    /// To give a field another value, or a member another score, is to write elements alone.
    pub fn save(&mut self, collection: &Collection) {
        let Collection {
            key, meta, stored, ..
        } = collection;
        if meta.size == 0 {
            self.delete(key.clone());
        } else if stored.as_ref() != Some(meta) || self.txn.has_written(key) {
            self.put(collection.key.clone(), collection.meta.record());
        }
    }
}

impl Collection {
    /// What stands at `key` with this metadata.
    pub fn new(key: Bytes, meta: Meta) -> Self {
        let prefix = keys::version_prefix(&key, meta.version);
        let stored = None;
        Collection {
            key,
            meta,
            stored,
            prefix,
        }
    }

    /// How many elements it has.
    pub fn len(&self) -> usize {
        self.meta.size as usize
    }

    /// A sub-key.
    pub fn sub_key(&self, space: u8, parts: &[&[u8]]) -> Vec<u8> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let mut key = Vec::with_capacity(self.prefix.len() + 1 + length);
        key.extend_from_slice(&self.prefix);
        key.push(space);
        for part in parts {
            key.extend_from_slice(part);
        }
        key
    }

    /// What of a key follows the space: the caller knows that it is one of this collection.
    pub fn tail<'k>(&self, key: &'k [u8]) -> &'k [u8] {
        &key[self.prefix.len() + 1..]
    }

    /// The key of a member's or field's record.
    pub fn member_key(&self, member: &[u8]) -> Vec<u8> {
        let hash = keys::member_hash(member).to_be_bytes();
        self.sub_key(keys::MEMBERS, &[&hash[2..], member])
    }

    /// The value of a member or field.
    pub fn member(&self, view: &dyn View, member: &[u8]) -> Option<Bytes> {
        view.get(&self.member_key(member))
    }

    /// Visits members or fields with their values in the order of their hashes, from a hash on.
    pub fn members(&self, view: &dyn View, from: u64, visit: MemberVisitor<'_>) {
        let start = self.sub_key(keys::MEMBERS, &[&from.to_be_bytes()[2..]]);
        let end = self.sub_key(keys::MEMBERS + 1, &[]);
        view.scan(&start, &end, &mut |key, value| {
            let (hash, member) = self.tail(key).split_at(6);
            let hash = hash.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte));
            visit(hash, member, value)
        });
    }

    /// All members or fields with their values.
    pub fn all_members(&self, view: &dyn View) -> Vec<(Bytes, Bytes)> {
        let mut all = Vec::with_capacity(self.len().min(1 << 16));
        self.members(view, 0, &mut |_, member, value| {
            all.push((
                Bytes::copy_from_slice(member),
                Bytes::copy_from_slice(value),
            ));
            ControlFlow::Continue(())
        });
        all
    }

    /// Sets a member or field; whether it is new. Keeps the size, not the metadata record.
    pub fn put_member(&mut self, call: &mut Call<'_, '_>, member: &[u8], value: Bytes) -> bool {
        let key = self.member_key(member);
        let new = call.txn.get(&key).is_none();
        call.txn.put(key, value);
        self.meta.size += u64::from(new);
        new
    }

    /// Removes a member or field; whether it was there.
    pub fn remove_member(&mut self, call: &mut Call<'_, '_>, member: &[u8]) -> bool {
        let key = self.member_key(member);
        let found = call.txn.get(&key).is_some();
        if found {
            call.txn.delete(key);
            self.meta.size -= 1;
        }
        found
    }

    /// Notes that Redis would no longer store it as a `listpack`.
    pub fn grow_if(&mut self, large: bool) {
        if large {
            self.meta.encoding = Encoding::Large;
        }
    }

    /// Where its live records end.
    pub fn live_end(&self) -> Bytes {
        match self.meta.kind {
            Kind::List => match self.meta.last.checked_add(1) {
                Some(after) => self.sub_key(keys::POSITIONS, &[&position_bytes(after)]),
                None => self.sub_key(keys::POSITIONS + 1, &[]),
            },
            _ => keys::version_prefix(&self.key, self.meta.version + 1),
        }
        .into()
    }

    /// Whether a record of its version is one of its elements' and not left behind by a trim.
    pub fn is_live(&self, key: &[u8]) -> bool {
        if self.meta.kind != Kind::List {
            return true;
        }
        let first = self.sub_key(keys::POSITIONS, &[&position_bytes(self.meta.first)]);
        key >= &first[..] && key < &self.live_end()[..]
    }

    /// Writes all of its records again as those of another collection, whose version is new.
    pub fn copy_to(&self, call: &mut Call<'_, '_>, key: &Bytes) -> Collection {
        let mut meta = self.meta.clone();
        meta.version = call.fresh_version();
        let copy = Collection::new(key.clone(), meta);
        let mut records = Vec::with_capacity(self.len().min(1 << 16));
        call.txn
            .scan(&self.prefix, &self.live_end(), &mut |from, record| {
                if self.is_live(from) {
                    let to = [&copy.prefix, &from[self.prefix.len()..]].concat();
                    records.push((to, Bytes::copy_from_slice(record)));
                }
                ControlFlow::Continue(())
            });
        for (key, record) in records {
            call.txn.put(key, record);
        }
        call.save(&copy);
        copy
    }
}

/// Eight bytes that order as positions of list elements do.
pub(crate) fn position_bytes(position: i64) -> [u8; 8] {
    (position as u64 ^ 1 << 63).to_be_bytes()
}

/// The position whose [`position_bytes`] these are.
pub(crate) fn position_of(bytes: [u8; 8]) -> i64 {
    (u64::from_be_bytes(bytes) ^ 1 << 63) as i64
}
