//! Configuration that the placement driver replicates: a closed table of names, each with its
//! default, unit and bounds.
//!
//! Values are stored in canonical form (`64MiB` as `67108864`, `30s` as `30000`). A name without a
//! record has its default, so that a later version may change it.

use rangekv_proto::internal::PlacementState;
use std::collections::BTreeSet;

/// How many voters a range should have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ReplicationFactor {
    /// The largest odd number ≤ min(stores, 5).
    #[default]
    Auto,
    /// 1, 3 or 5.
    Fixed(usize),
}

impl ReplicationFactor {
    /// `auto` or a number, in canonical form.
    fn of(value: &str) -> Self {
        value.parse().map_or(Self::Auto, Self::Fixed)
    }

    /// Voters that a range should have on a cluster of `stores` stores: always odd, since an
    /// even number survives no more failures than the odd one below it.
    pub fn replicas(self, stores: usize) -> usize {
        let wanted = match self {
            Self::Auto => 5,
            Self::Fixed(n) => n,
        };
        match stores.min(wanted) {
            0 | 1 => 1,
            n => n - (n + 1) % 2,
        }
    }
}

/// What a value may be.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// One of these words.
    Word(&'static [&'static str]),
    /// A number between two bounds.
    Count(u64, u64),
    /// Bytes between two bounds; `KiB`, `MiB`, `GiB` are understood.
    Bytes(u64, u64),
    /// Milliseconds between two bounds; `ms`, `s`, `m`, `h` are understood.
    Millis(u64, u64),
}

/// One name that can be configured.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// As typed after `rangekv ctl config set`.
    pub name: &'static str,
    /// In canonical form.
    pub default: &'static str,
    /// Unit and bounds.
    pub kind: Kind,
    /// For people.
    pub help: &'static str,
}

const MIB: u64 = 1 << 20;
const SECOND: u64 = 1_000;
const HOUR: u64 = 3_600 * SECOND;
const ON_OFF: &[&str] = &["on", "off"];

/// Every name, in alphabetical order.
pub const SETTINGS: &[Setting] = &[
    Setting {
        name: "heartbeat-interval",
        default: "1000",
        kind: Kind::Millis(100, 60 * SECOND),
        help: "how often a store reports when nothing changed; changes are reported at once",
    },
    Setting {
        name: "hot-leader-spread",
        default: "on",
        kind: Kind::Word(ON_OFF),
        help: "whether leaders are moved from stores that serve many requests to those that serve few",
    },
    Setting {
        name: "leader-balance",
        default: "on",
        kind: Kind::Word(ON_OFF),
        help: "whether the placement driver evens out the number of leaders per store",
    },
    Setting {
        name: "leader-balance-tolerance",
        default: "1",
        kind: Kind::Count(1, 1_000),
        help: "difference in leaders between two stores that is left alone",
    },
    Setting {
        name: "leader-transfer-cooldown",
        default: "30000",
        kind: Kind::Millis(SECOND, 24 * HOUR),
        help: "how long a range is left alone after its leader was told to move",
    },
    Setting {
        name: "leader-transfers-max",
        default: "4",
        kind: Kind::Count(1, 64),
        help: "leader transfers that may be under way at one time",
    },
    Setting {
        name: "max-store-down-time",
        default: "300000",
        kind: Kind::Millis(SECOND, 7 * 24 * HOUR),
        help: "a store that has been silent for so long is given up: its replicas are made anew elsewhere",
    },
    Setting {
        name: "placement-replicas",
        default: "auto",
        kind: Kind::Word(&["auto", "manual", "1", "3", "5"]),
        help: "voters of the placement driver's own range; auto = the largest odd number ≤ min(stores, 5); manual = whoever was put there by hand",
    },
    Setting {
        name: "range-merge",
        default: "on",
        kind: Kind::Word(ON_OFF),
        help: "whether small cold neighbours are merged",
    },
    Setting {
        name: "range-merge-after",
        default: "3600000",
        kind: Kind::Millis(SECOND, 30 * 24 * HOUR),
        help: "how long the bounds of a range must have been the same before it is merged",
    },
    Setting {
        name: "range-merge-size",
        default: "16777216",
        kind: Kind::Bytes(0, 1024 * MIB),
        help: "size below which two neighbours together are merged",
    },
    Setting {
        name: "range-split",
        default: "on",
        kind: Kind::Word(ON_OFF),
        help: "whether ranges that are too large or too busy are split",
    },
    Setting {
        name: "range-split-qps",
        default: "50000",
        kind: Kind::Count(10, 100_000_000),
        help: "requests per second from which on, if they last, a range is split in two",
    },
    Setting {
        name: "range-split-size",
        default: "268435456",
        kind: Kind::Bytes(MIB, 16 * 1024 * MIB),
        help: "size from which on a range is split in two",
    },
    Setting {
        name: "replica-balance",
        default: "on",
        kind: Kind::Word(ON_OFF),
        help: "whether the placement driver evens out what the stores hold",
    },
    Setting {
        name: "replica-balance-tolerance",
        default: "1",
        kind: Kind::Count(1, 1_000),
        help: "difference in replicas between two stores that is left alone",
    },
    Setting {
        name: "replica-moves-max",
        default: "4",
        kind: Kind::Count(1, 64),
        help: "moves of replicas that may be under way at one time to even them out",
    },
    Setting {
        name: "replica-repair",
        default: "on",
        kind: Kind::Word(ON_OFF),
        help: "whether replicas on lost stores are replaced, missing ones added, and extra ones removed",
    },
    Setting {
        name: "replication-factor",
        default: "auto",
        kind: Kind::Word(&["auto", "1", "3", "5"]),
        help: "voters per range; auto = the largest odd number ≤ min(stores, 5)",
    },
    Setting {
        name: "store-drain",
        default: "on",
        kind: Kind::Word(ON_OFF),
        help: "whether leaders and replicas are moved off draining stores",
    },
    Setting {
        name: "store-silent-after",
        default: "5000",
        kind: Kind::Millis(SECOND, HOUR),
        help: "a store that has not reported for this long is not given anything",
    },
    Setting {
        name: "store-snapshots-max",
        default: "2",
        kind: Kind::Count(1, 64),
        help: "replicas that one store may be receiving at one time",
    },
];

/// The values by which the schedulers go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// `heartbeat-interval`.
    pub heartbeat_interval_ms: u64,
    /// `leader-balance-tolerance`.
    pub leader_balance_tolerance: u64,
    /// `leader-transfer-cooldown`.
    pub leader_transfer_cooldown_ms: u64,
    /// `leader-transfers-max`.
    pub leader_transfers_max: u64,
    /// `max-store-down-time`.
    pub max_store_down_ms: u64,
    /// Switches that are off.
    pub off: BTreeSet<&'static str>,
    /// `placement-replicas`; `None` = by hand.
    pub placement_replicas: Option<ReplicationFactor>,
    /// `range-merge-after`.
    pub range_merge_after_ms: u64,
    /// `range-merge-size`.
    pub range_merge_bytes: u64,
    /// `range-split-qps`.
    pub range_split_qps: u64,
    /// `range-split-size`.
    pub range_split_bytes: u64,
    /// `replica-balance-tolerance`.
    pub replica_balance_tolerance: u64,
    /// `replica-moves-max`.
    pub replica_moves_max: u64,
    /// `replication-factor`.
    pub replication_factor: ReplicationFactor,
    /// `store-silent-after`.
    pub store_silent_after_ms: u64,
    /// `store-snapshots-max`.
    pub store_snapshots_max: u64,
}

impl Config {
    /// From pairs of name and value as `PlacementState::config` and `HeartbeatReply::config`
    /// hold them. What is absent, or not understood by this version, has its default.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a String, &'a String)>) -> Config {
        let pairs: Vec<_> = pairs.into_iter().collect();
        let value = |name: &str| {
            let setting = find(name).expect("a name of the table");
            pairs
                .iter()
                .find(|(n, _)| *n == name)
                .and_then(|(_, value)| canonical(setting, value).ok())
                .unwrap_or_else(|| setting.default.to_owned())
        };
        let number = |name: &str| value(name).parse().expect("a canonical number");
        Config {
            heartbeat_interval_ms: number("heartbeat-interval"),
            leader_balance_tolerance: number("leader-balance-tolerance"),
            leader_transfer_cooldown_ms: number("leader-transfer-cooldown"),
            leader_transfers_max: number("leader-transfers-max"),
            max_store_down_ms: number("max-store-down-time"),
            off: SETTINGS
                .iter()
                .filter(|s| matches!(s.kind, Kind::Word(words) if words == ON_OFF))
                .filter(|s| value(s.name) == "off")
                .map(|s| s.name)
                .collect(),
            placement_replicas: match value("placement-replicas").as_str() {
                "manual" => None,
                factor => Some(ReplicationFactor::of(factor)),
            },
            range_merge_after_ms: number("range-merge-after"),
            range_merge_bytes: number("range-merge-size"),
            range_split_qps: number("range-split-qps"),
            range_split_bytes: number("range-split-size"),
            replica_balance_tolerance: number("replica-balance-tolerance"),
            replica_moves_max: number("replica-moves-max"),
            replication_factor: ReplicationFactor::of(&value("replication-factor")),
            store_silent_after_ms: number("store-silent-after"),
            store_snapshots_max: number("store-snapshots-max"),
        }
    }

    /// Whether the switch `name` is on.
    pub fn is_on(&self, name: &str) -> bool {
        !self.off.contains(name)
    }

    /// The values in force under `state`.
    pub fn of(state: &PlacementState) -> Config {
        Config::from_pairs(&state.config)
    }
}

impl Default for Config {
    fn default() -> Self {
        Config::from_pairs([])
    }
}

/// Suffixes, and by what they multiply.
type Units = &'static [(&'static str, u64)];

/// Every name with the value in force: what is set, above the defaults.
pub fn effective(state: &PlacementState) -> impl Iterator<Item = (&'static Setting, String)> + '_ {
    SETTINGS.iter().map(|setting| {
        let value = state
            .config
            .get(setting.name)
            .map(String::as_str)
            .unwrap_or(setting.default);
        (setting, value.to_owned())
    })
}

/// The setting called `name`.
pub fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|s| s.name == name)
}

/// The form in which `name`'s value `typed` is stored, or why it can't be.
pub fn check(name: &str, typed: &str) -> Result<String, String> {
    match find(name) {
        Some(setting) => canonical(setting, typed),
        None => {
            let known: Vec<&str> = SETTINGS.iter().map(|s| s.name).collect();
            Err(format!(
                "unknown configuration name \"{name}\"; known names: {}",
                known.join(", ")
            ))
        }
    }
}

/// Suffixes of numbers of bytes.
const BYTE_UNITS: Units = &[("KiB", 1 << 10), ("MiB", MIB), ("GiB", 1 << 30)];

/// A number of bytes, such as `64MiB` or `67108864`.
pub fn bytes(typed: &str) -> Option<u64> {
    number(BYTE_UNITS, typed)
}

fn number(units: Units, typed: &str) -> Option<u64> {
    let (digits, scale) = units
        .iter()
        .find_map(|(suffix, scale)| Some((typed.strip_suffix(suffix)?, *scale)))
        .unwrap_or((typed, 1));
    let digits_only = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    digits_only
        .then(|| digits.parse::<u64>().ok()?.checked_mul(scale))
        .flatten()
}

fn canonical(setting: &Setting, typed: &str) -> Result<String, String> {
    let (units, min, max, unit): (Units, u64, u64, &str) = match setting.kind {
        Kind::Word(words) if words.contains(&typed) => return Ok(typed.to_owned()),
        Kind::Word(words) => {
            return Err(format!(
                "{} is one of {}, not \"{typed}\"",
                setting.name,
                words.join(", ")
            ))
        }
        Kind::Count(min, max) => (&[], min, max, ""),
        Kind::Bytes(min, max) => (BYTE_UNITS, min, max, " bytes"),
        // "ms" stands before "s" and "m": the first suffix that fits is taken.
        Kind::Millis(min, max) => (
            &[("ms", 1), ("s", SECOND), ("m", 60 * SECOND), ("h", HOUR)],
            min,
            max,
            " milliseconds",
        ),
    };
    match number(units, typed) {
        Some(n) if (min..=max).contains(&n) => Ok(n.to_string()),
        _ => Err(format!(
            "{} is a number from {min} to {max}{unit}, not \"{typed}\"",
            setting.name
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn auto_is_the_largest_odd_number_up_to_five() {
        let auto: Vec<_> = (0..8)
            .map(|n| ReplicationFactor::Auto.replicas(n))
            .collect();
        assert_eq!(auto, [1, 1, 1, 3, 3, 5, 5, 5]);
        let three: Vec<_> = (0..8)
            .map(|n| ReplicationFactor::Fixed(3).replicas(n))
            .collect();
        assert_eq!(three, [1, 1, 1, 3, 3, 3, 3, 3]);
    }

    #[test]
    fn the_table_is_sorted_and_its_defaults_are_canonical() {
        assert!(SETTINGS.windows(2).all(|w| w[0].name < w[1].name));
        for s in SETTINGS {
            assert_eq!(
                check(s.name, s.default).as_deref(),
                Ok(s.default),
                "{}",
                s.name
            );
        }
    }

    #[test]
    fn values() {
        for (name, typed, result) in [
            ("range-split-size", "64MiB", Ok("67108864")),
            ("range-split-size", "1048576", Ok("1048576")),
            ("range-split-size", "1GiB", Ok("1073741824")),
            ("store-silent-after", "5s", Ok("5000")),
            ("store-silent-after", "1500ms", Ok("1500")),
            ("store-silent-after", "2m", Ok("120000")),
            ("replication-factor", "3", Ok("3")),
            ("replication-factor", "4", Err("replication-factor is one of auto, 1, 3, 5, not \"4\"")),
            ("leader-transfers-max", "0", Err("leader-transfers-max is a number from 1 to 64, not \"0\"")),
            ("leader-transfers-max", "+1", Err("leader-transfers-max is a number from 1 to 64, not \"+1\"")),
            (
                "range-split-size",
                "99999999999999GiB",
                Err("range-split-size is a number from 1048576 to 17179869184 bytes, not \"99999999999999GiB\""),
            ),
        ] {
            let checked = check(name, typed);
            assert_eq!(checked.as_deref().map_err(String::as_str), result, "{name} {typed}");
        }
        let unknown = check("replicas", "3").unwrap_err();
        assert!(unknown.starts_with("unknown configuration name \"replicas\"; known names: heart"));
        assert!(unknown.contains("replication-factor"));
    }

    #[test]
    fn what_is_not_understood_has_its_default() {
        let (name, value) = ("replication-factor".to_owned(), "seven".to_owned());
        assert_eq!(Config::from_pairs([(&name, &value)]), Config::default());
        assert_eq!(
            Config::default().replication_factor,
            ReplicationFactor::Auto
        );
        let three = "3".to_owned();
        let config = Config::from_pairs([(&name, &three)]);
        assert_eq!(config.replication_factor, ReplicationFactor::Fixed(3));
    }

    proptest! {
        #[test]
        fn canonical_form_is_a_fixed_point(i in 0..SETTINGS.len(), typed in "[0-9]{1,6}(ms|s|MiB|GiB|)|auto|on") {
            if let Ok(stored) = check(SETTINGS[i].name, &typed) {
                prop_assert_eq!(check(SETTINGS[i].name, &stored), Ok(stored));
            }
        }

        #[test]
        fn no_value_panics(i in 0..SETTINGS.len(), typed in ".*") {
            let _ = check(SETTINGS[i].name, &typed);
        }
    }
}
