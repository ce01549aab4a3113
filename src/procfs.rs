//! What the system tells of this process in /proc; `None` where it does not (proc(5)).

use std::fs;
use std::path::{Path, PathBuf};

/// Of `/proc/self/stat`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stat {
    /// Processor time in user mode.
    pub user_seconds: f64,
    /// Processor time in system mode.
    pub system_seconds: f64,
    /// Threads.
    pub threads: u64,
}

/// Of `/proc/self/statm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Address space in use.
    pub virtual_bytes: u64,
    /// What of it is resident (RSS).
    pub resident_bytes: u64,
}

/// Processor time and threads.
pub fn stat() -> Option<Stat> {
    parse_stat(&fs::read_to_string("/proc/self/stat").ok()?)
}

/// Memory.
pub fn memory() -> Option<Memory> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let mut pages = statm.split_whitespace().map(str::parse::<u64>);
    let page_bytes = rustix::param::page_size() as u64;
    Some(Memory {
        virtual_bytes: pages.next()?.ok()? * page_bytes,
        resident_bytes: pages.next()?.ok()? * page_bytes,
    })
}

/// Memory that this process may use, bytes: the machine's, or less if a control group of its own or one
/// above it is limited to less (cgroups(7), `memory.max`; version 1: `memory.limit_in_bytes`).
pub fn usable_memory() -> Option<u64> {
    let machine = parse_total(&fs::read_to_string("/proc/meminfo").ok()?)?;
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = limit_files(&groups);
    let limits = limits.filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok());
    Some(limits.fold(machine, u64::min))
}

/// `MemTotal` of `/proc/meminfo`.
fn parse_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Where the limits of the control groups in `/proc/self/cgroup` stand, if they have some.
fn limit_files(groups: &str) -> impl Iterator<Item = PathBuf> + '_ {
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/"));
    let own = Path::new("/sys/fs/cgroup").join(group.unwrap_or_default());
    let all: Vec<PathBuf> = own.ancestors().map(Path::to_path_buf).collect();
    let inside = all
        .into_iter()
        .filter(|path| path.starts_with("/sys/fs/cgroup"));
    inside
        .map(|path| path.join("memory.max"))
        .chain(["/sys/fs/cgroup/memory/memory.limit_in_bytes".into()])
}

fn parse_stat(stat: &str) -> Option<Stat> {
    // The name stands in brackets and may hold anything; behind it, 0 = the state.
    let (_, rest) = stat.rsplit_once(')')?;
    let field = |number| rest.split_whitespace().nth(number)?.parse::<u64>().ok();
    let per_second = rustix::param::clock_ticks_per_second() as f64;
    Some(Stat {
        user_seconds: field(11)? as f64 / per_second,
        system_seconds: field(12)? as f64 / per_second,
        threads: field(17)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_behind_any_name() {
        let stat = "17 (a) b (c) S 1 17 17 0 -1 4194560 900 0 2 0 31 12 0 0 20 0 9 0 1234 5 6";
        let per_second = rustix::param::clock_ticks_per_second() as f64;
        let parsed = parse_stat(stat).unwrap();
        assert_eq!(parsed.user_seconds * per_second, 31.0);
        assert_eq!(parsed.system_seconds * per_second, 12.0);
        assert_eq!(parsed.threads, 9);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn the_least_limit_counts() {
        assert_eq!(
            parse_total("MemTotal:       16 kB\nMemFree: 1 kB\n"),
            Some(16 << 10)
        );
        assert_eq!(parse_total("MemFree: 1 kB\n"), None);
        let files = |groups| -> Vec<String> {
            let files = limit_files(groups);
            files.map(|file| file.display().to_string()).collect()
        };
        let old = "/sys/fs/cgroup/memory/memory.limit_in_bytes";
        let expected = [
            "/sys/fs/cgroup/a.slice/b.service/memory.max",
            "/sys/fs/cgroup/a.slice/memory.max",
            "/sys/fs/cgroup/memory.max",
            old,
        ];
        assert_eq!(files("0::/a.slice/b.service\n"), expected);
        assert_eq!(files("9:memory:/x\n"), ["/sys/fs/cgroup/memory.max", old]);
        assert!(usable_memory().is_some_and(|bytes| bytes > 1 << 20));
    }

    #[test]
    fn this_process_has_figures() {
        assert!(stat().is_some_and(|s| s.user_seconds + s.system_seconds >= 0.0 && s.threads > 0));
        assert!(memory().is_some_and(|m| m.resident_bytes > 1 << 20));
    }
}
