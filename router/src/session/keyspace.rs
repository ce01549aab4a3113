//! The section of `INFO` that says what the databases hold.
//!
//! Nobody keeps count: the keys are counted when somebody asks, of the whole cluster, as `DBSIZE`
//! does. But `INFO` is asked for often, by clients that connect and by dashboards, so it looks at so
//! many records and no more. Slots follow each other in the order of keys, and hashing spreads keys
//! evenly over them: from the first slots' keys follows how many there are in all. A line says so,
//! with the number of slots that were counted. Where one `{tag}` has most of the keys it is far off.

use bytes::Bytes;
use rangekv_model::redis::codec::Protocol;
use rangekv_model::redis::keys;
use rangekv_model::redis::reply::Reply;
use std::collections::BTreeMap;

/// Records that are looked at: some tens of milliseconds.
const RECORDS_MAX: u64 = 100_000;
/// Pages that are asked for, at least one per range.
const PAGES_MAX: u32 = 1_000;
/// How long a range may take to answer, in milliseconds, before `INFO` goes without.
const PATIENCE_MS: u64 = 500;

/// The sections that ask for these figures among others.
const AMONG_OTHERS: [&[u8]; 3] = [b"default", b"all", b"everything"];
const SECTION: &[u8] = b"keyspace";

/// Whether an `INFO` with these arguments shows the section.
pub(super) fn is_shown(args: &[Bytes]) -> bool {
    let is = |name: &[u8]| args[1..].iter().any(|arg| arg.eq_ignore_ascii_case(name));
    args.len() == 1 || is(SECTION) || AMONG_OTHERS.into_iter().any(is)
}

/// What was counted so far.
#[derive(Debug)]
pub(super) struct Figures {
    /// The sections before, and the heading.
    before: String,
    /// Asked for by name.
    by_name: bool,
    /// Of each database: keys, those with an expiry, the sum of what is left of those.
    databases: BTreeMap<u8, [u64; 3]>,
    records: u64,
    pages: u32,
}

impl Figures {
    /// For an `INFO` with these arguments, of which all but these figures is `before`.
    pub fn new(args: &[Bytes], before: String) -> Self {
        let by_name = args.iter().any(|arg| arg.eq_ignore_ascii_case(SECTION));
        Figures {
            before,
            by_name,
            databases: BTreeMap::new(),
            records: 0,
            pages: 0,
        }
    }

    /// Who asks for them in particular waits for them; all others want the rest soon.
    pub fn patience_ms(&self) -> Option<u64> {
        (!self.by_name).then_some(PATIENCE_MS)
    }

    /// What there is to say if a range does not answer.
    pub fn without(&self, protocol: Protocol) -> Option<Bytes> {
        (!self.by_name).then(|| text(&self.before, protocol))
    }

    /// Takes in a page's numbers; `None` if they are not of the shape that was asked for.
    pub fn add(&mut self, numbers: &[i64]) -> Option<()> {
        let (visited, databases) = numbers.split_first()?;
        self.pages += 1;
        self.records += u64::try_from(*visited).ok()?;
        for of_one in databases.chunks(4) {
            let [db, counts @ ..] = <[i64; 4]>::try_from(of_one).ok()?;
            let sums = self.databases.entry(u8::try_from(db).ok()?).or_default();
            for (sum, count) in sums.iter_mut().zip(counts) {
                *sum = sum.saturating_add(u64::try_from(count).ok()?);
            }
        }
        Some(())
    }

    /// Whether no more is looked at.
    pub fn is_enough(&self) -> bool {
        self.records >= RECORDS_MAX || self.pages >= PAGES_MAX
    }

    /// The reply: exact if all was counted, else from the slots before the one at which the next
    /// page would begin.
    pub fn reply(&self, next_slot: Option<u16>, protocol: Protocol) -> Bytes {
        let slots = u64::from(next_slot.map_or(keys::SLOTS, |slot| slot.max(1)));
        let scaled = |count: u64| {
            let all = u128::from(count) * u128::from(keys::SLOTS) / u128::from(slots);
            u64::try_from(all).unwrap_or(u64::MAX)
        };
        let mut lines = self.before.clone();
        for (db, [keys, expiring, left_ms]) in &self.databases {
            lines.push_str(&format!(
                "db{db}:keys={},expires={},avg_ttl={}\r\n",
                scaled(*keys),
                scaled(*expiring),
                left_ms.checked_div(*expiring).unwrap_or(0),
            ));
        }
        if next_slot.is_some() {
            lines.push_str(&format!("keyspace_sampled_slots:{slots}\r\n"));
        }
        text(&lines, protocol)
    }
}

/// As `INFO` is answered.
pub(super) fn text(lines: &str, protocol: Protocol) -> Bytes {
    let mut reply = Reply::new(protocol);
    reply.verbatim(b"txt", lines.as_bytes());
    reply.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Vec<Bytes> {
        let words = line.split(' ');
        words
            .map(|w| Bytes::copy_from_slice(w.as_bytes()))
            .collect()
    }

    fn shown(reply: &Bytes) -> String {
        let text = String::from_utf8_lossy(reply).into_owned();
        text.split_once("\r\n").expect("a length").1.to_owned()
    }

    #[test]
    fn the_section_is_the_last_of_the_usual_ones() {
        for line in [
            "INFO",
            "info DEFAULT",
            "INFO server Keyspace",
            "INFO all",
            "INFO everything",
        ] {
            assert!(is_shown(&args(line)), "{line}");
        }
        for line in ["INFO server", "INFO keyspac", "INFO stats commandstats"] {
            assert!(!is_shown(&args(line)), "{line}");
        }
    }

    #[test]
    fn databases_are_summed_and_shown() {
        let mut figures = Figures::new(&args("INFO"), "# Keyspace\r\n".into());
        assert_eq!(figures.add(&[5, 0, 3, 1, 1_000, 7, 2, 0, 0]), Some(()));
        assert_eq!(figures.add(&[1, 0, 1, 1, 3_001]), Some(()));
        assert!(!figures.is_enough());
        let expected = "# Keyspace\r\ndb0:keys=4,expires=2,avg_ttl=2000\r\n\
                        db7:keys=2,expires=0,avg_ttl=0\r\n\r\n";
        assert_eq!(shown(&figures.reply(None, Protocol::Resp2)), expected);
    }

    #[test]
    fn what_was_not_counted_is_estimated_and_said_to_be() {
        let mut figures = Figures::new(&args("INFO"), String::new());
        figures
            .add(&[RECORDS_MAX as i64, 0, 90_000, 10_000, 1_000_000])
            .expect("numbers");
        assert!(figures.is_enough());
        let quarter = keys::SLOTS / 4;
        assert_eq!(
            shown(&figures.reply(Some(quarter), Protocol::Resp2)),
            "db0:keys=360000,expires=40000,avg_ttl=100\r\nkeyspace_sampled_slots:4096\r\n\r\n"
        );
        // All of it in the first slot.
        let all = shown(&figures.reply(Some(0), Protocol::Resp2));
        assert!(all.ends_with("keyspace_sampled_slots:1\r\n\r\n"), "{all}");
    }

    #[test]
    fn pages_of_another_shape_are_refused() {
        for numbers in [
            &[][..],
            &[-1],
            &[1, 0, 2, 3],
            &[1, 300, 1, 1, 1],
            &[1, 0, -1, 0, 0],
        ] {
            let mut figures = Figures::new(&args("INFO"), String::new());
            assert_eq!(figures.add(numbers), None, "{numbers:?}");
        }
    }

    #[test]
    fn only_who_asks_for_it_by_name_is_told_an_error() {
        let by_name = Figures::new(&args("INFO keyspace"), "x".into());
        assert_eq!(
            (by_name.patience_ms(), by_name.without(Protocol::Resp2)),
            (None, None)
        );
        let usual = Figures::new(&args("INFO"), "x".into());
        assert_eq!(usual.patience_ms(), Some(PATIENCE_MS));
        let without = usual.without(Protocol::Resp2).expect("the rest");
        assert_eq!(&without[..], b"$1\r\nx\r\n");
    }
}
