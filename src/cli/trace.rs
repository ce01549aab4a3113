//! `--otlp-endpoint` and `--trace-sample`, of all commands that run a node.

use super::address;
use super::start::given;
use super::Invalid;
use crate::node::options::TraceOptions;
use clap::Args;

const ENDPOINT: &str = "--otlp-endpoint (OTLP_ENDPOINT)";
const SAMPLE: &str = "--trace-sample (TRACE_SAMPLE)";
/// At 100,000 requests per second, a hundred traces.
const SHARE: f64 = 0.001;

/// What is traced, and for whom.
#[derive(Args, Debug, Clone, Default)]
pub struct TraceArgs {
    /// Send traces to this OpenTelemetry collector, by OTLP over gRPC: http://10.0.0.9:4317
    /// [default: nothing is traced].
    #[arg(
        long,
        alias = "otlpEndpoint",
        value_name = "http://HOST:PORT",
        env = "OTLP_ENDPOINT",
        hide_env_values = true
    )]
    pub otlp_endpoint: Option<String>,

    /// The share of requests that are traced, 0 to 1 [default: 0.001]. Elections, snapshots and what
    /// changes ranges are always traced.
    #[arg(
        long,
        alias = "traceSample",
        value_name = "SHARE",
        env = "TRACE_SAMPLE",
        hide_env_values = true
    )]
    pub trace_sample: Option<String>,
}

impl TraceArgs {
    /// What they ask for.
    pub fn plan(&self) -> Result<Option<TraceOptions>, Invalid> {
        let sample = given(&self.trace_sample);
        let share = match sample {
            None => SHARE,
            Some(text) => share(text).ok_or_else(|| {
                Invalid(format!(
                    "{SAMPLE} '{text}': expected a share from 0 to 1, for example 0.01"
                ))
            })?,
        };
        match (given(&self.otlp_endpoint), sample) {
            (Some(text), _) => Ok(Some(TraceOptions {
                endpoint: endpoint(text)?,
                share,
            })),
            (None, Some(text)) => Err(Invalid(format!(
                "{SAMPLE} '{text}': nothing is traced without --otlp-endpoint (OTLP_ENDPOINT)"
            ))),
            (None, None) => Ok(None),
        }
    }
}

fn share(text: &str) -> Option<f64> {
    let share = text.parse::<f64>().ok()?;
    (0.0..=1.0).contains(&share).then_some(share)
}

fn endpoint(text: &str) -> Result<String, Invalid> {
    let invalid = |more: &str| {
        Invalid(format!(
            "{ENDPOINT} '{text}': expected http://host:port, for example http://10.0.0.9:4317{more}"
        ))
    };
    if text.starts_with("https://") {
        return Err(invalid("; there is no TLS"));
    }
    let rest = text.strip_prefix("http://").ok_or_else(|| invalid(""))?;
    let address = address::check(ENDPOINT, rest.trim_end_matches('/')).map_err(|_| invalid(""))?;
    Ok(format!("http://{address}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(endpoint: &str, sample: &str) -> Result<Option<TraceOptions>, String> {
        let args = TraceArgs {
            otlp_endpoint: Some(endpoint.into()),
            trace_sample: Some(sample.into()),
        };
        args.plan().map_err(|error| error.to_string())
    }

    #[test]
    fn as_its_users_type_it() {
        let planned = |endpoint: &str, share| {
            Ok(Some(TraceOptions {
                endpoint: endpoint.into(),
                share,
            }))
        };
        let url = "http://10.0.0.9:4317";
        assert_eq!(plan(url, ""), planned(url, SHARE));
        assert_eq!(plan("http://10.0.0.9:4317/", "1"), planned(url, 1.0));
        assert_eq!(
            plan("http://[::1]:4317", "0"),
            planned("http://[::1]:4317", 0.0)
        );
        assert_eq!(plan("", ""), Ok(None));
        assert_eq!(TraceArgs::default().plan(), Ok(None));
    }

    #[test]
    fn refusals_quote_what_was_typed() {
        for (endpoint, sample, said) in [
            ("10.0.0.9:4317", "", "'10.0.0.9:4317': expected http://host:port"),
            ("https://c:4317", "", "'https://c:4317': expected http://host:port, for example http://10.0.0.9:4317; there is no TLS"),
            ("http://collector", "", "'http://collector'"),
            ("http://c:4317/v1/traces", "", "'http://c:4317/v1/traces'"),
            ("http://c:4317", "2", "'2': expected a share from 0 to 1"),
            ("http://c:4317", "1%", "'1%'"),
            ("http://c:4317", "NaN", "'NaN'"),
            ("", "0.5", "'0.5': nothing is traced without --otlp-endpoint"),
        ] {
            let refused = plan(endpoint, sample).unwrap_err();
            assert!(refused.contains(said), "{endpoint} {sample}: {refused}");
        }
    }
}
