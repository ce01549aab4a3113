//! The registers of a HyperLogLog in Redis's own encoding, and the estimate from them.
//!
//! ```text
//! "HYLL" | 0 dense, 1 sparse | 3 unused | count, 8 bytes little-endian | registers
//! ```
//!
//! - The count is the last estimate; its highest bit says that it is out of date.
//! - Dense: 16384 registers of 6 bits, low bits first.
//! - Sparse: runs. `00xxxxxx`: x+1 registers are 0. `01xxxxxx xxxxxxxx`: the same, up to 16384.
//!   `1vvvvvxx`: x+1 registers are v+1. Made dense when it exceeds 3000 bytes
//!   (`hll-sparse-max-bytes`) or a register 32.
//!
//! How runs are cut and joined is part of the format as far as two servers are to hold the same
//! bytes, so that it is done in Redis's steps: the run is replaced by up to three, and then of
//! the five runs from the one before on, equal neighbours are joined.
//!
//! The estimate is Otmar Ertl's (*New cardinality estimation algorithms for HyperLogLog
//! sketches*, 2017), the hash is MurmurHash64A.

/// How many registers.
pub(crate) const COUNT: usize = 1 << INDEX_BITS;
const INDEX_BITS: u32 = 14;
/// Bits of the hash that are not the index.
const REST_BITS: u32 = 64 - INDEX_BITS;
const HEADER: usize = 16;
const REGISTER_BITS: usize = 6;
const DENSE_BYTES: usize = HEADER + COUNT * REGISTER_BITS / 8;
const SPARSE_BYTES_MAX: usize = 3000;
const RUN_VALUE_MAX: u8 = 32;
const RUN_LENGTH_MAX: usize = 4;
const SHORT_ZEROS_MAX: usize = 64;

/// The register that an element belongs to, and what it raises it to.
pub(crate) fn place_of(element: &[u8]) -> (usize, u8) {
    let hash = murmur(element);
    let index = hash as usize & (COUNT - 1);
    let rest = hash >> INDEX_BITS | 1 << REST_BITS;
    (index, rest.trailing_zeros() as u8 + 1)
}

fn murmur(bytes: &[u8]) -> u64 {
    const SEED: u64 = 0xadc8_3b19;
    const FACTOR: u64 = 0xc6a4_a793_5bd1_e995;
    let mut hash = SEED ^ (bytes.len() as u64).wrapping_mul(FACTOR);
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let mut word = [0; 8];
        word.copy_from_slice(chunk);
        let mut word = u64::from_le_bytes(word).wrapping_mul(FACTOR);
        word = (word ^ (word >> 47)).wrapping_mul(FACTOR);
        hash = (hash ^ word).wrapping_mul(FACTOR);
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        let mut word = [0; 8];
        word[..rest.len()].copy_from_slice(rest);
        hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(FACTOR);
    }
    hash = (hash ^ (hash >> 47)).wrapping_mul(FACTOR);
    hash ^ (hash >> 47)
}

/// How many different elements were added, approximately.
pub(crate) fn estimate(registers: &[u8]) -> u64 {
    const ALPHA: f64 = 0.721_347_520_444_481_7;
    let mut histogram = [0u32; 64];
    for register in registers {
        histogram[usize::from(*register & 63)] += 1;
    }
    let m = COUNT as f64;
    let top = REST_BITS as usize;
    let mut z = m * tau((m - f64::from(histogram[top + 1])) / m);
    for count in histogram[1..=top].iter().rev() {
        z += f64::from(*count);
        z *= 0.5;
    }
    z += m * sigma(f64::from(histogram[0]) / m);
    (ALPHA * m * m / z).round() as u64
}

fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if z == before {
            return z;
        }
    }
}

fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x) * (1.0 - x) * y;
        if z == before {
            return z / 3.0;
        }
    }
}

/// A HyperLogLog as it is stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Sketch(Vec<u8>);

/// A run of the sparse encoding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Run {
    value: u8,
    length: usize,
    /// Bytes that it is written in.
    size: usize,
}

impl Run {
    fn read(bytes: &[u8]) -> Option<Run> {
        let (first, rest) = bytes.split_first()?;
        let low = usize::from(first & 0x3F);
        Some(match first >> 6 {
            0 => Run {
                value: 0,
                length: low + 1,
                size: 1,
            },
            1 => Run {
                value: 0,
                length: (low << 8 | usize::from(*rest.first()?)) + 1,
                size: 2,
            },
            _ => Run {
                value: (first >> 2 & 0x1F) + 1,
                length: usize::from(first & 3) + 1,
                size: 1,
            },
        })
    }
}

fn push_run(out: &mut Vec<u8>, value: u8, length: usize) {
    match (value, length) {
        (_, 0) => {}
        (0, 1..=SHORT_ZEROS_MAX) => out.push((length - 1) as u8),
        (0, _) => {
            let [high, low] = ((length - 1) as u16).to_be_bytes();
            out.extend_from_slice(&[0x40 | high, low]);
        }
        (value, _) => out.push(0x80 | (value - 1) << 2 | (length - 1) as u8),
    }
}

impl Sketch {
    /// Of no elements.
    pub fn new() -> Self {
        let mut bytes = b"HYLL\x01".to_vec();
        bytes.resize(HEADER, 0);
        push_run(&mut bytes, 0, COUNT);
        Sketch(bytes)
    }

    /// `None` if the bytes are none. Registers are looked at when they are used.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let valid = bytes.len() >= HEADER
            && bytes.starts_with(b"HYLL")
            && match bytes[4] {
                0 => bytes.len() == DENSE_BYTES,
                encoding => encoding == 1,
            };
        valid.then(|| Sketch(bytes.to_vec()))
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn is_dense(&self) -> bool {
        self.0[4] == 0
    }

    /// The last estimate, unless something changed since.
    pub fn remembered_count(&self) -> Option<u64> {
        let bytes = self.0[8..].first_chunk::<8>()?;
        let count = u64::from_le_bytes(*bytes);
        (count >> 63 == 0).then_some(count)
    }

    pub fn remember_count(&mut self, count: u64) {
        self.0[8..HEADER].copy_from_slice(&count.to_le_bytes());
    }

    pub fn forget_count(&mut self) {
        self.0[HEADER - 1] |= 0x80;
    }

    /// All registers; `None` if the runs do not make up as many.
    pub fn registers(&self) -> Option<Vec<u8>> {
        if self.is_dense() {
            return Some((0..COUNT).map(|index| self.dense(index)).collect());
        }
        let mut registers = Vec::with_capacity(COUNT);
        let mut rest = &self.0[HEADER..];
        while !rest.is_empty() {
            let run = Run::read(rest)?;
            if registers.len() + run.length > COUNT {
                return None;
            }
            registers.resize(registers.len() + run.length, run.value);
            rest = &rest[run.size..];
        }
        (registers.len() == COUNT).then_some(registers)
    }

    fn dense(&self, index: usize) -> u8 {
        let (at, shift) = (
            HEADER + index * REGISTER_BITS / 8,
            index * REGISTER_BITS % 8,
        );
        let high = self.0.get(at + 1).copied().unwrap_or(0);
        let two = u16::from_le_bytes([self.0[at], high]);
        (two >> shift) as u8 & 63
    }

    fn set_dense(&mut self, index: usize, value: u8) {
        let (at, shift) = (
            HEADER + index * REGISTER_BITS / 8,
            index * REGISTER_BITS % 8,
        );
        let high = self.0.get(at + 1).copied().unwrap_or(0);
        let two = u16::from_le_bytes([self.0[at], high]);
        let two = two & !(63 << shift) | u16::from(value) << shift;
        let [low, high] = two.to_le_bytes();
        self.0[at] = low;
        if let Some(byte) = self.0.get_mut(at + 1) {
            *byte = high;
        }
    }

    /// `None` if the runs are damaged.
    pub fn make_dense(&mut self) -> Option<()> {
        if self.is_dense() {
            return Some(());
        }
        let registers = self.registers()?;
        self.0.truncate(HEADER);
        self.0.resize(DENSE_BYTES, 0);
        self.0[4] = 0;
        for (index, register) in registers.into_iter().enumerate() {
            self.set_dense(index, register);
        }
        Some(())
    }

    /// Raises a register, if it is less; whether it was. `None` if the runs are damaged.
    pub fn raise(&mut self, index: usize, value: u8) -> Option<bool> {
        if self.is_dense() {
            let less = self.dense(index) < value;
            if less {
                self.set_dense(index, value);
            }
            return Some(less);
        }
        if value > RUN_VALUE_MAX {
            self.make_dense()?;
            return self.raise(index, value);
        }
        let (mut at, mut before, mut first) = (HEADER, None, 0);
        let run = loop {
            let run = Run::read(self.0.get(at..)?)?;
            if index < first + run.length {
                break run;
            }
            before = Some(at);
            at += run.size;
            first += run.length;
        };
        if run.value >= value {
            return Some(false);
        }
        let mut replacement = Vec::with_capacity(5);
        push_run(&mut replacement, run.value, index - first);
        push_run(&mut replacement, value, 1);
        push_run(&mut replacement, run.value, first + run.length - 1 - index);
        let longer = replacement.len().saturating_sub(run.size);
        if longer > 0 && self.0.len() + longer > SPARSE_BYTES_MAX {
            self.make_dense()?;
            return self.raise(index, value);
        }
        self.0.splice(at..at + run.size, replacement);
        self.join(before.unwrap_or(HEADER));
        Some(true)
    }

    /// Joins equal neighbours among a few runs from `at` on.
    fn join(&mut self, mut at: usize) {
        for _ in 0..5 {
            let Some(run) = self.0.get(at..).and_then(Run::read) else {
                return;
            };
            let next = self.0.get(at + run.size..).and_then(Run::read);
            match next {
                Some(next)
                    if run.value > 0
                        && next.value == run.value
                        && run.length + next.length <= RUN_LENGTH_MAX =>
                {
                    let mut joined = Vec::with_capacity(1);
                    push_run(&mut joined, run.value, run.length + next.length);
                    self.0.splice(at..at + 2, joined);
                }
                _ => at += run.size,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn estimates_are_close() {
        let mut sketch = Sketch::new();
        for n in 0..100_000 {
            let (index, value) = place_of(format!("element:{n}").as_bytes());
            sketch.raise(index, value).unwrap();
        }
        assert!(sketch.is_dense());
        let estimate = estimate(&sketch.registers().unwrap());
        assert!(estimate.abs_diff(100_000) < 3000, "{estimate}");
    }

    #[test]
    fn damaged_runs_are_found() {
        for runs in [&b""[..], b"\x40", b"\x7F\xFF\x00", b"\x00"] {
            let bytes = [&Sketch::new().0[..HEADER], runs].concat();
            assert_eq!(Sketch::parse(&bytes).unwrap().registers(), None, "{runs:?}");
        }
    }

    proptest! {
        #[test]
        fn sparse_and_dense_hold_the_same(
            raises in proptest::collection::vec((0..COUNT, 1u8..=51), 0..400)
        ) {
            let (mut sparse, mut dense) = (Sketch::new(), Sketch::new());
            dense.make_dense().unwrap();
            for (index, value) in raises {
                prop_assert_eq!(sparse.raise(index, value), dense.raise(index, value));
            }
            prop_assert_eq!(sparse.registers(), dense.registers());
            sparse.make_dense().unwrap();
            prop_assert_eq!(sparse, dense);
        }
    }
}
