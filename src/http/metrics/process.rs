//! The process itself, from /proc: memory, processor time, open files.
//!
//! The names are those which Prometheus's own client libraries use. What the system does not
//! tell is left out.

use super::{Family, Kind, Unit, Value};
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
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    if let Some(ticks) = cpu_ticks(&stat) {
        let per_second = rustix::param::clock_ticks_per_second() as f64;
        families.push(
            Family::new(
                "process_cpu_seconds_total",
                Kind::Counter,
                Unit::Seconds,
                "Processor time used, in user and system mode.",
            )
            .with(Value::Number(ticks as f64 / per_second)),
        );
    }
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let mut pages = statm.split_whitespace().map(str::parse::<u64>);
    let page_bytes = rustix::param::page_size() as u64;
    if let (Some(Ok(all)), Some(Ok(resident))) = (pages.next(), pages.next()) {
        families.push(
            Family::new(
                "process_resident_memory_bytes",
                Kind::Gauge,
                Unit::Bytes,
                "Memory that is resident (RSS).",
            )
            .with(Value::Whole(resident * page_bytes)),
        );
        families.push(
            Family::new(
                "process_virtual_memory_bytes",
                Kind::Gauge,
                Unit::Bytes,
                "Address space in use.",
            )
            .with(Value::Whole(all * page_bytes)),
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
    if let Some(threads) = field(&stat, 17) {
        families.push(
            Family::new("process_threads", Kind::Gauge, Unit::Count, "Threads.")
                .with(Value::Whole(threads)),
        );
    }
    families
}

/// utime and stime of `/proc/PID/stat`.
fn cpu_ticks(stat: &str) -> Option<u64> {
    Some(field(stat, 11)? + field(stat, 12)?)
}

/// A field of `/proc/PID/stat` behind the name, which stands in brackets and may hold anything;
/// 0 = the state.
fn field(stat: &str, number: usize) -> Option<u64> {
    let fields = stat.rsplit_once(')')?.1;
    fields.split_whitespace().nth(number)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_behind_any_name() {
        let stat = "17 (a) b (c) S 1 17 17 0 -1 4194560 900 0 2 0 31 12 0 0 20 0 9 0 1234 5 6";
        assert_eq!(cpu_ticks(stat), Some(43));
        assert_eq!(field(stat, 17), Some(9));
        assert_eq!(cpu_ticks(""), None);
    }

    #[test]
    fn this_process_has_figures() {
        let families = families(Duration::from_secs(1));
        assert!(families.len() >= 7, "{families:?}");
        assert!(families.iter().all(|f| f.samples.len() == 1));
    }
}
