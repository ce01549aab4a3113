//! What is sent: which command, for which key, with which value.
//!
//! Everything of a request but digits and the value is encoded once. Values are cut from a block
//! of random text, so that no two requests are alike and nothing compresses well.
//!
//! Commands on strings spread over `keys` keys. Those on collections spread over as many
//! elements, which are dealt out to `collections` of them: element `n` lies in collection
//! `n % collections`.

use super::keys::{Distribution, KeyChooser};
use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rangekv_model::redis;
use std::io::Write;

/// Digits of a key after its prefix, and of an element's name.
const KEY_DIGITS: usize = 12;
/// As many as [`KEY_DIGITS`] can tell apart.
pub const KEYS_MAX: u64 = 1_000_000_000_000;
/// Length of the random text that values are cut from, beyond the longest value.
const VALUE_BLOCK_BYTES: usize = 64 * 1024;

/// The traffic that a run generates.
#[derive(Clone, Debug)]
pub struct Load {
    /// Which commands.
    pub mix: Mix,
    /// Which keys, or elements.
    pub distribution: Distribution,
    /// Number of different keys, or elements; 1 to [`KEYS_MAX`].
    pub keys: u64,
    /// Number of collections that the elements lie in; at least 1.
    pub collections: u64,
    /// Comes before each key's digits.
    pub key_prefix: String,
    /// Length of each written value.
    pub value_bytes: usize,
    /// Determines every key and value.
    pub seed: u64,
}

/// Which commands a load consists of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mix {
    /// One command.
    Only(Op),
    /// GET with probability `reads`, else SET.
    Mixed {
        /// 0.0 to 1.0.
        reads: f64,
    },
}

/// One request's command; indexes the tallies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// SET, etcd's Put, DynamoDB's PutItem.
    Set,
    /// GET, etcd's Range of one key, DynamoDB's GetItem.
    Get,
    /// INCR, DynamoDB's UpdateItem.
    Incr,
    /// HSET of one field.
    Hset,
    /// HGET.
    Hget,
    /// SADD of one member.
    Sadd,
    /// SISMEMBER.
    Sismember,
    /// ZADD of one member, whose score is its number.
    Zadd,
    /// ZSCORE.
    Zscore,
    /// ZRANK.
    Zrank,
    /// ZRANGEBYSCORE of ten members.
    Zrange,
    /// LPUSH of one value.
    Lpush,
    /// LRANGE of the first ten elements.
    Lrange,
    /// LINDEX.
    Lindex,
}

/// A word of a command.
enum Word {
    /// Itself.
    Text(&'static str),
    /// The key of a string.
    Key,
    /// The key of a collection.
    Collection,
    /// The name of an element.
    Element,
    /// The element's number in decimal.
    Number,
    /// A random value.
    Value,
}

impl Op {
    /// In the order of their discriminants.
    pub const ALL: [Op; 14] = [
        Op::Set,
        Op::Get,
        Op::Incr,
        Op::Hset,
        Op::Hget,
        Op::Sadd,
        Op::Sismember,
        Op::Zadd,
        Op::Zscore,
        Op::Zrank,
        Op::Zrange,
        Op::Lpush,
        Op::Lrange,
        Op::Lindex,
    ];

    /// As in Redis.
    pub fn name(self) -> &'static str {
        match self.words()[0] {
            Word::Text(name) => name,
            _ => unreachable!("a command begins with its name"),
        }
    }

    fn words(self) -> &'static [Word] {
        use Word::{Collection, Element, Key, Number, Text, Value};
        match self {
            Op::Set => &[Text("SET"), Key, Value],
            Op::Get => &[Text("GET"), Key],
            Op::Incr => &[Text("INCR"), Key],
            Op::Hset => &[Text("HSET"), Collection, Element, Value],
            Op::Hget => &[Text("HGET"), Collection, Element],
            Op::Sadd => &[Text("SADD"), Collection, Element],
            Op::Sismember => &[Text("SISMEMBER"), Collection, Element],
            Op::Zadd => &[Text("ZADD"), Collection, Number, Element],
            Op::Zscore => &[Text("ZSCORE"), Collection, Element],
            Op::Zrank => &[Text("ZRANK"), Collection, Element],
            Op::Zrange => &[
                Text("ZRANGEBYSCORE"),
                Collection,
                Number,
                Text("+inf"),
                Text("LIMIT"),
                Text("0"),
                Text("10"),
            ],
            Op::Lpush => &[Text("LPUSH"), Collection, Value],
            Op::Lrange => &[Text("LRANGE"), Collection, Text("0"), Text("9")],
            Op::Lindex => &[Text("LINDEX"), Collection, Number],
        }
    }

    /// What writes what this command reads; itself if it writes.
    pub fn writer(self) -> Op {
        match self {
            Op::Get => Op::Set,
            Op::Hget => Op::Hset,
            Op::Sismember => Op::Sadd,
            Op::Zscore | Op::Zrank | Op::Zrange => Op::Zadd,
            Op::Lrange | Op::Lindex => Op::Lpush,
            writer => writer,
        }
    }

    /// Text before a key's digits unless another is given: types keep out of each other's way.
    pub fn key_prefix(self) -> &'static str {
        match self.writer() {
            Op::Incr => "counter:",
            Op::Hset => "hash:",
            Op::Sadd => "set:",
            Op::Zadd => "zset:",
            Op::Lpush => "list:",
            _ => "key:",
        }
    }

    fn writes_value(self) -> bool {
        self.words().iter().any(|word| matches!(word, Word::Value))
    }
}

/// A part of an encoded request.
enum Part {
    /// As it is.
    Bytes(Vec<u8>),
    /// Twelve digits of a key.
    KeyDigits,
    /// Twelve digits of a collection's key.
    CollectionDigits,
    /// A bulk string of unknown length: the number.
    Number,
    /// A random value.
    Value,
}

fn template(op: Op, key_prefix: &str, value_bytes: usize) -> Vec<Part> {
    let words = op.words();
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    let mut parts = Vec::new();
    for word in words {
        let (prefix, length, part) = match word {
            Word::Text(text) => (*text, text.len(), None),
            Word::Key => (
                key_prefix,
                key_prefix.len() + KEY_DIGITS,
                Some(Part::KeyDigits),
            ),
            Word::Collection => {
                let part = Part::CollectionDigits;
                (key_prefix, key_prefix.len() + KEY_DIGITS, Some(part))
            }
            Word::Element => ("e", 1 + KEY_DIGITS, Some(Part::KeyDigits)),
            Word::Value => ("", value_bytes, Some(Part::Value)),
            Word::Number => {
                parts.push(Part::Bytes(std::mem::take(&mut bytes)));
                parts.push(Part::Number);
                continue;
            }
        };
        bytes.extend(format!("${length}\r\n{prefix}").into_bytes());
        if let Some(part) = part {
            parts.push(Part::Bytes(std::mem::take(&mut bytes)));
            parts.push(part);
        }
        bytes.extend(b"\r\n");
    }
    parts.push(Part::Bytes(bytes));
    parts
}

/// A request without its value.
#[derive(Clone, Copy, Debug)]
pub struct Drawn {
    /// Its command.
    pub op: Op,
    /// Number of its key, or element.
    n: u64,
}

/// Generates the requests of one thread.
pub struct Requests {
    mix: Mix,
    keys: KeyChooser,
    collections: u64,
    rng: SmallRng,
    key_prefix: Vec<u8>,
    /// Begins with the prefix; the rest is that of the last key whose slot was asked for.
    key: Vec<u8>,
    values: Bytes,
    value_bytes: usize,
    /// RESP, by [`Op`].
    templates: Vec<Vec<Part>>,
}

impl Requests {
    /// Requests of `thread`, one of `threads`.
    pub fn new(load: &Load, thread: usize, threads: usize) -> Self {
        let mut rng = SmallRng::seed_from_u64(load.seed.wrapping_add(thread as u64));
        let first = (u128::from(load.keys) * thread as u128 / threads as u128) as u64;
        let letters: Vec<u8> = (0..VALUE_BLOCK_BYTES + load.value_bytes)
            .map(|_| rng.random_range(b'!'..=b'~'))
            .collect();
        let template = |op: &Op| template(*op, &load.key_prefix, load.value_bytes);
        Self {
            mix: load.mix,
            keys: KeyChooser::new(load.distribution, load.keys, first),
            collections: load.collections,
            rng,
            key_prefix: load.key_prefix.clone().into_bytes(),
            key: load.key_prefix.clone().into_bytes(),
            values: Bytes::from(letters),
            value_bytes: load.value_bytes,
            templates: Op::ALL.iter().map(template).collect(),
        }
    }

    /// The hash slot of the request's key.
    pub fn slot(&mut self, Drawn { op, n }: Drawn) -> u16 {
        let of = |word: &Word| match word {
            Word::Key => Some(n),
            Word::Collection => Some(n % self.collections),
            _ => None,
        };
        let digits = digits(op.words().iter().find_map(of).unwrap_or(n));
        self.key.truncate(self.key_prefix.len());
        self.key.extend_from_slice(&digits);
        redis::keys::slot(&self.key)
    }

    /// Appends a request in RESP to `out`.
    pub fn encode_resp(&mut self, Drawn { op, n }: Drawn, out: &mut Vec<u8>) {
        for part in &self.templates[op as usize] {
            match part {
                Part::Bytes(bytes) => out.extend_from_slice(bytes),
                Part::KeyDigits => out.extend_from_slice(&digits(n)),
                Part::CollectionDigits => out.extend_from_slice(&digits(n % self.collections)),
                Part::Value => {
                    let at = self.rng.random_range(0..VALUE_BLOCK_BYTES);
                    out.extend_from_slice(&self.values[at..at + self.value_bytes]);
                }
                Part::Number => {
                    let length = n.checked_ilog10().unwrap_or(0) + 1;
                    write!(out, "${length}\r\n{n}\r\n").expect("a vector takes all");
                }
            }
        }
    }

    /// The next request: its command, key and (if it writes one) value.
    pub fn next(&mut self) -> (Op, Bytes, Bytes) {
        let Drawn { op, n } = self.draw();
        let value = if op.writes_value() {
            let at = self.rng.random_range(0..VALUE_BLOCK_BYTES);
            self.values.slice(at..at + self.value_bytes)
        } else {
            Bytes::new()
        };
        let key = [&self.key_prefix[..], &digits(n)].concat();
        (op, key.into(), value)
    }

    /// What the next request is.
    pub fn draw(&mut self) -> Drawn {
        let op = match self.mix {
            Mix::Only(op) => op,
            Mix::Mixed { reads } if self.rng.random::<f64>() < reads => Op::Get,
            Mix::Mixed { .. } => Op::Set,
        };
        let n = self.keys.next(&mut self.rng);
        Drawn { op, n }
    }
}

fn digits(mut n: u64) -> [u8; KEY_DIGITS] {
    let mut digits = [b'0'; KEY_DIGITS];
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (n % 10) as u8;
        n /= 10;
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(mix: Mix) -> Load {
        Load {
            mix,
            distribution: Distribution::Sequential,
            keys: 100,
            collections: 3,
            key_prefix: "k:".into(),
            value_bytes: 5,
            seed: 1,
        }
    }

    fn encode(mix: Mix, count: usize) -> String {
        let mut requests = Requests::new(&load(mix), 0, 1);
        let mut out = Vec::new();
        for _ in 0..count {
            let drawn = requests.draw();
            requests.encode_resp(drawn, &mut out);
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn get_and_incr_are_two_words() {
        assert_eq!(
            encode(Mix::Only(Op::Get), 2),
            "*2\r\n$3\r\nGET\r\n$14\r\nk:000000000000\r\n*2\r\n$3\r\nGET\r\n$14\r\nk:000000000001\r\n"
        );
        assert_eq!(
            encode(Mix::Only(Op::Incr), 1),
            "*2\r\n$4\r\nINCR\r\n$14\r\nk:000000000000\r\n"
        );
    }

    #[test]
    fn set_carries_a_value_of_the_length_it_says() {
        let set = encode(Mix::Only(Op::Set), 1);
        let head = "*3\r\n$3\r\nSET\r\n$14\r\nk:000000000000\r\n$5\r\n";
        assert!(set.starts_with(head) && set.ends_with("\r\n"), "{set}");
        assert_eq!(set.len(), head.len() + 5 + 2);
    }

    #[test]
    fn elements_are_dealt_out_to_collections() {
        assert_eq!(
            encode(Mix::Only(Op::Zadd), 12).rsplit("*4").next(),
            Some("\r\n$4\r\nZADD\r\n$14\r\nk:000000000002\r\n$2\r\n11\r\n$13\r\ne000000000011\r\n")
        );
        assert_eq!(
            encode(Mix::Only(Op::Lindex), 1),
            "*3\r\n$6\r\nLINDEX\r\n$14\r\nk:000000000000\r\n$1\r\n0\r\n"
        );
    }

    #[test]
    fn commands_stand_where_their_discriminants_say() {
        for (i, op) in Op::ALL.into_iter().enumerate() {
            assert_eq!(op as usize, i, "{}", op.name());
            assert_eq!(op.writer().writer(), op.writer());
        }
    }

    #[test]
    fn both_encodings_draw_the_same_requests() {
        let mixed = load(Mix::Mixed { reads: 0.3 });
        let (mut resp, mut etcd) = (Requests::new(&mixed, 0, 1), Requests::new(&mixed, 0, 1));
        let mut reads = 0;
        for _ in 0..1_000 {
            let mut out = Vec::new();
            let drawn = resp.draw();
            resp.encode_resp(drawn, &mut out);
            let (etcd_op, key, value) = etcd.next();
            assert_eq!(drawn.op, etcd_op);
            assert_eq!(resp.slot(drawn), redis::keys::slot(&key));
            let op = drawn.op;
            let text = String::from_utf8(out).unwrap();
            assert!(text.contains(std::str::from_utf8(&key).unwrap()));
            assert!(text.contains(std::str::from_utf8(&value).unwrap()));
            reads += usize::from(op == Op::Get);
        }
        assert!(
            (250..350).contains(&reads),
            "{reads} of 1000 were reads, expected about 300"
        );
    }

    #[test]
    fn threads_share_a_sequential_keyspace() {
        let (_, key, _) = Requests::new(&load(Mix::Only(Op::Get)), 1, 2).next();
        assert_eq!(&key[..], b"k:000000000050");
    }
}
