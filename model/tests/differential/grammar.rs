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

    /// Below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// Once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of several.
    pub fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }
}

/// Commands and what they take: one letter per argument, `*` repeats the one before it any
/// number of times. See [`argument`] for the letters.
type Commands = &'static [(&'static str, &'static str)];

/// Of every other sequence all commands are of one family, and some of [`KEYS`].
const FAMILIES: &[Commands] = &[STRINGS, HASHES, SETS, SORTED_SETS, LISTS, BITS, SKETCHES];

const STRINGS: Commands = &[
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
    ("NOSUCHCOMMAND", "w*"),
];

const KEYS: Commands = &[
    ("DEL", "kk*"),
    ("UNLINK", "kk*"),
    ("EXISTS", "kk*"),
    ("TOUCH", "kk*"),
    ("TYPE", "k"),
    ("EXPIRE", "krx*"),
    ("PEXPIRE", "krx*"),
    ("EXPIREAT", "kax*"),
    ("PEXPIREAT", "kax*"),
    ("EXPIRETIME", "k"),
    ("PEXPIRETIME", "k"),
    ("TTL", "k"),
    ("PTTL", "k"),
    ("PERSIST", "k"),
    ("RENAME", "kk"),
    ("RENAMENX", "kk"),
    ("COPY", "kkc*"),
    ("OBJECT", "ek"),
    ("SORT", "T"),
    ("SORT", "TG*"),
    ("SORT", "TG*"),
    ("SORT_RO", "TG*"),
];

const HASHES: Commands = &[
    ("HSET", "Hmv"),
    ("HSET", "Hmvmv"),
    ("HSET", "Hmvmvmvmv"),
    ("HSET", "Hmvm"),
    ("HMSET", "Hmvmv"),
    ("HSETNX", "Hmv"),
    ("HGET", "Hm"),
    ("HMGET", "Hmm*"),
    ("HGETALL", "H"),
    ("HKEYS", "H"),
    ("HVALS", "H"),
    ("HLEN", "H"),
    ("HEXISTS", "Hm"),
    ("HSTRLEN", "Hm"),
    ("HDEL", "Hmm*"),
    ("HDEL", "Hmm*"),
    ("HINCRBY", "Hmi"),
    ("HINCRBY", "Hmi"),
    ("HINCRBYFLOAT", "Hmf"),
    ("HINCRBYFLOAT", "Hmf"),
    ("HRANDFIELD", "H"),
    ("HRANDFIELD", "Hc"),
    ("HRANDFIELD", "Hcv*"),
    ("HSCAN", "HC"),
    ("HSCAN", "HCp*"),
];

const SETS: Commands = &[
    ("SADD", "Em"),
    ("SADD", "Emm*"),
    ("SADD", "Emmmm*"),
    ("SADD", "Eii"),
    ("SREM", "Em"),
    ("SREM", "Emm*"),
    ("SISMEMBER", "Em"),
    ("SMISMEMBER", "Emm*"),
    ("SCARD", "E"),
    ("SMEMBERS", "E"),
    ("SMOVE", "EEm"),
    ("SPOP", "EP"),
    ("SRANDMEMBER", "E"),
    ("SRANDMEMBER", "Ec"),
    ("SINTER", "EE*"),
    ("SUNION", "EE*"),
    ("SDIFF", "EE*"),
    ("SINTERSTORE", "EEE*"),
    ("SUNIONSTORE", "EEE*"),
    ("SDIFFSTORE", "EEE*"),
    ("SINTERCARD", "#E"),
    ("SINTERCARD", "#El*"),
    ("SSCAN", "EC"),
    ("SSCAN", "ECp*"),
];

const SORTED_SETS: Commands = &[
    ("ZADD", "ZFm"),
    ("ZADD", "ZFmFm"),
    ("ZADD", "ZFmFmFmFm"),
    ("ZADD", "Zq*Fm"),
    ("ZADD", "Zq*FmFm"),
    ("ZADD", "Zq*FmF"),
    ("ZADD", "XFm"),
    ("ZINCRBY", "ZFm"),
    ("ZREM", "Zmm*"),
    ("ZCARD", "Z"),
    ("ZSCORE", "Zm"),
    ("ZMSCORE", "Zmm*"),
    ("ZRANK", "Zm"),
    ("ZREVRANK", "Zm"),
    ("ZCOUNT", "ZRR"),
    ("ZLEXCOUNT", "XLL"),
    ("ZRANGE", "Znn"),
    ("ZRANGE", "Znnz*"),
    ("ZRANGE", "ZRRyz*"),
    ("ZRANGE", "XLLYz*"),
    ("ZREVRANGE", "Znnz*"),
    ("ZRANGEBYSCORE", "ZRRz*"),
    ("ZREVRANGEBYSCORE", "ZRRz*"),
    ("ZRANGEBYLEX", "XLLz*"),
    ("ZREVRANGEBYLEX", "XLLz*"),
    ("ZRANGESTORE", "ZZnnz*"),
    ("ZRANGESTORE", "ZZRRyz*"),
    ("ZRANGESTORE", "XXLLYz*"),
    ("ZREMRANGEBYRANK", "Znn"),
    ("ZREMRANGEBYSCORE", "ZRR"),
    ("ZREMRANGEBYLEX", "XLL"),
    ("ZPOPMIN", "Z"),
    ("ZPOPMAX", "Z"),
    ("ZPOPMIN", "ZP"),
    ("ZPOPMAX", "ZP"),
    ("ZMPOP", "#Zu"),
    ("ZMPOP", "#Zuo*"),
    ("ZRANDMEMBER", "Z"),
    ("ZRANDMEMBER", "Zc"),
    ("ZRANDMEMBER", "Zcz*"),
    ("ZUNION", "#Zg*"),
    ("ZINTER", "#Zg*"),
    ("ZDIFF", "#Zg*"),
    ("ZUNIONSTORE", "Z#Zg*"),
    ("ZINTERSTORE", "Z#Zg*"),
    ("ZDIFFSTORE", "Z#Zg*"),
    ("ZINTERCARD", "#Zl*"),
    ("ZSCAN", "ZC"),
    ("ZSCAN", "ZCp*"),
    ("SADD", "Zmm"),
];

const LISTS: Commands = &[
    ("LPUSH", "Im"),
    ("RPUSH", "Im"),
    ("LPUSH", "Immm*"),
    ("RPUSH", "Immm*"),
    ("LPUSHX", "Imm*"),
    ("RPUSHX", "Imm*"),
    ("LPOP", "I"),
    ("RPOP", "I"),
    ("LPOP", "IP"),
    ("RPOP", "IP"),
    ("LLEN", "I"),
    ("LRANGE", "Inn"),
    ("LRANGE", "Inn"),
    ("LINDEX", "In"),
    ("LINDEX", "In"),
    ("LSET", "Inm"),
    ("LINSERT", "Ibmm"),
    ("LINSERT", "Ibmm"),
    ("LINSERT", "Ibmm"),
    ("LREM", "Inm"),
    ("LREM", "Inm"),
    ("LTRIM", "Inn"),
    ("LPOS", "Im"),
    ("LPOS", "Imd*"),
    ("LMOVE", "IIUU"),
    ("RPOPLPUSH", "II"),
    ("LMPOP", "#IU"),
    ("LMPOP", "#IUo*"),
];

const BITS: Commands = &[
    ("SETBIT", "BOw"),
    ("SETBIT", "BO1"),
    ("SETBIT", "BO1"),
    ("SETBIT", "BO1"),
    ("GETBIT", "BO"),
    ("BITCOUNT", "B"),
    ("BITCOUNT", "Bnn"),
    ("BITCOUNT", "Bnn5"),
    ("BITCOUNT", "Bn"),
    ("BITPOS", "B1"),
    ("BITPOS", "B1n"),
    ("BITPOS", "B1nn"),
    ("BITPOS", "B1nn5"),
    ("BITPOS", "Bn"),
    ("BITOP", "6BBB*"),
    ("BITFIELD", "B7"),
    ("BITFIELD", "B77*"),
    ("BITFIELD", "B777"),
    ("BITFIELD_RO", "B7"),
    ("SET", "Bv"),
    ("SETRANGE", "Bov"),
    ("GET", "B"),
];

const SKETCHES: Commands = &[
    ("PFADD", "Q"),
    ("PFADD", "Qm"),
    ("PFADD", "Qmmm*"),
    ("PFADD", "Q8"),
    ("PFADD", "Q8"),
    ("PFADD", "Q8"),
    ("PFCOUNT", "Q"),
    ("PFCOUNT", "Q"),
    ("PFCOUNT", "QQ*"),
    ("PFMERGE", "QQ*"),
    ("PFMERGE", "QQ*"),
    ("GET", "Q"),
    ("SETRANGE", "Q4w"),
];

const BIT_KEYS: &[&str] = &["bits", "bits", "bits2", "bits3"];
const SKETCH_KEYS: &[&str] = &["pf", "pf", "pf2", "pf3"];
const BIT_OFFSETS: &[&str] = &[
    "0",
    "1",
    "7",
    "8",
    "9",
    "15",
    "16",
    "31",
    "100",
    "-1",
    "abc",
    "4294967295",
    "4294967296",
    "",
];
const HASH_KEYS: &[&str] = &["h", "h", "h2"];
const SET_KEYS: &[&str] = &["s", "s", "s2", "s3", "ints"];
const SORTED_KEYS: &[&str] = &["z", "z", "z2", "z3"];
/// Here all members have one score, as `BYLEX` wants it.
const LEX_KEYS: &[&str] = &["lex", "lex", "lex2"];
const LIST_KEYS: &[&str] = &["l", "l", "l2"];
const MEMBERS: &[&str] = &[
    "a",
    "a",
    "b",
    "b",
    "c",
    "d",
    "1",
    "2",
    "-3",
    "",
    "\0x",
    "é",
    "9999999999",
    "this member is longer than sixty-four bytes, which is where they end",
];
const SCORES: &[&str] = &[
    "1",
    "1",
    "2",
    "3",
    "-1",
    "1.5",
    "0",
    "-0",
    "3.1",
    "inf",
    "-inf",
    "+inf",
    "nan",
    "1e400",
    "abc",
    "",
    "0x10",
    " 1",
    "1e20",
    "1e-7",
    "123456789012345680000",
    "0.30000000000000004",
    "-2.5",
    "9007199254740993",
    "4611686018427387904",
    "1e17",
];
const BOUNDS: &[&str] = &[
    "-inf", "-inf", "+inf", "inf", "(1", "1", "2", "(2", "(inf", "(-inf", "2.5", "abc", "", "(",
    "nan", "((1", "0", "-1", " 1", "1 ", "1e400",
];
const LEX_BOUNDS: &[&str] = &[
    "-", "-", "+", "+", "[a", "(a", "[", "(", "a", "", "[b", "(c", "[1", "[d", "(\0", "+a", "--",
];
const INDEXES: &[&str] = &[
    "0", "0", "1", "-1", "-1", "2", "-2", "3", "-3", "5", "100", "-100",
];
const COUNTS: &[&str] = &[
    "100",
    "0",
    "9223372036854775807",
    "-9223372036854775808",
    "abc",
    "",
    "-3",
    "1000",
];
const POSITIVE: &[&str] = &["100", "0", "100", "9223372036854775807", "-1", "abc", ""];
const NUMKEYS: &[&str] = &["0", "-1", "abc", "", "9", "9223372036854775807"];

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

/// A command of the sequence that follows from `seed`, its name first.
pub fn command(rng: &mut Rng, seed: u64) -> Vec<Bytes> {
    let any = FAMILIES[rng.below(FAMILIES.len())];
    let family = match (seed / 2) as usize % (FAMILIES.len() + 1) {
        0 => any,
        n => FAMILIES[n - 1],
    };
    let family = if rng.one_in(6) { KEYS } else { family };
    let (name, letters) = family[rng.below(family.len())];
    let mut words = vec![vary_case(rng, name)];
    let mut kinds = letters.chars().peekable();
    while let Some(kind) = kinds.next() {
        if kind == '#' {
            let kind = kinds.next().expect("the kind of keys");
            counted(rng, kind, &mut words);
            continue;
        }
        let mut times = 1;
        if kinds.peek() == Some(&'*') {
            kinds.next();
            times = rng.below(4);
        }
        for _ in 0..times {
            argument(rng, kind, &mut words);
        }
    }
    let scans = name.ends_with("SCAN");
    if rng.one_in(40) && !scans {
        words.truncate(1 + rng.below(words.len()));
    }
    // Which member is popped is left to chance.
    if name == "SPOP" && words.len() == 2 {
        words.push(text("100"));
    }
    // An argument too many for `ZRANK` is none too many for Redis 7.2.
    if rng.one_in(60) && !name.ends_with("RANK") && !scans {
        argument(rng, 'w', &mut words);
    }
    words
}

/// An operation of `BITFIELD`.
fn field(rng: &mut Rng, words: &mut Vec<Bytes>) {
    if rng.one_in(3) {
        words.push(option(rng, &["OVERFLOW"]));
        words.push(option(rng, &["WRAP", "SAT", "FAIL", "SAT", "FAIL", "FOO"]));
    }
    let name = rng.pick(&["GET", "SET", "INCRBY", "SET", "INCRBY", "FOO"]);
    words.push(vary_case(rng, name));
    words.push(text(rng.pick(&[
        "u8", "i8", "u4", "i4", "u1", "i1", "u63", "i64", "u64", "i65", "i0", "x8", "i", "u31",
        "i16", "I8",
    ])));
    words.push(text(rng.pick(&[
        "0", "0", "1", "4", "8", "#0", "#1", "#2", "100", "#10", "-1", "#-1", "abc", "#", "",
    ])));
    if name != "GET" {
        argument(rng, 'i', words);
        // So close to the least integer Redis's check for overflow overflows itself.
        if words.last().is_some_and(|word| word.starts_with(b"-92233")) {
            words.pop();
            words.push(text("-4611686018427387904"));
        }
    }
}

/// Keys after how many they are.
fn counted(rng: &mut Rng, kind: char, words: &mut Vec<Bytes>) {
    let count = 1 + rng.below(3);
    words.push(match rng.one_in(10) {
        true => text(rng.pick(NUMKEYS)),
        false => count.to_string().into(),
    });
    for _ in 0..count {
        argument(rng, kind, words);
    }
}

/// A key of the family with this letter; now and then of another.
fn key(rng: &mut Rng, kind: char) -> Bytes {
    let kind = match kind {
        // Nothing but equal scores gets there.
        'X' => 'X',
        _ if rng.one_in(16) => char::from(b"kHEZI"[rng.below(5)]),
        kind => kind,
    };
    text(rng.pick(match kind {
        'H' => HASH_KEYS,
        'E' => SET_KEYS,
        'Z' => SORTED_KEYS,
        'X' => LEX_KEYS,
        'I' => LIST_KEYS,
        'B' => BIT_KEYS,
        'Q' => SKETCH_KEYS,
        _ => STRING_KEYS,
    }))
}

fn argument(rng: &mut Rng, kind: char, words: &mut Vec<Bytes>) {
    let word = match kind {
        'k' if rng.one_in(2) => {
            let kind = char::from(b"HEZIBQ"[rng.below(6)]);
            key(rng, kind)
        }
        'k' | 'H' | 'E' | 'Z' | 'X' | 'I' | 'B' | 'Q' => key(rng, kind),
        'T' => {
            let kind = char::from(b"IIEX"[rng.below(4)]);
            key(rng, kind)
        }
        'G' => match rng.below(7) {
            0 => option(rng, &["ASC", "DESC", "DESC"]),
            1 | 2 => option(rng, &["ALPHA"]),
            3 => {
                words.push(option(rng, &["LIMIT"]));
                argument(rng, 'n', words);
                text(rng.pick(INDEXES))
            }
            4 => {
                words.push(option(rng, &["BY"]));
                text(rng.pick(&["*", "h*->a", "*->a", "nosort", "h2->*", "#"]))
            }
            5 => {
                words.push(option(rng, &["GET"]));
                text(rng.pick(&["*", "#", "h*->b", "x", "*->"]))
            }
            _ if rng.one_in(2) => {
                words.push(option(rng, &["STORE"]));
                key(rng, 'I')
            }
            _ => option(rng, &["STORE", "GET", "BY", "LIMIT", "FOO"]),
        },
        'm' => text(rng.pick(MEMBERS)),
        'F' if words.len() > 1 && words[1].starts_with(b"lex") => text("0"),
        'F' => text(rng.pick(SCORES)),
        'R' => text(rng.pick(BOUNDS)),
        'L' => text(rng.pick(LEX_BOUNDS)),
        'n' if rng.one_in(20) => text(rng.pick(INTEGERS)),
        'n' => text(rng.pick(INDEXES)),
        'P' => text(rng.pick(POSITIVE)),
        // Nothing of 512 MiB: it would take long.
        'O' => text(match rng.pick(BIT_OFFSETS) {
            "4294967295" if words[0].starts_with(b"S") || words[0].starts_with(b"s") => "200",
            offset => offset,
        }),
        '1' if rng.one_in(20) => text(rng.pick(&["2", "-1", "abc", ""])),
        '1' => text(rng.pick(&["0", "1"])),
        '4' => text(rng.pick(&["0", "3", "4", "8"])),
        '5' => option(rng, &["BIT", "BYTE", "BIT", "BYTE", "FOO"]),
        '6' => option(
            rng,
            &["AND", "OR", "XOR", "NOT", "AND", "OR", "XOR", "NOT", "FOO"],
        ),
        '7' => {
            field(rng, words);
            return;
        }
        // Elements enough that runs are cut and joined, and now and then to become dense.
        '8' => {
            let count = if rng.one_in(8) { 1500 } else { 30 };
            for _ in 1..count {
                words.push((rng.next() % 5000).to_string().into());
            }
            text("x")
        }
        // Whole collections: how much comes at once is left open.
        'C' => {
            let cursor = rng
                .one_in(20)
                .then(|| rng.pick(&["abc", "", " 0", "99999999999999999999"]));
            words.push(text(cursor.unwrap_or("0")));
            words.push(option(rng, &["COUNT"]));
            text("1000")
        }
        'p' if rng.one_in(2) => {
            words.push(option(rng, &["MATCH"]));
            text(rng.pick(&["*", "a*", "?", "[a-c]", "\\a", ""]))
        }
        'p' if rng.one_in(2) => {
            words.push(option(rng, &["COUNT"]));
            text(rng.pick(&["1000", "0", "-1", "abc", "9223372036854775808"]))
        }
        'p' => option(rng, &["MATCH", "COUNT", "TYPE", "FOO"]),
        'q' => option(rng, &["NX", "XX", "GT", "LT", "CH", "INCR", "INCR", "FOO"]),
        'y' => option(rng, &["BYSCORE"]),
        'Y' => option(rng, &["BYLEX"]),
        'z' if rng.one_in(3) => {
            words.push(option(rng, &["LIMIT"]));
            argument(rng, 'n', words);
            text(rng.pick(INDEXES))
        }
        'z' => option(
            rng,
            &[
                "WITHSCORES",
                "WITHSCORES",
                "REV",
                "REV",
                "BYSCORE",
                "BYLEX",
                "LIMIT",
                "FOO",
            ],
        ),
        'u' => option(rng, &["MIN", "MAX", "MIN", "MAX", "FOO"]),
        'U' => option(
            rng,
            &["LEFT", "RIGHT", "LEFT", "RIGHT", "LEFT", "RIGHT", "FOO"],
        ),
        'b' => option(
            rng,
            &[
                "BEFORE", "AFTER", "BEFORE", "AFTER", "BEFORE", "AFTER", "FOO",
            ],
        ),
        'o' if words[0].to_ascii_lowercase().ends_with(b"mpop") => {
            words.push(option(rng, &["COUNT", "COUNT", "COUNT", "FOO"]));
            text(rng.pick(&["1", "2", "100", "0", "-1", "abc"]))
        }
        'c' if words[0].len() >= 10 => text(rng.pick(COUNTS)),
        'v' if words[0].to_ascii_lowercase().starts_with(b"hrand") => {
            option(rng, &["WITHVALUES", "WITHVALUES", "WITHVALUES", "FOO"])
        }
        'd' if rng.one_in(6) => option(rng, &["RANK", "COUNT", "MAXLEN", "FOO"]),
        'd' => {
            words.push(option(rng, &["RANK", "COUNT", "MAXLEN"]));
            text(rng.pick(&["0", "1", "2", "-1", "-2", "5", "abc"]))
        }
        'l' if words[0].to_ascii_lowercase().ends_with(b"card") => {
            words.push(option(rng, &["LIMIT", "LIMIT", "LIMIT", "FOO"]));
            text(rng.pick(&["0", "1", "2", "100", "-1", "abc"]))
        }
        'g' if words[0].starts_with(b"Z") || words[0].starts_with(b"z") => match rng.below(4) {
            0 => {
                words.push(option(rng, &["AGGREGATE"]));
                option(rng, &["SUM", "MIN", "MAX", "FOO"])
            }
            1 => option(rng, &["WITHSCORES"]),
            2 => {
                // As many as there are keys, mostly.
                let digits = |word: &Bytes| std::str::from_utf8(word).ok()?.parse::<usize>().ok();
                let keys = words[1..]
                    .iter()
                    .take(2)
                    .find_map(digits)
                    .unwrap_or(1)
                    .min(4);
                words.push(option(rng, &["WEIGHTS"]));
                for _ in 1..keys {
                    words.push(text(rng.pick(SCORES)));
                }
                text(rng.pick(SCORES))
            }
            _ => option(rng, &["WITHSCORES", "WEIGHTS", "AGGREGATE", "LIMIT", "FOO"]),
        },
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
