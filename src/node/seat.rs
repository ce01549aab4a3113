//! A store's seat in its cluster: who this process says it is, and how an empty store gets
//! to be someone.
//!
//! Invariants:
//! - A store takes one seat in its life, durably before it says so.
//! - A seat that was meant for another data directory (another incarnation) is refused: that
//!   directory may have voted, and its votes are not in this one.

use super::book::{AddressBook, StoreEntry};
use super::greeting::{wiped, Greeting};
use super::identity::{DataDir, DataDirError, Identity, FORMAT};
use parking_lot::Mutex;
use rangekv_pd::state::StoreRole;
use rangekv_proto::internal as pb;
use rangekv_proto::{RangeDescriptor, StoreId};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;
use tokio::sync::watch;

/// Where others and clients reach this store.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    /// Stores and operators.
    pub grpc: String,
    /// Redis clients.
    pub redis: String,
    /// DynamoDB clients; empty = not served.
    pub dynamo: String,
    /// Status HTTP; empty = not served.
    pub http: String,
}

/// What an empty store is about to do; the values of `Identity.founding` on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Founding {
    /// Waits for its place.
    No = 0,
    /// Asks around whether somebody else has made, or makes, a cluster.
    Asking = 1,
    /// Makes one.
    Decided = 2,
}

/// See the module's documentation.
pub struct Seat {
    /// Held while files are written: seats are taken one at a time.
    data: Mutex<DataDir>,
    path: PathBuf,
    incarnation: u64,
    asked_name: Option<String>,
    default_name: String,
    role: StoreRole,
    addresses: Addresses,
    book: Arc<AddressBook>,
    /// Placement nodes that this one has met, itself among them, by incarnation.
    met: Mutex<BTreeSet<u64>>,
    founding: AtomicU32,
    taken: watch::Sender<Option<Identity>>,
    /// Why this store waits in vain, if somebody has said so.
    notice: Mutex<Option<String>>,
}

impl Seat {
    /// The seat that `data` holds, or none yet. `asked_name` is what the operator calls it,
    /// `default_name` what it is called if the operator does not care.
    pub fn new(
        data: DataDir,
        asked_name: Option<String>,
        default_name: String,
        role: StoreRole,
        addresses: Addresses,
        book: Arc<AddressBook>,
    ) -> Arc<Self> {
        Arc::new(Seat {
            path: data.path().to_path_buf(),
            incarnation: data.incarnation(),
            taken: watch::Sender::new(data.identity().cloned()),
            data: Mutex::new(data),
            asked_name,
            default_name,
            role,
            addresses,
            book,
            met: Mutex::default(),
            founding: AtomicU32::new(Founding::No as u32),
            notice: Mutex::default(),
        })
    }

    /// The data directory.
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// Of the data directory.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Who this store is, once it has a seat.
    pub fn identity(&self) -> Option<Identity> {
        self.taken.borrow().clone()
    }

    /// Waits for the seat.
    pub async fn taken(&self) -> Identity {
        let mut taken = self.taken.subscribe();
        let identity = taken.wait_for(Option::is_some).await;
        let identity = identity.expect("the sender lives in self").clone();
        identity.expect("waited for")
    }

    /// The operator's name for this store.
    pub fn name(&self) -> String {
        match (self.identity(), &self.asked_name) {
            (Some(identity), _) => identity.name,
            (None, Some(name)) => name.clone(),
            (None, None) => self.default_name.clone(),
        }
    }

    /// What this store is for.
    pub fn role(&self) -> StoreRole {
        self.role
    }

    /// Notes which placement nodes this one has met, by incarnation.
    pub fn set_met(&self, met: BTreeSet<u64>) {
        *self.met.lock() = met;
    }

    /// Which placement nodes this one has met.
    pub fn met(&self) -> BTreeSet<u64> {
        self.met.lock().clone()
    }

    /// Names of the stores of this one's cluster, as far as it knows them.
    pub fn known_names(&self) -> Vec<String> {
        self.book.all().into_values().map(|e| e.name).collect()
    }

    /// Where this store is reached.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// What this empty store is about to do.
    pub fn founding(&self) -> Founding {
        match self.founding.load(Ordering::SeqCst) {
            2 => Founding::Decided,
            1 => Founding::Asking,
            _ => Founding::No,
        }
    }

    /// Says what this empty store is about to do.
    pub fn set_founding(&self, founding: Founding) {
        self.founding.store(founding as u32, Ordering::SeqCst);
    }

    /// Why this store waits in vain, as far as somebody has said so.
    pub fn notice(&self) -> Option<String> {
        self.notice.lock().clone()
    }

    /// The answer to "who are you?".
    pub fn describe(&self) -> pb::Identity {
        let identity = self.identity();
        pb::Identity {
            cluster: identity.as_ref().map_or(0, |i| i.cluster),
            store: identity.as_ref().map_or(0, |i| i.store),
            name: self.name(),
            incarnation: self.incarnation,
            grpc_address: self.addresses.grpc.clone(),
            redis_address: self.addresses.redis.clone(),
            dynamo_address: self.addresses.dynamo.clone(),
            http_address: self.addresses.http.clone(),
            format: FORMAT,
            founding: self.founding() as u32,
            role: self.role as u32,
        }
    }

    /// What the registry should know of this store, as store `id` (0 = give me one).
    pub fn record(&self, id: u64) -> pb::StoreRecord {
        pb::StoreRecord {
            store: id,
            name: self.name(),
            incarnation: self.incarnation,
            grpc_address: self.addresses.grpc.clone(),
            redis_address: self.addresses.redis.clone(),
            dynamo_address: self.addresses.dynamo.clone(),
            http_address: self.addresses.http.clone(),
            state: 0,
            role: self.role as u32,
        }
    }

    /// A store of the cluster called this empty one. If it knows another data directory in
    /// this place, this one was wiped.
    pub fn was_called(&self, greeting: &Greeting) {
        if greeting.to_incarnation != 0 && greeting.to_incarnation != self.incarnation {
            self.warn(wiped(&self.name(), greeting.to));
        }
    }

    /// Takes the seat that is offered, or says why not. Blocks on the disk.
    pub fn take(&self, offer: &pb::Initialise) -> Result<(), String> {
        let mut data = self.data.lock();
        if let Some(mine) = data.identity() {
            let same = (mine.cluster, mine.store) == (offer.cluster, offer.store);
            // The answer to the first offer was lost.
            if same && mine.incarnation == offer.incarnation {
                return Ok(());
            }
            return Err(format!(
                "{} is store {} of cluster {:016x} already",
                mine.name, mine.store, mine.cluster
            ));
        }
        if offer.incarnation != self.incarnation {
            let why = wiped(&self.name(), StoreId(offer.store));
            self.warn(why.clone());
            return Err(why);
        }
        if let Some(asked) = self.asked_name.as_ref().filter(|n| **n != offer.name) {
            return Err(format!(
                "the process at {} was started as {asked:?}, not as {:?}: check the list of members",
                self.addresses.grpc, offer.name
            ));
        }
        if offer.cluster == 0 || offer.store == 0 {
            return Err("the offer names no cluster or no store".into());
        }
        self.sit(&mut data, offer).map_err(|e| e.to_string())
    }

    fn sit(&self, data: &mut DataDir, offer: &pb::Initialise) -> Result<(), DataDirError> {
        let identity = Identity {
            cluster: offer.cluster,
            store: offer.store,
            name: offer.name.clone(),
            incarnation: self.incarnation,
            placement: self.role == StoreRole::Placement,
        };
        // First: a store with an identity can always find somebody.
        self.book.update(offer.stores.iter().map(|s| {
            let entry = StoreEntry {
                name: s.name.clone(),
                grpc: s.grpc_address.clone(),
                ..StoreEntry::default()
            };
            (StoreId(s.store), entry)
        }))?;
        let ranges: Vec<RangeDescriptor> = offer.ranges.iter().map(Into::into).collect();
        data.initialise(identity.clone(), &ranges)?;
        tracing::info!(
            node = identity.name,
            store = identity.store,
            cluster = format!("{:016x}", identity.cluster),
            ranges = ranges.len(),
            "this store has its place in a cluster"
        );
        *self.notice.lock() = None;
        self.taken.send_replace(Some(identity));
        Ok(())
    }

    /// Works with the data directory. Blocks on the disk.
    pub fn with_data<T>(&self, work: impl FnOnce(&DataDir) -> T) -> T {
        work(&self.data.lock())
    }

    /// Logs a notice when it is new.
    fn warn(&self, why: String) {
        let mut notice = self.notice.lock();
        if notice.as_ref() != Some(&why) {
            tracing::error!("{why}");
            *notice = Some(why);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat(dir: &std::path::Path, name: &str) -> Arc<Seat> {
        let data = DataDir::open(dir).unwrap();
        let book = Arc::new(AddressBook::open(dir).unwrap());
        let addresses = Addresses {
            grpc: "b:50051".into(),
            ..Addresses::default()
        };
        let (name, role) = (Some(name.into()), StoreRole::Store);
        Seat::new(data, name, "unnamed".into(), role, addresses, book)
    }

    fn offer(incarnation: u64) -> pb::Initialise {
        pb::Initialise {
            cluster: 7,
            store: 2,
            name: "n2".into(),
            incarnation,
            ranges: vec![],
            stores: vec![pb::StoreAddress {
                store: 1,
                name: "n1".into(),
                grpc_address: "a:50051".into(),
            }],
        }
    }

    #[test]
    fn takes_one_seat_and_keeps_it_over_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let incarnation = {
            let seat = seat(dir.path(), "n2");
            assert!(seat.identity().is_none());
            seat.take(&offer(seat.incarnation())).unwrap();
            seat.take(&offer(seat.incarnation()))
                .expect("an offer may come twice");
            let other = pb::Initialise {
                cluster: 8,
                ..offer(seat.incarnation())
            };
            assert!(seat.take(&other).unwrap_err().contains("already"));
            seat.incarnation()
        };
        let seat = seat(dir.path(), "n2");
        let identity = seat.identity().unwrap();
        assert_eq!((identity.cluster, identity.store), (7, 2));
        assert_eq!(seat.incarnation(), incarnation);
        assert_eq!(seat.book.grpc(StoreId(1)).as_deref(), Some("a:50051"));
    }

    #[test]
    fn refuses_a_seat_of_another_directory_and_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let seat = seat(dir.path(), "n2");
        let why = seat.take(&offer(seat.incarnation() ^ 1)).unwrap_err();
        assert!(why.contains("ctl store remove 2"), "{why}");
        assert_eq!(seat.notice(), Some(why));
        let why = seat
            .take(&pb::Initialise {
                name: "n3".into(),
                ..offer(seat.incarnation())
            })
            .unwrap_err();
        assert!(why.contains("started as \"n2\", not as \"n3\""), "{why}");
        assert!(seat.identity().is_none());
    }
}
