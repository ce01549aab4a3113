//! Spans on their way to the collector: a bounded queue, a thread of the SDK that makes batches, and
//! the OTLP exporter on our runtime. Who has a span to send never waits, whatever the collector does.

use anyhow::Context;
use opentelemetry_otlp::{WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanExporter, SpanProcessor,
};
use opentelemetry_sdk::Resource;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tonic::transport::Endpoint;

/// Spans that wait; more are dropped. A traced write has seven.
const WAITING_MAX: usize = 8192;
/// Spans of one message to the collector.
const BATCH_MAX: usize = 512;
/// A batch that is not full waits for company.
const BATCH_DELAY: Duration = Duration::from_secs(1);
/// The collector has this long to take a batch.
const EXPORT_MAX: Duration = Duration::from_secs(3);
/// Trouble with the collector is logged at most this often.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// See the module's documentation.
pub struct Batches {
    processor: BatchSpanProcessor,
    figures: Arc<Figures>,
}

#[derive(Debug, Default)]
struct Figures {
    /// Handed in, and not yet in a batch.
    waiting: AtomicUsize,
    /// Dropped since this was last logged.
    dropped: AtomicUsize,
}

impl Batches {
    /// To the collector at `endpoint`, a URL, which need not be there yet. Called within a runtime.
    pub fn start(endpoint: &str, resource: &Resource) -> anyhow::Result<Self> {
        let channel = Endpoint::from_shared(endpoint.to_owned())
            .with_context(|| format!("--otlp-endpoint '{endpoint}'"))?
            .connect_timeout(EXPORT_MAX)
            .timeout(EXPORT_MAX)
            .connect_lazy();
        let mut otlp = opentelemetry_otlp::SpanExporter::builder()
            .with_tonic()
            .with_channel(channel)
            .with_timeout(EXPORT_MAX)
            .build()
            .with_context(|| format!("--otlp-endpoint '{endpoint}'"))?;
        otlp.set_resource(resource);
        let figures = Arc::<Figures>::default();
        let exporter = Exporter {
            otlp: Arc::new(otlp),
            endpoint: endpoint.to_owned(),
            runtime: Handle::current(),
            figures: figures.clone(),
            trouble: Mutex::default(),
        };
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(WAITING_MAX)
            .with_max_export_batch_size(BATCH_MAX)
            .with_scheduled_delay(BATCH_DELAY)
            .build();
        let processor = BatchSpanProcessor::builder(exporter)
            .with_batch_config(config)
            .build();
        Ok(Batches { processor, figures })
    }

    /// Queues a span, or drops it. Never blocks.
    pub fn push(&self, span: SpanData) {
        if self.figures.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
            self.figures.waiting.fetch_sub(1, Ordering::Relaxed);
            self.figures.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.processor.on_end(span);
    }

    /// Sends what waits, for so long at most, and ends. Blocks.
    pub fn close(&self, within: Duration) {
        if let Err(error) = self.processor.shutdown_with_timeout(within) {
            tracing::warn!(%error, "the last spans did not reach the collector");
        }
    }
}

/// The OTLP exporter, on our runtime: the thread that makes batches has no timers.
#[derive(Debug)]
struct Exporter {
    otlp: Arc<opentelemetry_otlp::SpanExporter>,
    endpoint: String,
    runtime: Handle,
    figures: Arc<Figures>,
    trouble: Mutex<Trouble>,
}

/// What has yet to be logged.
#[derive(Debug, Default)]
struct Trouble {
    lost: usize,
    complained: Option<Instant>,
}

impl Trouble {
    /// How many spans to complain about now, if it is time.
    fn due(&mut self, lost: usize, now: Instant) -> Option<usize> {
        self.lost += lost;
        let waits = |then: Instant| now.duration_since(then) < COMPLAIN_EVERY;
        if self.lost == 0 || self.complained.is_some_and(waits) {
            return None;
        }
        self.complained = Some(now);
        Some(std::mem::take(&mut self.lost))
    }
}

impl SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        self.figures.waiting.fetch_sub(count, Ordering::Relaxed);
        let otlp = self.otlp.clone();
        let sending = self.runtime.spawn(async move { otlp.export(batch).await });
        let sent = sending
            .await
            .unwrap_or_else(|ended| Err(OTelSdkError::InternalFailure(ended.to_string())));
        let unsent = if sent.is_err() { count } else { 0 };
        let lost = unsent + self.figures.dropped.swap(0, Ordering::Relaxed);
        if let Some(lost) = self.trouble.lock().due(lost, Instant::now()) {
            let endpoint = &self.endpoint;
            match &sent {
                Err(error) => {
                    tracing::warn!(endpoint, lost, %error, "spans did not reach the collector")
                }
                Ok(()) => tracing::warn!(
                    endpoint,
                    lost,
                    "spans were dropped: more were made than the collector took"
                ),
            }
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.otlp.shutdown_with_timeout(timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_told_once_in_a_while_and_nothing_of_it_is_forgotten() {
        let mut trouble = Trouble::default();
        let began = Instant::now();
        let after = |seconds| began + Duration::from_secs(seconds);
        assert_eq!(trouble.due(0, after(0)), None);
        assert_eq!(trouble.due(5, after(1)), Some(5));
        assert_eq!(trouble.due(7, after(2)), None);
        assert_eq!(trouble.due(0, after(60)), None);
        assert_eq!(trouble.due(1, after(61)), Some(8));
        assert_eq!(trouble.due(0, after(200)), None);
    }
}
