//! The one table of commands: what the router needs to dispatch them, and what `COMMAND`
//! tells about them.
//!
//! Arities, key positions and flags are those which Redis 7.2 documents for each command.
//! Adding a command is a row here and a line in `RedisModel`'s dispatch, or, with
//! [`Route::Connection`] or [`Route::Node`], in the router's.
//!
//! Invariant: the rows are sorted by name, lower case.

use super::keys;
use super::number;
use bytes::Bytes;

/// Who answers a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    /// The router itself, at once: it concerns the connection or the door, not the data.
    Connection,
    /// The router, in its turn: what is asked may take other stores, or a walk through keys.
    Node,
    /// The leader of the one range in which all keys lie, in one evaluation.
    SingleRange,
    /// Pieces per range, each with its own keys; the elements of the array replies are put
    /// back into the order of the keys.
    FanOutArray,
    /// Pieces per range; the integer replies are summed.
    FanOutSum,
    /// As [`SingleRange`](Self::SingleRange) if both keys lie in one range. If not, the router
    /// fetches both values with `GET` and calls `redis::lcs`.
    Lcs,
    /// As [`SingleRange`](Self::SingleRange) if all keys lie in one range. If not, the router
    /// fetches their [`records`](super::records), and evaluates the command itself.
    FanOutRecords,
    /// The router walks all ranges with the paged commands of [`paging`](super::paging).
    Keyspace,
}

/// What a command belongs to in the documentation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Group {
    /// Strings.
    String,
    /// Keys of any type.
    Generic,
    /// Hashes.
    Hash,
    /// Lists.
    List,
    /// Sets.
    Set,
    /// Sorted sets.
    SortedSet,
    /// Bits of strings.
    Bitmap,
    /// HyperLogLogs.
    HyperLogLog,
    /// The connection.
    Connection,
    /// The server.
    Server,
    /// `MULTI` and what belongs to it.
    Transactions,
    /// Publish and subscribe.
    PubSub,
    /// The cluster.
    Cluster,
}

impl Group {
    /// The name in `COMMAND DOCS`.
    pub fn name(self) -> &'static str {
        match self {
            Group::String => "string",
            Group::Generic => "generic",
            Group::Hash => "hash",
            Group::List => "list",
            Group::Set => "set",
            Group::SortedSet => "sorted-set",
            Group::Bitmap => "bitmap",
            Group::HyperLogLog => "hyperloglog",
            Group::Connection => "connection",
            Group::Server => "server",
            Group::Transactions => "transactions",
            Group::PubSub => "pubsub",
            Group::Cluster => "cluster",
        }
    }
}

/// A set of command flags.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flags(u16);

impl Flags {
    /// May change data.
    pub const WRITE: Flags = Flags(1);
    /// Never changes data, save for removing what has expired.
    pub const READONLY: Flags = Flags(1 << 1);
    /// Takes constant or logarithmic time.
    pub const FAST: Flags = Flags(1 << 2);
    /// May make the data larger.
    pub const DENYOOM: Flags = Flags(1 << 3);
    /// For administrators.
    pub const ADMIN: Flags = Flags(1 << 4);
    /// Allowed while data is loading.
    pub const LOADING: Flags = Flags(1 << 5);
    /// Allowed on a replica that lost its master.
    pub const STALE: Flags = Flags(1 << 6);
    /// Not allowed in scripts.
    pub const NOSCRIPT: Flags = Flags(1 << 7);
    /// Needs no authentication.
    pub const NO_AUTH: Flags = Flags(1 << 8);
    /// Allowed while a script is busy.
    pub const ALLOW_BUSY: Flags = Flags(1 << 9);
    /// Of the ACL category `@dangerous`; not shown as a flag.
    pub const DANGEROUS: Flags = Flags(1 << 10);

    /// Which arguments are keys depends on the arguments.
    pub const MOVABLE_KEYS: Flags = Flags(1 << 11);
    /// About publish and subscribe.
    pub const PUBSUB: Flags = Flags(1 << 13);

    /// Not allowed between `MULTI` and `EXEC`.
    pub const NO_MULTI: Flags = Flags(1 << 12);
    /// Has subcommands, and is known by both names; not shown as a flag.
    pub const CONTAINER: Flags = Flags(1 << 14);

    /// Flags with their names, in the order in which `COMMAND INFO` lists them.
    pub const NAMES: &'static [(Flags, &'static str)] = &[
        (Flags::WRITE, "write"),
        (Flags::READONLY, "readonly"),
        (Flags::DENYOOM, "denyoom"),
        (Flags::ADMIN, "admin"),
        (Flags::PUBSUB, "pubsub"),
        (Flags::NOSCRIPT, "noscript"),
        (Flags::LOADING, "loading"),
        (Flags::STALE, "stale"),
        (Flags::FAST, "fast"),
        (Flags::NO_AUTH, "no_auth"),
        (Flags::ALLOW_BUSY, "allow_busy"),
        (Flags::NO_MULTI, "no_multi"),
        (Flags::MOVABLE_KEYS, "movablekeys"),
    ];

    /// Both sets together.
    pub const fn and(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// Whether all of `other` are in this set.
    pub const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }
}

/// A row of the table.
#[derive(Debug)]
pub struct Spec {
    /// Lower case, as it stands in error messages.
    pub name: &'static str,
    /// Number of arguments with the name; negative: at least as many.
    pub arity: i8,
    /// What kind of command it is.
    pub flags: Flags,
    /// Index of the first key among the arguments (the name is 0); 0 = has no keys.
    pub first_key: u8,
    /// Index of the last key; negative counts from the end: -1 is the last argument.
    pub last_key: i8,
    /// Distance between keys; 0 = has no keys.
    pub key_step: u8,
    /// Index of the argument that says how many keys follow it, besides those above; 0 = none.
    pub count_at: u8,
    /// Chapter of the documentation.
    pub group: Group,
    /// First Redis version that had it.
    pub since: &'static str,
    /// Who answers it.
    pub route: Route,
    /// One sentence about it.
    pub summary: &'static str,
}

impl Spec {
    /// Whether `argc` arguments, the name included, are as many as the command takes.
    pub fn accepts(&self, argc: usize) -> bool {
        let wanted = usize::from(self.arity.unsigned_abs());
        if self.arity < 0 {
            argc >= wanted
        } else {
            argc == wanted
        }
    }

    /// Whether a command of so many arguments, the name included, may have several keys.
    pub fn may_have_several_keys(&self, argc: usize) -> bool {
        let (first, last) = (usize::from(self.first_key), i16::from(self.last_key));
        let one = last == first as i16 || (last < 0 && argc == first + 1);
        !one || self.flags.contains(Flags::MOVABLE_KEYS)
    }

    /// As [`row`], whose keys are also, or instead, as many as an argument says, after it.
    const fn counted(mut self, count_at: u8) -> Self {
        self.count_at = count_at;
        self.flags = self.flags.and(Flags::MOVABLE_KEYS);
        self
    }

    /// Whether it is `SORT` or `SORT_RO`, of whose keys nobody knows all beforehand.
    pub fn is_sort(&self) -> bool {
        self.group == Group::Generic && matches!(self.name, "sort" | "sort_ro")
    }

    /// Whether the request may be sent as read-only; `WATCH`, which Redis does not flag, may.
    pub fn is_readonly(&self) -> bool {
        self.flags.contains(Flags::READONLY) || self.name == "watch"
    }
}

/// The longest name in the table, in bytes.
const NAME_BYTES_MAX: usize = 20;

/// The command called `name`, in any mixture of cases. Allocates nothing.
pub fn lookup(name: &[u8]) -> Option<&'static Spec> {
    let mut buffer = [0u8; NAME_BYTES_MAX];
    let lower = buffer.get_mut(..name.len())?;
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    let lower = &*lower;
    let found = TABLE.binary_search_by(|spec| spec.name.as_bytes().cmp(lower));
    found.ok().map(|index| &TABLE[index])
}

/// All commands, sorted by name.
pub fn all() -> &'static [Spec] {
    TABLE
}

/// The indexes of a command's keys among its arguments (the name is 0). If there are fewer
/// arguments than the command takes, those that are there.
pub fn keys(spec: &Spec, args: &[Bytes]) -> impl Iterator<Item = usize> {
    let argc = args.len() as i64;
    let last = match i64::from(spec.last_key) {
        last if last < 0 => argc + last,
        last => last.min(argc - 1),
    };
    let first = usize::from(spec.first_key);
    let end = if first == 0 {
        0
    } else {
        (last + 1).max(0) as usize
    };
    let counted = match usize::from(spec.count_at) {
        0 => 0..0,
        at => {
            let count = args.get(at).and_then(|text| number::parse_int(text));
            let count = count.map_or(0, |count| count.clamp(0, argc)) as usize;
            at + 1..(at + 1 + count).min(args.len())
        }
    };
    let stored = match spec.name {
        "sort" => super::sort::destination_at(args),
        _ => None,
    };
    let fixed = (first..end).step_by(usize::from(spec.key_step).max(1));
    fixed.chain(counted).chain(stored)
}

/// The record keys that the leader will read or write for a command on database `db`: by
/// these it is routed. They are [`keys()`] in their databases, since `COPY … DB` names another
/// one for its destination.
pub fn record_keys(spec: &Spec, db: u8, args: &[Bytes]) -> Vec<Bytes> {
    if std::ptr::eq(spec, &super::exec::READS) || std::ptr::eq(spec, &super::exec::WRITES) {
        return super::exec::record_keys(args);
    }
    let destination = if spec.name == "copy" {
        super::keyspace::copy_destination(args)
    } else {
        None
    };
    keys(spec, args)
        .map(|index| {
            let db = match destination {
                Some(destination) if index == 2 => destination,
                _ => db,
            };
            keys::record_key(db, &args[index])
        })
        .collect()
}

const fn row(
    name: &'static str,
    arity: i8,
    flags: Flags,
    keys: (u8, i8, u8),
    route: Route,
    (group, since, summary): (Group, &'static str, &'static str),
) -> Spec {
    Spec {
        name,
        arity,
        flags,
        first_key: keys.0,
        last_key: keys.1,
        key_step: keys.2,
        count_at: 0,
        group,
        since,
        route,
        summary,
    }
}

const NONE: (u8, i8, u8) = (0, 0, 0);
const ONE: (u8, i8, u8) = (1, 1, 1);
const TWO: (u8, i8, u8) = (1, 2, 1);
const MANY: (u8, i8, u8) = (1, -1, 1);
const PAIRS: (u8, i8, u8) = (1, -1, 2);

const READ: Flags = Flags::READONLY;
const READ_FAST: Flags = READ.and(Flags::FAST);
const WRITE: Flags = Flags::WRITE;
const WRITE_FAST: Flags = WRITE.and(Flags::FAST);
const GROW: Flags = WRITE.and(Flags::DENYOOM);
const GROW_FAST: Flags = GROW.and(Flags::FAST);
const FAST: Flags = Flags::FAST;
const ANYTIME: Flags = Flags::LOADING.and(Flags::STALE);
const ANYTIME_FAST: Flags = ANYTIME.and(FAST);
const HANDSHAKE: Flags = ANYTIME_FAST
    .and(Flags::NOSCRIPT)
    .and(Flags::NO_AUTH)
    .and(Flags::ALLOW_BUSY);
const TELL: Flags = ANYTIME_FAST.and(Flags::PUBSUB);
const SUBSCRIBE: Flags = ANYTIME.and(Flags::PUBSUB).and(Flags::NOSCRIPT);

const PARENT: Flags = Flags::CONTAINER;

/// Of `MULTI` and its kin.
const BRACKET: Flags = ANYTIME_FAST.and(Flags::NOSCRIPT).and(Flags::ALLOW_BUSY);

use Group::{
    Bitmap, Cluster, Connection, Generic, Hash, HyperLogLog, List, PubSub, Server, Set,
    SortedSet as Zset, String as Str, Transactions,
};
use Route::{
    Connection as Here, FanOutArray, FanOutRecords as Gathered, FanOutSum, Keyspace, Lcs, Node,
    SingleRange,
};

#[rustfmt::skip]
static TABLE: &[Spec] = &[
    row("append", 3, GROW_FAST, ONE, SingleRange, (Str, "2.0.0", "Adds to the end of a string, creating it if there is none.")),
    row("asking", 1, FAST, NONE, Here, (Cluster, "3.0.0", "Changes nothing: slots do not migrate between nodes.")),
    row("auth", -2, HANDSHAKE, NONE, Here, (Connection, "1.0.0", "Authenticates the connection.")),
    row("bitcount", -2, READ, ONE, SingleRange, (Bitmap, "2.6.0", "Counts the bits of a string that are set.")),
    row("bitfield", -2, GROW, ONE, SingleRange, (Bitmap, "3.2.0", "Reads and writes integers of any width in a string.")),
    row("bitfield_ro", -2, READ_FAST, ONE, SingleRange, (Bitmap, "6.0.0", "Reads integers of any width in a string.")),
    row("bitop", -4, GROW, (2, -1, 1), SingleRange, (Bitmap, "2.6.0", "Combines strings bit by bit, and stores the result.")),
    row("bitpos", -3, READ, ONE, SingleRange, (Bitmap, "2.8.7", "Finds the first bit that is set, or clear.")),
    row("client", -2, PARENT, NONE, Here, (Connection, "2.4.0", "A container for commands about client connections.")),
    row("cluster", -2, PARENT, NONE, Node, (Cluster, "3.0.0", "A container for commands about the cluster.")),
    row("command", -1, ANYTIME.and(PARENT), NONE, Here, (Server, "2.8.13", "Describes the commands.")),
    row("config", -2, PARENT, NONE, Here, (Server, "2.0.0", "A container for commands about this node's settings.")),
    row("copy", -3, GROW, TWO, SingleRange, (Generic, "6.2.0", "Copies a value and its expiry to another key.")),
    row("dbsize", 1, READ_FAST, NONE, Keyspace, (Server, "1.0.0", "Counts the keys of the database.")),
    row("decr", 2, GROW_FAST, ONE, SingleRange, (Str, "1.0.0", "Subtracts one from an integer; a missing key counts as 0.")),
    row("decrby", 3, GROW_FAST, ONE, SingleRange, (Str, "1.0.0", "Subtracts a number from an integer; a missing key counts as 0.")),
    row("del", -2, WRITE, MANY, FanOutSum, (Generic, "1.0.0", "Deletes keys and answers how many there were.")),
    row("discard", 1, BRACKET, NONE, Here, (Transactions, "2.0.0", "Forgets the commands since MULTI.")),
    row("echo", 2, ANYTIME_FAST, NONE, Here, (Connection, "1.0.0", "Answers its argument.")),
    row("exec", 1, ANYTIME.and(Flags::NOSCRIPT), NONE, Here, (Transactions, "1.2.0", "Executes the commands since MULTI.")),
    row("exists", -2, READ_FAST, MANY, FanOutSum, (Generic, "1.0.0", "Counts which of the given keys exist, repeated ones repeatedly.")),
    row("expire", -3, WRITE_FAST, ONE, SingleRange, (Generic, "1.0.0", "Lets a key expire after so many seconds.")),
    row("expireat", -3, WRITE_FAST, ONE, SingleRange, (Generic, "1.2.0", "Lets a key expire at a Unix time in seconds.")),
    row("expiretime", 2, READ_FAST, ONE, SingleRange, (Generic, "7.0.0", "Answers the Unix time in seconds at which a key expires.")),
    row("flushall", -1, WRITE.and(Flags::DANGEROUS), NONE, Keyspace, (Server, "1.0.0", "Deletes the keys of all databases.")),
    row("flushdb", -1, WRITE.and(Flags::DANGEROUS), NONE, Keyspace, (Server, "1.0.0", "Deletes the keys of the database.")),
    row("get", 2, READ_FAST, ONE, SingleRange, (Str, "1.0.0", "Answers a string.")),
    row("getbit", 3, READ_FAST, ONE, SingleRange, (Bitmap, "2.2.0", "Answers a bit of a string.")),
    row("getdel", 2, WRITE_FAST, ONE, SingleRange, (Str, "6.2.0", "Answers a string and deletes it.")),
    row("getex", -2, WRITE_FAST, ONE, SingleRange, (Str, "6.2.0", "Answers a string and sets or removes its expiry.")),
    row("getrange", 4, READ, ONE, SingleRange, (Str, "2.4.0", "Answers a part of a string.")),
    row("getset", 3, GROW_FAST, ONE, SingleRange, (Str, "1.0.0", "Sets a string and answers what it was before.")),
    row("hdel", -3, WRITE_FAST, ONE, SingleRange, (Hash, "2.0.0", "Removes fields of a hash.")),
    row("hello", -1, HANDSHAKE, NONE, Here, (Connection, "6.0.0", "Chooses the protocol version and describes the server.")),
    row("hexists", 3, READ_FAST, ONE, SingleRange, (Hash, "2.0.0", "Answers whether a hash has a field.")),
    row("hget", 3, READ_FAST, ONE, SingleRange, (Hash, "2.0.0", "Answers the value of a field.")),
    row("hgetall", 2, READ, ONE, SingleRange, (Hash, "2.0.0", "Answers all fields and values of a hash.")),
    row("hincrby", 4, GROW_FAST, ONE, SingleRange, (Hash, "2.0.0", "Adds an integer to the value of a field.")),
    row("hincrbyfloat", 4, GROW_FAST, ONE, SingleRange, (Hash, "2.6.0", "Adds a number to the value of a field.")),
    row("hkeys", 2, READ, ONE, SingleRange, (Hash, "2.0.0", "Answers all fields of a hash.")),
    row("hlen", 2, READ_FAST, ONE, SingleRange, (Hash, "2.0.0", "Answers how many fields a hash has.")),
    row("hmget", -3, READ_FAST, ONE, SingleRange, (Hash, "2.0.0", "Answers the values of several fields.")),
    row("hmset", -4, GROW_FAST, ONE, SingleRange, (Hash, "2.0.0", "Sets fields of a hash.")),
    row("hrandfield", -2, READ, ONE, SingleRange, (Hash, "6.2.0", "Answers random fields of a hash.")),
    row("hscan", -3, READ, ONE, SingleRange, (Hash, "2.8.0", "Iterates over fields and values of a hash.")),
    row("hset", -4, GROW_FAST, ONE, SingleRange, (Hash, "2.0.0", "Sets fields of a hash and answers how many are new.")),
    row("hsetnx", 4, GROW_FAST, ONE, SingleRange, (Hash, "2.0.0", "Sets a field if the hash does not have it.")),
    row("hstrlen", 3, READ_FAST, ONE, SingleRange, (Hash, "3.2.0", "Answers the length of a field's value.")),
    row("hvals", 2, READ, ONE, SingleRange, (Hash, "2.0.0", "Answers all values of a hash.")),
    row("incr", 2, GROW_FAST, ONE, SingleRange, (Str, "1.0.0", "Adds one to an integer; a missing key counts as 0.")),
    row("incrby", 3, GROW_FAST, ONE, SingleRange, (Str, "1.0.0", "Adds a number to an integer; a missing key counts as 0.")),
    row("incrbyfloat", 3, GROW_FAST, ONE, SingleRange, (Str, "2.6.0", "Adds a floating-point number to a number; a missing key counts as 0.")),
    row("info", -1, ANYTIME.and(Flags::DANGEROUS), NONE, Here, (Server, "1.0.0", "Describes the server.")),
    row("keys", 2, READ.and(Flags::DANGEROUS), NONE, Keyspace, (Generic, "1.0.0", "Answers all keys that match a pattern.")),
    row("latency", -2, PARENT, NONE, Here, (Server, "2.8.13", "A container for commands about commands that took long.")),
    row("lcs", -3, READ, TWO, Lcs, (Str, "7.0.0", "Answers the longest common subsequence of two strings.")),
    row("lindex", 3, READ, ONE, SingleRange, (List, "1.0.0", "Answers the element at an index.")),
    row("linsert", 5, GROW, ONE, SingleRange, (List, "2.2.0", "Inserts an element before or after another one.")),
    row("llen", 2, READ_FAST, ONE, SingleRange, (List, "1.0.0", "Answers the length of a list.")),
    row("lmove", 5, GROW, TWO, SingleRange, (List, "6.2.0", "Moves an element from an end of a list to an end of another.")),
    row("lmpop", -4, WRITE, NONE, SingleRange, (List, "7.0.0", "Removes elements from the first of several lists that has some.")).counted(1),
    row("lpop", -2, WRITE_FAST, ONE, SingleRange, (List, "1.0.0", "Removes elements from the beginning of a list.")),
    row("lpos", -3, READ, ONE, SingleRange, (List, "6.0.6", "Answers the index of an element.")),
    row("lpush", -3, GROW_FAST, ONE, SingleRange, (List, "1.0.0", "Adds elements to the beginning of a list.")),
    row("lpushx", -3, GROW_FAST, ONE, SingleRange, (List, "2.2.0", "Adds elements to the beginning of a list that exists.")),
    row("lrange", 4, READ, ONE, SingleRange, (List, "1.0.0", "Answers a part of a list.")),
    row("lrem", 4, WRITE, ONE, SingleRange, (List, "1.0.0", "Removes elements that are equal to a value.")),
    row("lset", 4, GROW, ONE, SingleRange, (List, "1.0.0", "Replaces the element at an index.")),
    row("ltrim", 4, WRITE, ONE, SingleRange, (List, "1.0.0", "Removes all elements but a part.")),
    row("memory", -2, READ.and(PARENT), (2, 2, 1), SingleRange, (Server, "4.0.0", "A container for commands about memory.")),
    row("mget", -2, READ_FAST, MANY, FanOutArray, (Str, "1.0.0", "Answers several strings.")),
    row("mset", -3, GROW, PAIRS, SingleRange, (Str, "1.0.1", "Sets several strings at once.")),
    row("msetnx", -3, GROW, PAIRS, SingleRange, (Str, "1.0.1", "Sets several strings at once if none of the keys exists.")),
    row("multi", 1, BRACKET, NONE, Here, (Transactions, "1.2.0", "Begins a transaction.")),
    row("object", -2, READ.and(PARENT), (2, 2, 1), SingleRange, (Generic, "2.2.3", "Tells how a value is stored.")),
    row("persist", 2, WRITE_FAST, ONE, SingleRange, (Generic, "2.2.0", "Removes the expiry of a key.")),
    row("pexpire", -3, WRITE_FAST, ONE, SingleRange, (Generic, "2.6.0", "Lets a key expire after so many milliseconds.")),
    row("pexpireat", -3, WRITE_FAST, ONE, SingleRange, (Generic, "2.6.0", "Lets a key expire at a Unix time in milliseconds.")),
    row("pexpiretime", 2, READ_FAST, ONE, SingleRange, (Generic, "7.0.0", "Answers the Unix time in milliseconds at which a key expires.")),
    row("pfadd", -2, GROW_FAST, ONE, SingleRange, (HyperLogLog, "2.8.9", "Adds elements to a HyperLogLog.")),
    row("pfcount", -2, READ, MANY, Gathered, (HyperLogLog, "2.8.9", "Answers how many different elements were added, approximately.")),
    row("pfmerge", -2, GROW, MANY, SingleRange, (HyperLogLog, "2.8.9", "Merges HyperLogLogs into one.")),
    row("ping", -1, FAST, NONE, Here, (Connection, "1.0.0", "Answers PONG, or its argument.")),
    row("psetex", 4, GROW, ONE, SingleRange, (Str, "2.6.0", "Sets a string that expires after so many milliseconds.")),
    row("psubscribe", -2, SUBSCRIBE, NONE, Here, (PubSub, "2.0.0", "Subscribes to all channels that match patterns.")),
    row("pttl", 2, READ_FAST, ONE, SingleRange, (Generic, "2.6.0", "Answers in how many milliseconds a key expires.")),
    row("publish", 3, TELL, NONE, Here, (PubSub, "2.0.0", "Sends a message to a channel's subscribers and answers how many got it.")),
    row("pubsub", -2, PARENT, NONE, Here, (PubSub, "2.8.0", "A container for commands about channels and their subscribers.")),
    row("punsubscribe", -1, SUBSCRIBE, NONE, Here, (PubSub, "2.0.0", "Ends subscriptions to patterns, or to all of them.")),
    row("quit", -1, HANDSHAKE, NONE, Here, (Connection, "1.0.0", "Closes the connection.")),
    row("randomkey", 1, READ, NONE, Keyspace, (Generic, "1.0.0", "Answers some key of the database.")),
    row("readonly", 1, ANYTIME_FAST, NONE, Here, (Cluster, "3.0.0", "Changes nothing: every node answers reads, and all of them linearizably.")),
    row("readwrite", 1, ANYTIME_FAST, NONE, Here, (Cluster, "3.0.0", "Changes nothing: the opposite of READONLY.")),
    row("rename", 3, WRITE, TWO, SingleRange, (Generic, "1.0.0", "Renames a key, replacing what has the new name.")),
    row("renamenx", 3, WRITE_FAST, TWO, SingleRange, (Generic, "1.0.0", "Renames a key if nothing has the new name.")),
    row("reset", 1, HANDSHAKE, NONE, Here, (Connection, "6.2.0", "Returns the connection to its first state.")),
    row("rpop", -2, WRITE_FAST, ONE, SingleRange, (List, "1.0.0", "Removes elements from the end of a list.")),
    row("rpoplpush", 3, GROW, TWO, SingleRange, (List, "1.2.0", "Moves the last element of a list to the beginning of another.")),
    row("rpush", -3, GROW_FAST, ONE, SingleRange, (List, "1.0.0", "Adds elements to the end of a list.")),
    row("rpushx", -3, GROW_FAST, ONE, SingleRange, (List, "2.2.0", "Adds elements to the end of a list that exists.")),
    row("sadd", -3, GROW_FAST, ONE, SingleRange, (Set, "1.0.0", "Adds members to a set.")),
    row("scan", -2, READ, NONE, Keyspace, (Generic, "2.8.0", "Iterates over the keys of the database.")),
    row("scard", 2, READ_FAST, ONE, SingleRange, (Set, "1.0.0", "Answers how many members a set has.")),
    row("sdiff", -2, READ, MANY, Gathered, (Set, "1.0.0", "Answers the members of a set that others do not have.")),
    row("sdiffstore", -3, GROW, MANY, SingleRange, (Set, "1.0.0", "Stores the members of a set that others do not have.")),
    row("select", 2, ANYTIME_FAST, NONE, Here, (Connection, "1.0.0", "Changes the connection's database.")),
    row("set", -3, GROW, ONE, SingleRange, (Str, "1.0.0", "Sets a string, with conditions and an expiry if wanted.")),
    row("setbit", 4, GROW, ONE, SingleRange, (Bitmap, "2.2.0", "Sets or clears a bit of a string.")),
    row("setex", 4, GROW, ONE, SingleRange, (Str, "2.0.0", "Sets a string that expires after so many seconds.")),
    row("setnx", 3, GROW_FAST, ONE, SingleRange, (Str, "1.0.0", "Sets a string if the key does not exist.")),
    row("setrange", 4, GROW, ONE, SingleRange, (Str, "2.2.0", "Overwrites a part of a string, creating it if there is none.")),
    row("sinter", -2, READ, MANY, Gathered, (Set, "1.0.0", "Answers the members that all sets have.")),
    row("sintercard", -3, READ, NONE, Gathered, (Set, "7.0.0", "Answers how many members all sets have.")).counted(1),
    row("sinterstore", -3, GROW, MANY, SingleRange, (Set, "1.0.0", "Stores the members that all sets have.")),
    row("sismember", 3, READ_FAST, ONE, SingleRange, (Set, "1.0.0", "Answers whether a set has a member.")),
    row("slowlog", -2, PARENT, NONE, Here, (Server, "2.2.12", "A container for commands about the slow log.")),
    row("smembers", 2, READ, ONE, SingleRange, (Set, "1.0.0", "Answers all members of a set.")),
    row("smismember", -3, READ_FAST, ONE, SingleRange, (Set, "6.2.0", "Answers which of several members a set has.")),
    row("smove", 4, WRITE_FAST, TWO, SingleRange, (Set, "1.0.0", "Moves a member from a set to another.")),
    row("sort", -2, GROW.and(Flags::MOVABLE_KEYS), ONE, SingleRange, (Generic, "1.0.0", "Answers or stores the elements of a list, set or sorted set in another order.")),
    row("sort_ro", -2, READ.and(Flags::MOVABLE_KEYS), ONE, SingleRange, (Generic, "7.0.0", "Answers the elements of a list, set or sorted set in another order.")),
    row("spop", -2, WRITE_FAST, ONE, SingleRange, (Set, "1.0.0", "Removes and answers random members.")),
    row("spublish", 3, TELL, ONE, Here, (PubSub, "7.0.0", "Sends a message to a shard channel's subscribers and answers how many got it.")),
    row("srandmember", -2, READ, ONE, SingleRange, (Set, "1.0.0", "Answers random members.")),
    row("srem", -3, WRITE_FAST, ONE, SingleRange, (Set, "1.0.0", "Removes members of a set.")),
    row("sscan", -3, READ, ONE, SingleRange, (Set, "2.8.0", "Iterates over the members of a set.")),
    row("ssubscribe", -2, SUBSCRIBE, MANY, Here, (PubSub, "7.0.0", "Subscribes to shard channels.")),
    row("strlen", 2, READ_FAST, ONE, SingleRange, (Str, "2.2.0", "Answers the length of a string in bytes.")),
    row("subscribe", -2, SUBSCRIBE, NONE, Here, (PubSub, "2.0.0", "Subscribes to channels.")),
    row("substr", 4, READ, ONE, SingleRange, (Str, "1.0.0", "Answers a part of a string; the older name of GETRANGE.")),
    row("sunion", -2, READ, MANY, Gathered, (Set, "1.0.0", "Answers the members that any of several sets has.")),
    row("sunionstore", -3, GROW, MANY, SingleRange, (Set, "1.0.0", "Stores the members that any of several sets has.")),
    row("sunsubscribe", -1, SUBSCRIBE, MANY, Here, (PubSub, "7.0.0", "Ends subscriptions to shard channels, or to all of them.")),
    row("time", 1, ANYTIME_FAST, NONE, Here, (Server, "2.6.0", "Answers the server's time.")),
    row("touch", -2, READ_FAST, MANY, FanOutSum, (Generic, "3.2.1", "Counts which of the given keys exist.")),
    row("ttl", 2, READ_FAST, ONE, SingleRange, (Generic, "1.0.0", "Answers in how many seconds a key expires.")),
    row("type", 2, READ_FAST, ONE, SingleRange, (Generic, "1.0.0", "Answers the type of the value at a key.")),
    row("unlink", -2, WRITE_FAST, MANY, FanOutSum, (Generic, "4.0.0", "Deletes keys and answers how many there were.")),
    row("unsubscribe", -1, SUBSCRIBE, NONE, Here, (PubSub, "2.0.0", "Ends subscriptions to channels, or to all of them.")),
    row("unwatch", 1, BRACKET, NONE, Here, (Transactions, "2.2.0", "Forgets the watched keys.")),
    row("wait", 3, Flags(0), NONE, Node, (Generic, "3.0.0", "Waits until so many replicas hold this connection's last write.")),
    row("waitaof", 4, Flags::NOSCRIPT, NONE, Node, (Generic, "7.2.0", "Waits until the leader's disk and so many replicas hold this connection's last write.")),
    row("watch", -2, BRACKET, MANY, SingleRange, (Transactions, "2.2.0", "Lets the next EXEC do nothing if one of the keys is changed before it.")),
    row("zadd", -4, GROW_FAST, ONE, SingleRange, (Zset, "1.2.0", "Adds members to a sorted set, or changes their scores.")),
    row("zcard", 2, READ_FAST, ONE, SingleRange, (Zset, "1.2.0", "Answers how many members a sorted set has.")),
    row("zcount", 4, READ_FAST, ONE, SingleRange, (Zset, "2.0.0", "Counts the members in a range of scores.")),
    row("zdiff", -3, READ, NONE, Gathered, (Zset, "6.2.0", "Answers the members of a sorted set that others do not have.")).counted(1),
    row("zdiffstore", -4, GROW, ONE, SingleRange, (Zset, "6.2.0", "Stores the members of a sorted set that others do not have.")).counted(2),
    row("zincrby", 4, GROW_FAST, ONE, SingleRange, (Zset, "1.2.0", "Adds a number to the score of a member.")),
    row("zinter", -3, READ, NONE, Gathered, (Zset, "6.2.0", "Answers the members that all sorted sets have.")).counted(1),
    row("zintercard", -3, READ, NONE, Gathered, (Zset, "7.0.0", "Answers how many members all sorted sets have.")).counted(1),
    row("zinterstore", -4, GROW, ONE, SingleRange, (Zset, "2.0.0", "Stores the members that all sorted sets have.")).counted(2),
    row("zlexcount", 4, READ_FAST, ONE, SingleRange, (Zset, "2.8.9", "Counts the members in a lexicographical range.")),
    row("zmpop", -4, WRITE, NONE, SingleRange, (Zset, "7.0.0", "Removes members from the first of several sorted sets that has some.")).counted(1),
    row("zmscore", -3, READ_FAST, ONE, SingleRange, (Zset, "6.2.0", "Answers the scores of several members.")),
    row("zpopmax", -2, WRITE_FAST, ONE, SingleRange, (Zset, "5.0.0", "Removes the members with the highest scores.")),
    row("zpopmin", -2, WRITE_FAST, ONE, SingleRange, (Zset, "5.0.0", "Removes the members with the lowest scores.")),
    row("zrandmember", -2, READ, ONE, SingleRange, (Zset, "6.2.0", "Answers random members of a sorted set.")),
    row("zrange", -4, READ, ONE, SingleRange, (Zset, "1.2.0", "Answers members in a range of ranks, scores or members.")),
    row("zrangebylex", -4, READ, ONE, SingleRange, (Zset, "2.8.9", "Answers members in a lexicographical range.")),
    row("zrangebyscore", -4, READ, ONE, SingleRange, (Zset, "1.0.5", "Answers members in a range of scores.")),
    row("zrangestore", -5, GROW, TWO, SingleRange, (Zset, "6.2.0", "Stores members in a range of ranks, scores or members.")),
    row("zrank", -3, READ_FAST, ONE, SingleRange, (Zset, "2.0.0", "Answers the rank of a member, from the lowest score.")),
    row("zrem", -3, WRITE_FAST, ONE, SingleRange, (Zset, "1.2.0", "Removes members of a sorted set.")),
    row("zremrangebylex", 4, WRITE, ONE, SingleRange, (Zset, "2.8.9", "Removes members in a lexicographical range.")),
    row("zremrangebyrank", 4, WRITE, ONE, SingleRange, (Zset, "2.0.0", "Removes members in a range of ranks.")),
    row("zremrangebyscore", 4, WRITE, ONE, SingleRange, (Zset, "1.2.0", "Removes members in a range of scores.")),
    row("zrevrange", -4, READ, ONE, SingleRange, (Zset, "1.2.0", "Answers members in a range of ranks, from the highest score.")),
    row("zrevrangebylex", -4, READ, ONE, SingleRange, (Zset, "2.8.9", "Answers members in a lexicographical range, backwards.")),
    row("zrevrangebyscore", -4, READ, ONE, SingleRange, (Zset, "2.2.0", "Answers members in a range of scores, backwards.")),
    row("zrevrank", -3, READ_FAST, ONE, SingleRange, (Zset, "2.0.0", "Answers the rank of a member, from the highest score.")),
    row("zscan", -3, READ, ONE, SingleRange, (Zset, "2.8.0", "Iterates over members and scores of a sorted set.")),
    row("zscore", 3, READ_FAST, ONE, SingleRange, (Zset, "1.2.0", "Answers the score of a member.")),
    row("zunion", -3, READ, NONE, Gathered, (Zset, "6.2.0", "Answers the members that any of several sorted sets has.")).counted(1),
    row("zunionstore", -4, GROW, ONE, SingleRange, (Zset, "2.0.0", "Stores the members that any of several sorted sets has.")).counted(2),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_names_fit() {
        for pair in TABLE.windows(2) {
            assert!(
                pair[0].name < pair[1].name,
                "{} {}",
                pair[0].name,
                pair[1].name
            );
        }
        for spec in TABLE {
            assert!(spec.name.len() <= NAME_BYTES_MAX);
            assert_eq!(spec.name, spec.name.to_ascii_lowercase());
            assert_eq!(spec.first_key == 0, spec.key_step == 0, "{}", spec.name);
            assert!(
                !spec.flags.contains(Flags::WRITE.and(Flags::READONLY)),
                "{}",
                spec.name
            );
        }
    }

    #[test]
    fn lookup_ignores_case() {
        for spec in TABLE {
            let upper = spec.name.to_ascii_uppercase();
            assert!(std::ptr::eq(lookup(upper.as_bytes()).unwrap(), spec));
            assert!(std::ptr::eq(lookup(spec.name.as_bytes()).unwrap(), spec));
        }
        for name in [
            &b""[..],
            b"nosuch",
            b"a name longer than any in the table",
            b"\0KEYS",
        ] {
            assert!(lookup(name).is_none());
        }
    }

    #[test]
    fn arity_is_exact_or_a_lower_bound() {
        let get = lookup(b"get").unwrap();
        assert_eq!([1, 2, 3].map(|n| get.accepts(n)), [false, true, false]);
        let set = lookup(b"set").unwrap();
        assert_eq!([2, 3, 9].map(|n| set.accepts(n)), [false, true, true]);
    }

    #[test]
    fn keys_are_found_by_position() {
        for (command, expected) in [
            ("get k", &[1][..]),
            ("get", &[]),
            ("mget a b c", &[1, 2, 3]),
            ("mset a 1 b 2", &[1, 3]),
            ("mset a 1 b", &[1, 3]),
            ("lcs a b idx", &[1, 2]),
            ("lcs a", &[1]),
            ("object encoding k", &[2]),
            ("object help", &[]),
            ("ping x", &[]),
            ("zunion 2 a b weights 1 2", &[2, 3]),
            ("zunion 9 a b", &[2, 3]),
            ("zunion x a b", &[]),
            ("sort k by w* store d", &[1, 5]),
            ("zunionstore d 2 a b", &[1, 3, 4]),
        ] {
            let args: Vec<Bytes> = command.split(' ').map(Bytes::from).collect();
            let spec = lookup(&args[0]).unwrap();
            assert_eq!(keys(spec, &args).collect::<Vec<_>>(), expected, "{command}");
        }
    }

    #[test]
    fn copy_is_routed_by_both_databases() {
        let routed = |command: &'static str| {
            let args: Vec<Bytes> = command.split(' ').map(Bytes::from).collect();
            record_keys(lookup(b"copy").unwrap(), 3, &args)
        };
        let key = |db, key: &str| keys::record_key(db, key.as_bytes());
        assert_eq!(routed("copy a b"), [key(3, "a"), key(3, "b")]);
        assert_eq!(routed("copy a b replace db 5"), [key(3, "a"), key(5, "b")]);
        assert_eq!(routed("copy a b db 99"), [key(3, "a"), key(3, "b")]);
    }
}
