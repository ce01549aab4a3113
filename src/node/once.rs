//! One response, awaited.

use parking_lot::Mutex;
use rangekv_proto::{ReplySink, RequestError, Response};
use std::future::Future;
use std::sync::Arc;
use tokio::sync::oneshot;

struct Once(Mutex<Option<oneshot::Sender<Response>>>);

impl ReplySink for Once {
    fn complete(&self, _token: u64, response: Response) {
        if let Some(sender) = self.0.lock().take() {
            // Nobody waits any more: a timeout, or a shutdown.
            let _ = sender.send(response);
        }
    }
}

/// A sink for one response, and the response. A sink that is dropped without one has lost it.
pub fn once() -> (Arc<dyn ReplySink>, impl Future<Output = Response>) {
    let (sender, receiver) = oneshot::channel();
    let response = async move {
        let lost = || RequestError::OutcomeUnknown("the request was dropped".into());
        receiver.await.unwrap_or_else(|_| Err(lost()))
    };
    (Arc::new(Once(Mutex::new(Some(sender)))), response)
}
