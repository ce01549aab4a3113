//! Registers that only grow, read through all nodes while they are written.
//!
//! A read that begins after a write was acknowledged, or after another read returned it, must
//! return that value or a later one. With one writer per register and growing values this is
//! all of linearizability, and each read can be judged by itself.
//!
//! After a write of unknown outcome a register is left alone and another one takes its place:
//! the write may take effect later, and nothing must come after it.

use crate::doors::Doors;
use crate::resp::{describe, CallError, Door, Reply};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A write's reply is given up after this: what a paused node has not answered by then, it will
/// not answer before its pause ends.
const WRITE_MAX: Duration = Duration::from_secs(3);

/// A read may outlast any pause of its node: what matters is what it returns then.
const READ_MAX: Duration = Duration::from_secs(60);

/// One key.
pub struct Register {
    key: String,
    /// The last value that was sent.
    issued: AtomicU64,
    /// The greatest value that a client has seen: written and acknowledged, or read.
    floor: AtomicU64,
    /// Values of which the client was told that they were not written.
    refused: Mutex<BTreeSet<u64>>,
}

/// A read that has begun.
pub struct Read {
    register: Arc<Register>,
    floor: u64,
}

/// The writer and readers of several registers.
pub struct Probe {
    registers: Registers,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    reads: Arc<AtomicUsize>,
    violations: Arc<Mutex<Vec<String>>>,
}

type Registers = Arc<Vec<Mutex<Arc<Register>>>>;

impl Register {
    fn new(key: String) -> Arc<Register> {
        Arc::new(Register {
            key,
            issued: AtomicU64::new(0),
            floor: AtomicU64::new(0),
            refused: Mutex::default(),
        })
    }

    /// Its key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Begins a read: call it before the command is sent.
    pub fn begin_read(self: &Arc<Self>) -> Read {
        Read {
            register: self.clone(),
            floor: self.floor.load(Ordering::SeqCst),
        }
    }
}

impl Read {
    /// Judges a GET's reply. `None` = it was not answered.
    pub fn end(self, reply: &Result<Reply, CallError>) -> Option<Result<(), String>> {
        let register = &self.register;
        let value: u64 = match reply {
            Ok(Reply::Bulk(None)) => 0,
            Ok(Reply::Bulk(Some(digits))) => {
                let digits = std::str::from_utf8(digits)
                    .ok()
                    .and_then(|d| d.parse().ok());
                digits.expect("a register holds a number")
            }
            Ok(Reply::Error(e)) if !e.starts_with("CLUSTERDOWN") && !e.starts_with("TRYAGAIN") => {
                return Some(Err(format!("GET {}: {e}", register.key)));
            }
            _ => return None,
        };
        let issued = register.issued.load(Ordering::SeqCst);
        let wrong = if value < self.floor {
            format!("older than {}, known before it began", self.floor)
        } else if value > issued {
            format!("but the last value sent was {issued}")
        } else if register.refused.lock().unwrap().contains(&value) {
            "which its writer was told had not been written".into()
        } else {
            register.floor.fetch_max(value, Ordering::SeqCst);
            return Some(Ok(()));
        };
        Some(Err(format!("{} read as {value}, {wrong}", register.key)))
    }
}

impl Probe {
    /// Starts one writer per register, and `readers` readers per door.
    pub fn start(name: &str, registers: usize, readers: usize, doors: &[SocketAddr]) -> Probe {
        let register = |n| Mutex::new(Register::new(format!("{name}{n}-0")));
        let mut probe = Probe {
            registers: Arc::new((0..registers).map(register).collect()),
            stop: Arc::default(),
            threads: Vec::new(),
            reads: Arc::default(),
            violations: Arc::default(),
        };
        for n in 0..registers {
            let (registers, stop) = (probe.registers.clone(), probe.stop.clone());
            let (name, doors) = (format!("{name}{n}"), doors.to_vec());
            probe.threads.push(std::thread::spawn(move || {
                write(&name, n, &registers[n], &doors, &stop);
            }));
        }
        for (n, door) in doors.iter().cycle().take(doors.len() * readers).enumerate() {
            let (registers, stop) = (probe.registers.clone(), probe.stop.clone());
            let (reads, violations) = (probe.reads.clone(), probe.violations.clone());
            let door = *door;
            probe.threads.push(std::thread::spawn(move || {
                let mut door = Door::new(door, READ_MAX);
                let mut random = SmallRng::seed_from_u64(n as u64);
                while !stop.load(Ordering::Relaxed) {
                    let register = current(&registers[random.random_range(0..registers.len())]);
                    let read = register.begin_read();
                    match read.end(&door.call(&[b"GET", register.key.as_bytes()])) {
                        Some(Ok(())) => {
                            reads.fetch_add(1, Ordering::Relaxed);
                        }
                        Some(Err(violation)) => violations.lock().unwrap().push(violation),
                        None => std::thread::sleep(Duration::from_millis(20)),
                    }
                }
            }));
        }
        probe
    }

    /// The registers that are being written now.
    pub fn registers(&self) -> Vec<Arc<Register>> {
        self.registers.iter().map(current).collect()
    }

    /// Waits until each register has had a write acknowledged that was sent after this call.
    pub fn wait_for_writes(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let before: Vec<(Arc<Register>, u64)> = self
            .registers()
            .into_iter()
            .map(|register| {
                let issued = register.issued.load(Ordering::SeqCst);
                (register, issued)
            })
            .collect();
        for (slot, (old, issued)) in self.registers.iter().zip(before) {
            loop {
                let now = current(slot);
                let floor = now.floor.load(Ordering::SeqCst);
                let bar = if Arc::ptr_eq(&now, &old) { issued } else { 0 };
                if floor > bar {
                    break;
                }
                assert!(
                    Instant::now() < deadline,
                    "{} was not written for {patience:?}",
                    now.key
                );
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }

    /// Stops, and fails if a read returned what it must not.
    pub fn finish(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("a writer or reader failed");
        }
        let violations = self.violations.lock().unwrap();
        println!(
            "{} reads, {} violations",
            self.reads.load(Ordering::Relaxed),
            violations.len()
        );
        assert!(
            violations.is_empty(),
            "{} violations:\n{}",
            violations.len(),
            violations[..violations.len().min(20)].join("\n")
        );
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn current(slot: &Mutex<Arc<Register>>) -> Arc<Register> {
    slot.lock().unwrap().clone()
}

/// Writes one register after another into `slot` until told to stop.
fn write(
    name: &str,
    seed: usize,
    slot: &Mutex<Arc<Register>>,
    doors: &[SocketAddr],
    stop: &AtomicBool,
) {
    let mut doors = Doors::new(doors, WRITE_MAX, seed as u64);
    let mut generation = 0;
    while !stop.load(Ordering::Relaxed) {
        let register = current(slot);
        let value = register.issued.fetch_add(1, Ordering::SeqCst) + 1;
        let (key, digits) = (&register.key, value.to_string());
        let (at, door) = doors.pick();
        let started = Instant::now();
        let reply = door.call(&[b"SET", key.as_bytes(), digits.as_bytes()]);
        if matches!(&reply, Ok(Reply::Simple(_))) {
            register.floor.fetch_max(value, Ordering::SeqCst);
            continue;
        }
        let waited = started.elapsed();
        println!(
            "SET {key} {value} through door {at}, {waited:?}: {}",
            describe(&reply)
        );
        match reply {
            Ok(Reply::Error(e)) if e.starts_with("CLUSTERDOWN") || e.starts_with("TRYAGAIN") => {
                register.refused.lock().unwrap().insert(value);
            }
            Err(CallError::NotSent(_)) => {
                register.refused.lock().unwrap().insert(value);
            }
            Ok(Reply::Error(e)) if !e.starts_with("UNKNOWN") => panic!("SET {key}: {e}"),
            Ok(Reply::Error(_)) | Err(CallError::Lost(_)) => {
                generation += 1;
                *slot.lock().unwrap() = Register::new(format!("{name}-{generation}"));
            }
            Ok(reply) => panic!("SET {key}: {reply:?}"),
        }
        doors.avoid(at, waited);
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn judges_reads() {
        let register = Register::new("r".into());
        register.issued.store(5, Ordering::SeqCst);
        register.refused.lock().unwrap().insert(4);
        let bulk = |text: &str| Ok(Reply::Bulk(Some(text.into())));
        let early = register.begin_read();
        for (floor_before, reply, want) in [
            (0, Ok(Reply::Bulk(None)), "right"),
            (2, Ok(Reply::Bulk(None)), "older than 2"),
            (2, bulk("1"), "older than 2"),
            (2, bulk("2"), "right"),
            (2, bulk("3"), "right"),
            (2, bulk("2"), "older than 3"),
            (2, bulk("4"), "had not been written"),
            (2, bulk("6"), "the last value sent was 5"),
            (2, Ok(Reply::Error("CLUSTERDOWN".into())), "unanswered"),
            (2, Ok(Reply::Error("ERR no".into())), "ERR no"),
        ] {
            register.floor.fetch_max(floor_before, Ordering::SeqCst);
            let got = match register.begin_read().end(&reply) {
                Some(Ok(())) => "right".into(),
                Some(Err(why)) => why,
                None => "unanswered".into(),
            };
            assert!(got.contains(want), "{reply:?} at {floor_before}: {got}");
        }
        assert_eq!(early.end(&bulk("1")), Some(Ok(())), "it began before 2");
    }
}
