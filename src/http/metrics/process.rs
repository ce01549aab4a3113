//! The process itself, from /proc: memory, processor time, open files.
//!
//! The names are those which Prometheus's own client libraries use. What the system does not
//! tell is left out.

use super::{Family, Kind, Unit, Value};
use crate::procfs;
use std::fs;
use std::time::Duration;

/// As of now.
pub fn families(uptime: Duration) -> Vec<Family> {
    let mut families = vec![Family::new(
        "process_uptime_seconds",
        Kind::Gauge,
        Unit::Seconds,
        "Time since the process started.",
    )
    .with(Value::Number(uptime.as_secs_f64()))];
    let stat = procfs::stat();
    if let Some(stat) = stat {
        families.push(
            Family::new(
                "process_cpu_seconds_total",
                Kind::Counter,
                Unit::Seconds,
                "Processor time used, in user and system mode.",
            )
            .with(Value::Number(stat.user_seconds + stat.system_seconds)),
        );
    }
    if let Some(memory) = procfs::memory() {
        families.push(
            Family::new(
                "process_resident_memory_bytes",
                Kind::Gauge,
                Unit::Bytes,
                "Memory that is resident (RSS).",
            )
            .with(Value::Whole(memory.resident_bytes)),
        );
        families.push(
            Family::new(
                "process_virtual_memory_bytes",
                Kind::Gauge,
                Unit::Bytes,
                "Address space in use.",
            )
            .with(Value::Whole(memory.virtual_bytes)),
        );
    }
    if let Ok(files) = fs::read_dir("/proc/self/fd") {
        families.push(
            Family::new(
                "process_open_fds",
                Kind::Gauge,
                Unit::Count,
                "Open files, sockets among them.",
            )
            .with(Value::Whole(files.count() as u64)),
        );
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    if let Some(max) = limit.current {
        families.push(
            Family::new(
                "process_max_fds",
                Kind::Gauge,
                Unit::Count,
                "Files that may be open at the same time.",
            )
            .with(Value::Whole(max)),
        );
    }
    if let Some(stat) = stat {
        families.push(
            Family::new("process_threads", Kind::Gauge, Unit::Count, "Threads.")
                .with(Value::Whole(stat.threads)),
        );
    }
    families
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_figures() {
        let families = families(Duration::from_secs(1));
        assert!(families.len() >= 7, "{families:?}");
        assert!(families.iter().all(|f| f.samples.len() == 1));
    }
}
