//! What is sent: which command, for which key, with which value.
//!
//! Everything but the key's digits and the value is encoded once. Values are cut from a block
//! of random text, so that no two requests are alike and nothing compresses well.

use super::keys::{Distribution, KeyChooser};
use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// Digits of a key after its prefix.
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
    /// Which keys.
    pub distribution: Distribution,
    /// Number of different keys; 1 to [`KEYS_MAX`].
    pub keys: u64,
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
    /// SET only.
    Set,
    /// GET only.
    Get,
    /// INCR only.
    Incr,
    /// GET with probability `reads`, else SET.
    Mixed {
        /// 0.0 to 1.0.
        reads: f64,
    },
}

/// One request's command; indexes the tallies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// SET, etcd's Put.
    Set,
    /// GET, etcd's Range of one key.
    Get,
    /// INCR.
    Incr,
}

impl Op {
    /// In the order of their discriminants.
    pub const ALL: [Op; 3] = [Op::Set, Op::Get, Op::Incr];

    /// As in Redis.
    pub fn name(self) -> &'static str {
        match self {
            Op::Set => "SET",
            Op::Get => "GET",
            Op::Incr => "INCR",
        }
    }
}

/// Generates the requests of one thread.
pub struct Requests {
    mix: Mix,
    keys: KeyChooser,
    rng: SmallRng,
    /// The key of the request at hand: prefix and digits.
    key: Vec<u8>,
    values: Bytes,
    value_bytes: usize,
    /// RESP, by [`Op`]: all that comes before the key, and all between key and value.
    heads: [Vec<u8>; 3],
    before_value: Vec<u8>,
}

impl Requests {
    /// Requests of `thread`, one of `threads`.
    pub fn new(load: &Load, thread: usize, threads: usize) -> Self {
        let mut rng = SmallRng::seed_from_u64(load.seed.wrapping_add(thread as u64));
        let first = (u128::from(load.keys) * thread as u128 / threads as u128) as u64;
        let letters: Vec<u8> = (0..VALUE_BLOCK_BYTES + load.value_bytes)
            .map(|_| rng.random_range(b'!'..=b'~'))
            .collect();
        let key = [load.key_prefix.as_bytes(), &[b'0'; KEY_DIGITS]].concat();
        let head = |op: Op| {
            let (name, words) = (op.name(), if op == Op::Set { 3 } else { 2 });
            format!(
                "*{words}\r\n${}\r\n{name}\r\n${}\r\n",
                name.len(),
                key.len()
            )
            .into_bytes()
        };
        Self {
            mix: load.mix,
            keys: KeyChooser::new(load.distribution, load.keys, first),
            rng,
            values: Bytes::from(letters),
            value_bytes: load.value_bytes,
            heads: Op::ALL.map(head),
            before_value: format!("\r\n${}\r\n", load.value_bytes).into_bytes(),
            key,
        }
    }

    /// Appends the next request in RESP to `out`.
    pub fn encode_resp(&mut self, out: &mut Vec<u8>) -> Op {
        let op = self.advance();
        out.extend_from_slice(&self.heads[op as usize]);
        out.extend_from_slice(&self.key);
        if op == Op::Set {
            out.extend_from_slice(&self.before_value);
            let at = self.value_at();
            out.extend_from_slice(&self.values[at..at + self.value_bytes]);
        }
        out.extend_from_slice(b"\r\n");
        op
    }

    /// The next request: its command, key and (if it writes one) value.
    pub fn next(&mut self) -> (Op, Bytes, Bytes) {
        let op = self.advance();
        let value = if op == Op::Set {
            let at = self.value_at();
            self.values.slice(at..at + self.value_bytes)
        } else {
            Bytes::new()
        };
        (op, Bytes::copy_from_slice(&self.key), value)
    }

    fn advance(&mut self) -> Op {
        let op = match self.mix {
            Mix::Set => Op::Set,
            Mix::Get => Op::Get,
            Mix::Incr => Op::Incr,
            Mix::Mixed { reads } if self.rng.random::<f64>() < reads => Op::Get,
            Mix::Mixed { .. } => Op::Set,
        };
        let mut key = self.keys.next(&mut self.rng);
        let digits = self.key.len() - KEY_DIGITS;
        for digit in self.key[digits..].iter_mut().rev() {
            *digit = b'0' + (key % 10) as u8;
            key /= 10;
        }
        op
    }

    fn value_at(&mut self) -> usize {
        self.rng.random_range(0..VALUE_BLOCK_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(mix: Mix) -> Load {
        Load {
            mix,
            distribution: Distribution::Sequential,
            keys: 100,
            key_prefix: "k:".into(),
            value_bytes: 5,
            seed: 1,
        }
    }

    fn encode(mix: Mix, count: usize) -> String {
        let mut requests = Requests::new(&load(mix), 0, 1);
        let mut out = Vec::new();
        for _ in 0..count {
            requests.encode_resp(&mut out);
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn get_and_incr_are_two_words() {
        assert_eq!(
            encode(Mix::Get, 2),
            "*2\r\n$3\r\nGET\r\n$14\r\nk:000000000000\r\n*2\r\n$3\r\nGET\r\n$14\r\nk:000000000001\r\n"
        );
        assert_eq!(
            encode(Mix::Incr, 1),
            "*2\r\n$4\r\nINCR\r\n$14\r\nk:000000000000\r\n"
        );
    }

    #[test]
    fn set_carries_a_value_of_the_length_it_says() {
        let set = encode(Mix::Set, 1);
        let head = "*3\r\n$3\r\nSET\r\n$14\r\nk:000000000000\r\n$5\r\n";
        assert!(set.starts_with(head) && set.ends_with("\r\n"), "{set}");
        assert_eq!(set.len(), head.len() + 5 + 2);
    }

    #[test]
    fn both_encodings_draw_the_same_requests() {
        let mixed = load(Mix::Mixed { reads: 0.3 });
        let (mut resp, mut etcd) = (Requests::new(&mixed, 0, 1), Requests::new(&mixed, 0, 1));
        let mut reads = 0;
        for _ in 0..1_000 {
            let mut out = Vec::new();
            let op = resp.encode_resp(&mut out);
            let (etcd_op, key, value) = etcd.next();
            assert_eq!(op, etcd_op);
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
        let (_, key, _) = Requests::new(&load(Mix::Get), 1, 2).next();
        assert_eq!(&key[..], b"k:000000000050");
    }
}
