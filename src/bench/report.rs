//! The result of a run, for people and as JSON.

use super::load::Op;
use super::tally::{ErrorCount, Second, Tally};
use hdrhistogram::Histogram;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Share of its threads' time from which the generator may have been the bottleneck.
const BUSY_SHARE: f64 = 0.95;

/// Figures of one run. Times in milliseconds unless the name says otherwise.
#[derive(Serialize, Debug)]
pub struct Report {
    /// The load, in words.
    pub load: String,
    /// From the end of the warm-up to the last answer.
    pub seconds: f64,
    /// Requests that succeeded.
    pub succeeded: u64,
    /// Requests that did not, and failed attempts to connect.
    pub failed: u64,
    /// Requests that succeeded, per second.
    pub throughput: f64,
    /// Successful reads that found nothing.
    pub nulls: u64,
    /// Of all successful requests.
    pub latency_ms: Latency,
    /// By command, where there are several.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub latency_ms_by_command: BTreeMap<&'static str, Latency>,
    /// By kind: the first word of an error reply; `CONNECTION` for requests lost with their
    /// connection, `CONNECT` for failed attempts to make one, `TIMEOUT`, `PROTOCOL`.
    pub errors: BTreeMap<String, ErrorCount>,
    /// CPU time of the generator per request that was answered.
    pub generator_cpu_micros_per_request: f64,
    /// CPU time of the generator, as a share of its threads' time.
    pub generator_busy: f64,
    /// Second by second.
    pub timeline: Vec<Second>,
}

/// Of successful requests, in milliseconds.
#[derive(Serialize, Debug)]
pub struct Latency {
    mean: f64,
    p50: f64,
    p90: f64,
    p99: f64,
    #[serde(rename = "p99.9")]
    p999: f64,
    max: f64,
}

impl Report {
    /// `cpu`: used by the process between `warm_at` and the end of the run, on `threads` threads.
    pub fn new(load: String, tally: &Tally, warm_at: u64, cpu: Duration, threads: usize) -> Self {
        let seconds = (tally.last_at - warm_at) as f64 / 1e9;
        let succeeded = tally.succeeded_total();
        let mut all = tally.latency[0].clone();
        for histogram in &tally.latency[1..] {
            all.add(histogram)
                .expect("histograms of one run have the same bounds");
        }
        let mut by_command = BTreeMap::new();
        let used = Op::ALL
            .iter()
            .filter(|op| !tally.latency[**op as usize].is_empty());
        if used.clone().count() > 1 {
            for op in used {
                by_command.insert(op.name(), Latency::of(&tally.latency[*op as usize]));
            }
        }
        let per_second = |count: f64| if seconds > 0.0 { count / seconds } else { 0.0 };
        let failed: u64 = tally.errors.values().map(|error| error.count).sum();
        let answered = (succeeded + failed).max(1) as f64;
        Self {
            load,
            seconds,
            succeeded,
            failed,
            throughput: per_second(succeeded as f64),
            nulls: tally.nulls,
            latency_ms: Latency::of(&all),
            latency_ms_by_command: by_command,
            errors: tally.errors.clone(),
            generator_cpu_micros_per_request: cpu.as_secs_f64() * 1e6 / answered,
            generator_busy: per_second(cpu.as_secs_f64()) / threads as f64,
            timeline: tally.seconds.clone(),
        }
    }
}

impl Latency {
    fn of(micros: &Histogram<u64>) -> Self {
        let at = |quantile| micros.value_at_quantile(quantile) as f64 / 1e3;
        Self {
            mean: (micros.mean()).round() / 1e3,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: micros.max() as f64 / 1e3,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.load)?;
        writeln!(
            f,
            "  throughput  {:.0} requests/s ({} in {:.2} s)",
            self.throughput, self.succeeded, self.seconds
        )?;
        writeln!(f, "  latency ms  {}", self.latency_ms)?;
        for (command, latency) in &self.latency_ms_by_command {
            writeln!(f, "    {command:<9} {latency}")?;
        }
        if self.nulls > 0 {
            writeln!(f, "  not found   {} of the reads", self.nulls)?;
        }
        writeln!(f, "  errors      {}", self.failed)?;
        for (kind, error) in &self.errors {
            writeln!(f, "    {kind:<9} {} × e.g. {}", error.count, error.example)?;
        }
        write!(
            f,
            "  generator   {:.1} µs of CPU per request, {:.0} % busy",
            self.generator_cpu_micros_per_request,
            self.generator_busy * 100.0
        )?;
        if self.generator_busy > BUSY_SHARE {
            write!(f, " — it may be the bottleneck; try --threads")?;
        }
        Ok(())
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "p50 {:.3}  p90 {:.3}  p99 {:.3}  p99.9 {:.3}  max {:.3}",
            self.p50, self.p90, self.p99, self.p999, self.max
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn report() -> Report {
        let mut tally = Tally::new(SECOND);
        for i in 0..100 {
            tally.succeeded(Op::Set, SECOND, SECOND + i * 10_000_000);
            tally.succeeded(Op::Get, SECOND, SECOND + i * 10_000);
        }
        tally.failed("CLUSTERDOWN", "CLUSTERDOWN no quorum", 3 * SECOND);
        Report::new(
            "a load".into(),
            &tally,
            SECOND,
            Duration::from_millis(500),
            1,
        )
    }

    #[test]
    fn throughput_counts_successes_only_and_all_of_the_time() {
        let report = report();
        assert_eq!((report.succeeded, report.failed), (200, 1));
        assert_eq!(report.seconds, 2.0);
        assert_eq!(report.throughput, 100.0);
        assert_eq!(report.generator_busy, 0.25);
        assert_eq!(report.generator_cpu_micros_per_request, 500_000.0 / 201.0);
    }

    #[test]
    fn json_has_the_names_that_scripts_read() {
        let json = serde_json::to_value(report()).unwrap();
        assert_eq!(json["errors"]["CLUSTERDOWN"]["count"], 1);
        assert!(json["latency_ms"]["p99.9"].is_number());
        assert!(json["latency_ms_by_command"]["GET"]["p50"].is_number());
        assert_eq!(json["timeline"].as_array().unwrap().len(), 3);
    }

    #[test]
    fn text_shows_errors_with_an_example() {
        let text = report().to_string();
        assert!(
            text.contains("CLUSTERDOWN 1 × e.g. CLUSTERDOWN no quorum"),
            "{text}"
        );
    }

    #[test]
    fn an_empty_run_divides_by_nothing() {
        let report = Report::new("none".into(), &Tally::new(0), 0, Duration::ZERO, 1);
        assert_eq!((report.throughput, report.generator_busy), (0.0, 0.0));
    }
}
