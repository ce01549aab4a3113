//! Whether two replies are the same, where Redis leaves open what exactly they are.

use super::reply;
use bytes::Bytes;

/// How far apart times may be that count from now: a busy machine may pause us.
const CLOCK_SKEW_MS_MAX: i64 = 10_000;

/// Whether the two replies to a command are the same, but for the known differences.
pub fn same_reply(command: &[Bytes], ours: &[u8], theirs: &[u8]) -> bool {
    if ours == theirs {
        return true;
    }
    let name = command[0].to_ascii_lowercase();
    let skew = match &name[..] {
        b"ttl" | b"expiretime" => CLOCK_SKEW_MS_MAX / 1000,
        b"pttl" | b"pexpiretime" => CLOCK_SKEW_MS_MAX,
        _ => 0,
    };
    if skew > 0 {
        let number = |reply: &[u8]| {
            let text = std::str::from_utf8(reply).ok()?;
            text.strip_prefix(':')?.trim_end().parse::<i64>().ok()
        };
        return match (number(ours), number(theirs)) {
            // Small numbers say that there is no key or no expiry.
            (Some(a), Some(b)) => a > 0 && b > 0 && a.abs_diff(b) <= skew.unsigned_abs(),
            _ => false,
        };
    }
    if [&b"bitcount"[..], b"bitpos"].contains(&&name[..])
        && ours.starts_with(b"-ERR")
        && (theirs.starts_with(b"-WRONGTYPE") || [&b":0\r\n"[..], b":-1\r\n"].contains(&theirs))
    {
        return true;
    }
    let (ours, theirs) = (reply::parse(ours), reply::parse(theirs));
    let (ours, theirs) = match &name[..] {
        b"object" => {
            let listpack = ours.bulks() == ["listpack"];
            let larger = [vec!["hashtable"], vec!["quicklist"]];
            return listpack && larger.iter().any(|name| theirs.bulks() == *name);
        }
        b"smembers" | b"sunion" | b"sinter" | b"sdiff" | b"hkeys" | b"hvals" | b"spop" => {
            (ours.sorted(1), theirs.sorted(1))
        }
        b"hgetall" => (ours.sorted(2), theirs.sorted(2)),
        b"sscan" => (ours.page_sorted(1), theirs.page_sorted(1)),
        b"hscan" | b"zscan" => (ours.page_sorted(2), theirs.page_sorted(2)),
        b"sort" | b"sort_ro" if unsorted(command) => (ours.shape(), theirs.shape()),
        b"srandmember" | b"hrandfield" | b"zrandmember" => (ours.shape(), theirs.shape()),
        _ => (ours, theirs),
    };
    ours == theirs
        || (name.starts_with(b"z") || name.starts_with(b"geo")) && ours.same_numbers(&theirs)
}

/// Whether Redis found in `errno` what an earlier command had left there: then it did not do what
/// we did, and there is nothing more to compare.
pub fn is_stale_error(command: &[Bytes], ours: &[u8], theirs: &[u8]) -> bool {
    let sorts = command[0].to_ascii_lowercase().starts_with(b"sort");
    sorts && theirs.starts_with(b"-ERR One or more scores") && !ours.starts_with(b"-")
}

/// Whether two replies about sorted sets differ in nothing but the sign of zeros, which `SORT`
/// changes in Redis: it turns small sorted sets into skip lists, which keep that sign.
pub fn same_but_for_zeros(command: &[Bytes], ours: &[u8], theirs: &[u8]) -> bool {
    let name = command[0].to_ascii_lowercase();
    let unsigned = |reply| reply::parse(reply).without_negative_zeros();
    name.starts_with(b"z") && unsigned(ours) == unsigned(theirs)
}

/// Whether a sequence sorts anything.
pub fn sorts<'c>(mut commands: impl Iterator<Item = &'c [Bytes]>) -> bool {
    commands.any(|command| command[0].to_ascii_lowercase().starts_with(b"sort"))
}

/// Whether `SORT` leaves the order to how sets are kept: by nothing, or among equals.
fn unsorted(command: &[Bytes]) -> bool {
    let has = |name: &str| {
        command
            .iter()
            .any(|arg| arg.eq_ignore_ascii_case(name.as_bytes()))
    };
    has("by")
}

/// A command as it is printed.
pub fn show(command: &[Bytes]) -> String {
    let args: Vec<String> = command.iter().map(|arg| format!("{arg:?}")).collect();
    args.join(" ")
}
