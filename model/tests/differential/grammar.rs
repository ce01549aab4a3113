//! Random commands that favour the edges: numbers at and beyond their bounds, empty strings,
//! missing and surplus arguments, options that contradict each other.

use bytes::Bytes;

/// SplitMix64 (Steele, Lea, Flood 2014): the whole sequence follows from the seed.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Rng(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }
}

/// Commands and what they take: one letter per argument, `*` repeats the one before it any
/// number of times. See [`argument`] for the letters.
const COMMANDS: &[(&str, &str)] = &[
    ("GET", "k"),
    ("SET", "kv"),
    ("SET", "kvs*"),
    ("SET", "kvs*"),
    ("SETNX", "kv"),
    ("SETEX", "krv"),
    ("PSETEX", "krv"),
    ("GETSET", "kv"),
    ("GETDEL", "k"),
    ("GETEX", "kg*"),
    ("MGET", "kk*"),
    ("MSET", "kvkv*"),
    ("MSETNX", "kvkv*"),
    ("INCR", "k"),
    ("DECR", "k"),
    ("INCRBY", "ki"),
    ("DECRBY", "ki"),
    ("INCRBYFLOAT", "kf"),
    ("INCRBYFLOAT", "kf"),
    ("APPEND", "kv"),
    ("STRLEN", "k"),
    ("GETRANGE", "kii"),
    ("SUBSTR", "kii"),
    ("SETRANGE", "kov"),
    ("LCS", "kkl*"),
    ("DEL", "kk*"),
    ("UNLINK", "kk*"),
    ("EXISTS", "kk*"),
    ("TOUCH", "kk*"),
    ("TYPE", "t"),
    ("EXPIRE", "krx*"),
    ("PEXPIRE", "krx*"),
    ("EXPIREAT", "kax*"),
    ("PEXPIREAT", "kax*"),
    ("EXPIRETIME", "k"),
    ("PEXPIRETIME", "k"),
    ("TTL", "k"),
    ("PTTL", "k"),
    ("PERSIST", "k"),
    ("RENAME", "tk"),
    ("RENAMENX", "tk"),
    ("COPY", "tkc*"),
    ("OBJECT", "et"),
    ("NOSUCHCOMMAND", "w*"),
];

/// The commonest stand several times, so that commands meet on them.
const STRING_KEYS: &[&str] = &[
    "a", "a", "a", "a", "a", "a", "b", "b", "b", "{a}d", "", "\0", "é{b}",
];
const WORDS: &[&str] = &["", "x", "nx", "1", "word"];
const VALUES: &[&str] = &[
    "",
    "x",
    "hello world",
    "ohmytext",
    "mynewtext",
    "aab",
    "abab\0\r\n",
    "0123456789",
    "12345678901234567890123",
    "this string is longer than forty-four bytes, raw",
];
const INTEGERS: &[&str] = &[
    "0",
    "1",
    "-1",
    "2",
    "3",
    "-3",
    "10",
    "-10",
    "100",
    "-100",
    "9999",
    "10000",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "-9223372036854775809",
    "9223372036854775806",
    "1.5",
    "01",
    "+1",
    " 1",
    "1 ",
    "",
    "-",
    "-0",
    "abc",
    "0x10",
    "1e3",
    "99999999999999999999999999",
];
const FLOATS: &[&str] = &[
    "0.1",
    "0.2",
    "-0.3",
    "1.5",
    "3.0e3",
    "1e17",
    "1e-17",
    "4e-18",
    "6e-18",
    "-6e-18",
    "1e100",
    "-1e100",
    "1e4931",
    "1.1e4932",
    "-1.1e4932",
    "1.19e4932",
    "1e5000",
    "1e-5000",
    "1e-4940",
    "inf",
    "-inf",
    "+Infinity",
    "nan",
    "0x1p3",
    "0X.8p-1",
    "0x",
    ".5",
    "5.",
    ".",
    "1e",
    "1e+",
    "+7",
    "-0",
    "-0.0",
    "12345678901234567890.12345678901234567890",
    "0.000000000000000005",
    "9007199254740993",
    "18446744073709551617",
    "2.5 ",
    "1,5",
    "3.14159265358979323846",
    "1.1",
    "18446744073709551616",
    "-0.5000000000000000001",
    "-0.5",
    "-0.4999999999999999999",
];
const OFFSETS: &[&str] = &[
    "0",
    "1",
    "2",
    "5",
    "20",
    "-1",
    "abc",
    "",
    "536870912",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
];
/// Times that count from now, none of them about to pass.
const RELATIVE: &[&str] = &[
    "1000000",
    "1000000",
    "2000000",
    "3000000",
    "0",
    "-1",
    "-9223372036854775808",
    "abc",
    "",
    "1.5",
    "9223372036854775807",
    "9223372036854775",
    "9223372036854776",
    "-9223372036854775",
    "-9223372036854776",
    "9223372036854775808",
];
/// Moments, in seconds or milliseconds: long past or far ahead in both units.
const ABSOLUTE: &[&str] = &[
    "33177117420000",
    "33177117420000",
    "33177117421499",
    "66354234840500",
    "1",
    "0",
    "-1",
    "-9223372036854775808",
    "abc",
    "",
    "9223372036854774000",
    "9223372036854775",
    "9223372036854776",
    "1000000",
];

/// A command, its name first.
pub fn command(rng: &mut Rng) -> Vec<Bytes> {
    let (name, letters) = COMMANDS[rng.below(COMMANDS.len())];
    let mut words = vec![vary_case(rng, name)];
    let mut kinds = letters.chars().peekable();
    while let Some(kind) = kinds.next() {
        let mut times = 1;
        if kinds.peek() == Some(&'*') {
            kinds.next();
            times = rng.below(4);
        }
        for _ in 0..times {
            argument(rng, kind, &mut words);
        }
    }
    if rng.one_in(40) {
        words.truncate(1 + rng.below(words.len()));
    }
    if rng.one_in(60) {
        argument(rng, 'w', &mut words);
    }
    words
}

fn argument(rng: &mut Rng, kind: char, words: &mut Vec<Bytes>) {
    let word = match kind {
        // A key that holds a string, if anything.
        't' => text(rng.pick(STRING_KEYS)),
        // A key, now and then that of the list.
        'k' if rng.one_in(16) => Bytes::from_static(super::LIST),
        'k' => text(rng.pick(STRING_KEYS)),
        'v' => match rng.below(4) {
            0 => text(rng.pick(INTEGERS)),
            1 => text(rng.pick(FLOATS)),
            _ => text(rng.pick(VALUES)),
        },
        'i' if rng.one_in(3) => (rng.next() as i64 >> rng.below(64)).to_string().into(),
        'i' => text(rng.pick(INTEGERS)),
        'f' => match rng.below(4) {
            0 => text(rng.pick(INTEGERS)),
            1 => random_float(rng),
            _ => text(rng.pick(FLOATS)),
        },
        'o' => text(rng.pick(OFFSETS)),
        'r' => text(rng.pick(RELATIVE)),
        'a' => text(rng.pick(ABSOLUTE)),
        'w' => text(rng.pick(WORDS)),
        'x' => option(rng, &["NX", "XX", "GT", "LT", "GT", "LT", "FOO"]),
        'l' if rng.one_in(3) => {
            words.push(option(rng, &["MINMATCHLEN"]));
            text(rng.pick(INTEGERS))
        }
        'l' => option(
            rng,
            &["LEN", "IDX", "IDX", "WITHMATCHLEN", "MINMATCHLEN", "FOO"],
        ),
        'c' if rng.one_in(2) => {
            words.push(option(rng, &["DB"]));
            text(rng.pick(&["0", "3", "15", "16", "-1", "x", "99999999999"]))
        }
        'c' => option(rng, &["REPLACE", "REPLACE", "DB", "FOO"]),
        'e' => option(rng, &["ENCODING", "ENCODING", "ENCODING", "FREQ", "FOO"]),
        's' | 'g' if rng.one_in(2) => {
            let (name, times) = match rng.below(4) {
                0 => ("EX", RELATIVE),
                1 => ("PX", RELATIVE),
                2 => ("EXAT", ABSOLUTE),
                _ => ("PXAT", ABSOLUTE),
            };
            words.push(vary_case(rng, name));
            text(rng.pick(times))
        }
        's' => option(
            rng,
            &[
                "NX", "XX", "GET", "KEEPTTL", "NX", "XX", "GET", "KEEPTTL", "EX", "FOO",
            ],
        ),
        'g' => option(rng, &["PERSIST", "PERSIST", "KEEPTTL", "PXAT", "NX"]),
        other => unreachable!("no such kind of argument: {other}"),
    };
    words.push(word);
}

fn random_float(rng: &mut Rng) -> Bytes {
    let whole = rng.next() as i64 >> rng.below(64);
    let decimals = rng.next() >> rng.below(64);
    match rng.below(3) {
        0 => format!("{whole}.{decimals}"),
        1 => format!("{whole}e{}", rng.below(40) as i64 - 20),
        _ => format!("{whole}.{decimals}e{}", rng.below(10_200) as i64 - 5100),
    }
    .into()
}

fn option(rng: &mut Rng, names: &[&str]) -> Bytes {
    let name = rng.pick(names);
    vary_case(rng, name)
}

fn vary_case(rng: &mut Rng, name: &str) -> Bytes {
    if rng.one_in(4) {
        name.to_ascii_lowercase().into()
    } else {
        name.to_owned().into()
    }
}

fn text(word: &str) -> Bytes {
    word.to_owned().into()
}
