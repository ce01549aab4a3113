//! The policy as a table: what came back, then what is done.
//!
//! `<r|w> <tries> <now> <error> -> <action>`, where `9/0` is the ninth try, with a wait before
//! it, and a bare number means that all went at once; the request went to store 1 in term 5 and must
//! be answered by 5000. Errors: `leader=<store>@<term>`, `leader=?`, `epoch+` (news),
//! `epoch=` (no news), `notfound`, `unavailable`, `unknown`, `busy=<ms>`, `invalid`.

use super::*;
use rangekv_proto::{LeaderHint, RangeId, StoreId};

const TABLE: &str = "
# A leader that is named is asked at once, as long as the names do not go in circles.
w 1 0 leader=2@6      -> 0 route
w 1 0 leader=1@6      -> 0 route
w 4 0 leader=2@6      -> 0 route
w 5 0 leader=2@6      -> 32 another
w 9/0 0 leader=2@6    -> 0 route
w 9/4 0 leader=2@6    -> 250 another
w 1 0 leader=1@5      -> 2 another
# Nobody known: the other replicas in turn, 2 to 250 ms apart.
w 1 0 leader=?        -> 2 another
w 2 100 leader=?      -> 104 another
w 3 100 leader=?      -> 108 another
w 5 100 leader=?      -> 132 another
w 6 100 leader=?      -> 164 another
w 900 100 leader=?    -> 350 another
w 9 4749 leader=?     -> 4999 another
w 9 4750 leader=?     -> unavailable: not the leader of range 7; no leader known
w 1 0 notfound        -> 2 another
w 1 0 unavailable     -> 2 another
w 9 4800 unavailable  -> unavailable: unavailable: no connection
# New bounds: at once, unless nothing was learned from them.
w 1 0 epoch+          -> 0 route
w 1 0 epoch=          -> 2 another
w 7 0 epoch+          -> 128 another
# Busy is waited for a few times, then told.
w 1 0 busy=20         -> 20 route
w 1 0 busy=0          -> 1 route
w 4 0 busy=20         -> busy: overlay full
r 4 0 busy=20         -> busy: overlay full
w 1 4990 busy=20      -> busy: overlay full
# An unknown outcome is told at once; a read has none.
w 1 0 unknown         -> outcome unknown: connection lost
r 1 0 unknown         -> 2 another
r 9 4800 unknown      -> unavailable: outcome unknown: connection lost
w 1 0 invalid         -> invalid: no such body
r 1 0 invalid         -> invalid: no such body
";

fn error(text: &str) -> (RequestError, bool) {
    let range = RangeId(7);
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    let error = match name {
        "leader" => RequestError::NotLeader {
            range,
            leader: value.split_once('@').map(|(store, term)| LeaderHint {
                store: StoreId(store.parse().unwrap()),
                term: term.parse().unwrap(),
            }),
        },
        "epoch" | "epoch+" => RequestError::EpochNotMatch {
            current: Vec::new(),
        },
        "notfound" => RequestError::RangeNotFound {
            range,
            store: StoreId(1),
        },
        "unavailable" => RequestError::Unavailable("no connection".into()),
        "unknown" => RequestError::OutcomeUnknown("connection lost".into()),
        "busy" => RequestError::Busy {
            reason: "overlay full".into(),
            retry_after_ms: value.parse().unwrap(),
        },
        "invalid" => RequestError::Invalid("no such body".into()),
        other => panic!("{other}"),
    };
    (error, text == "epoch+")
}

#[test]
fn each_error_has_its_remedy() {
    for line in TABLE
        .lines()
        .filter(|l| !l.is_empty() && !l.starts_with('#'))
    {
        let (given, expected) = line.split_once("->").unwrap();
        let words: Vec<&str> = given.split_whitespace().collect();
        let (tries, at_once) = words[1].split_once('/').unwrap_or((words[1], ""));
        let tries: u32 = tries.parse().unwrap();
        let (error, news) = error(words[3]);
        let attempt = Attempt {
            now_ms: words[2].parse().unwrap(),
            deadline_ms: 5000,
            tries,
            at_once: at_once.parse().unwrap_or(tries - 1),
            read_only: words[0] == "r",
            asked: Asked {
                range: RangeId(7),
                version: 3,
                store: StoreId(1),
                term: 5,
            },
            news,
        };
        let action = match Policy::default().next(&error, &attempt) {
            Action::RetryAt {
                when_ms,
                ask: Ask::Route,
            } => format!("{when_ms} route"),
            Action::RetryAt {
                when_ms,
                ask: Ask::Another,
            } => format!("{when_ms} another"),
            Action::GiveUp(error) => error.to_string(),
        };
        assert_eq!(action, expected.trim(), "{line}");
    }
}
