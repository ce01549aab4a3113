//! Runs of seeds: one, many, and a failing one made smaller.

use crate::cluster::{Cluster, Counts};
use crate::faults::{Class, Faults};
use crate::schedule::{Time, SEC};
use crate::workload::Workload;
use std::any::Any;
use std::cell::RefCell;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Once;

/// What to run.
#[derive(Clone, Debug)]
pub struct Run {
    /// The seed.
    pub seed: u64,
    /// Clients count in items of a DynamoDB table, and do nothing else.
    pub items: bool,
    /// Classes that are off whatever the seed says.
    pub without: Vec<Class>,
    /// Faults end after this, if it is sooner than the seed says.
    pub duration: Option<Time>,
    /// Print everything that happens.
    pub trace: bool,
}

impl Run {
    /// The run of a seed as it is.
    pub fn of(seed: u64) -> Run {
        Run {
            seed,
            items: false,
            without: Vec::new(),
            duration: None,
            trace: false,
        }
    }

    /// The run of a seed with items.
    pub fn of_items(seed: u64) -> Run {
        Run {
            items: true,
            ..Run::of(seed)
        }
    }

    /// The faults of this run.
    pub fn faults(&self) -> Faults {
        let mut faults = Faults::draw(self.seed, &self.without);
        faults.duration = faults.duration.min(self.duration.unwrap_or(Time::MAX));
        faults
    }

    /// The command that does it again.
    pub fn command(&self) -> String {
        let mut command = format!("rangekv-sim --seed {}", self.seed);
        if self.items {
            command += " --items";
        }
        for class in &self.without {
            command += &format!(" --without {class}");
        }
        if let Some(duration) = self.duration {
            command += &format!(" --millis {}", duration / 1_000_000);
        }
        command
    }
}

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What was found, if anything.
    pub failure: Option<String>,
    /// Hash of all that happened.
    pub event_hash: u64,
    /// Counts.
    pub counts: Counts,
    /// Operations with a reply, of unknown outcome, not executed.
    pub operations: (usize, usize, usize),
    /// Elections won, entries compared between replicas.
    pub elections: (u64, u64),
}

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
    static QUIET: RefCell<bool> = const { RefCell::new(false) };
}

/// Panics inside a run are findings: their message and place are kept, not printed.
fn keep_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.with(|q| *q.borrow()) {
                return before(info);
            }
            let place = info
                .location()
                .map_or_else(String::new, |l| format!("{}:{}", l.file(), l.line()));
            let text = format!("panic at {place}: {}", message(info.payload()));
            PANIC.with(|p| *p.borrow_mut() = Some(text));
        }));
    });
}

fn message(payload: &dyn Any) -> String {
    match (
        payload.downcast_ref::<String>(),
        payload.downcast_ref::<&str>(),
    ) {
        (Some(text), _) => text.clone(),
        (_, Some(text)) => (*text).to_string(),
        _ => "(no message)".to_string(),
    }
}

/// Does one run.
pub fn run(run: &Run) -> Report {
    keep_panics();
    QUIET.with(|q| *q.borrow_mut() = true);
    let mut cluster = None;
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let workload = match run.items {
            true => Workload::items(run.seed),
            false => Workload::draw(run.seed),
        };
        let new = Cluster::with_workload(run.seed, run.faults(), workload, run.trace)?;
        let cluster = cluster.insert(new);
        cluster.run()
    }));
    QUIET.with(|q| *q.borrow_mut() = false);
    let failure = match outcome {
        Ok(Ok(())) => None,
        Ok(Err(finding)) => Some(finding),
        Err(_) => PANIC.with(|p| p.borrow_mut().take()),
    };
    match cluster {
        Some(cluster) => Report {
            failure,
            event_hash: cluster.event_hash(),
            counts: Counts {
                quiesced: cluster.checks.quiesced,
                woken: cluster.checks.woken,
                ..cluster.counts
            },
            operations: cluster.operations(),
            elections: (cluster.checks.elections, cluster.checks.compared),
        },
        None => Report {
            failure,
            ..Report::default()
        },
    }
}

/// A smaller run that still fails: classes are switched off and time is cut while it does.
/// The failure need not stay the same, only a failure. Returns it with its report.
pub fn reduce(failing: &Run, mut progress: impl FnMut(&Run, &Report)) -> (Run, Report) {
    let mut best = failing.clone();
    let mut report = run(&best);
    assert!(
        report.failure.is_some(),
        "seed {} does not fail",
        failing.seed
    );
    loop {
        let mut smaller = false;
        for class in best.faults().classes {
            let mut candidate = best.clone();
            candidate.without.push(class);
            let result = run(&candidate);
            if result.failure.is_some() {
                (best, report, smaller) = (candidate, result, true);
                progress(&best, &report);
            }
        }
        for (numerator, denominator) in [(1, 2), (3, 4), (9, 10)] {
            let mut candidate = best.clone();
            let shorter = best.faults().duration * numerator / denominator;
            candidate.duration = Some(shorter);
            if shorter < SEC / 2 {
                continue;
            }
            let result = run(&candidate);
            if result.failure.is_some() {
                (best, report, smaller) = (candidate, result, true);
                progress(&best, &report);
                break;
            }
        }
        if !smaller {
            return (best, report);
        }
    }
}
