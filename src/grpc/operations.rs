//! Operations that were begun, by token: they go on whether or not somebody waits for them.

use crate::admin::failure::Failure;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::future::Future;
use std::time::Duration;
use tokio::sync::watch;

/// Tokens that are remembered; the oldest is forgotten first.
const KEPT_MAX: usize = 1_024;

/// What came of an operation; `None` = it goes on.
type Outcome = Option<Result<u64, Failure>>;

/// See the module's documentation.
#[derive(Default)]
pub struct Operations {
    /// Held to look at, never across a wait.
    kept: Mutex<VecDeque<(String, watch::Receiver<Outcome>)>>,
}

impl Operations {
    /// Begins `work`, which ends with an index, and waits for its end up to `patience`. Its
    /// token, and what came of it.
    pub async fn begin(
        &self,
        patience: Duration,
        work: impl Future<Output = Result<u64, Failure>> + Send + 'static,
    ) -> (String, Outcome) {
        let (sender, receiver) = watch::channel(None);
        tokio::spawn(async move {
            let outcome = work.await;
            sender.send_replace(Some(outcome));
        });
        let token = format!("{:032x}", rand::random::<u128>());
        {
            let mut kept = self.kept.lock();
            if kept.len() == KEPT_MAX {
                kept.pop_front();
            }
            kept.push_back((token.clone(), receiver.clone()));
        }
        let outcome = tokio::time::timeout(patience, end_of(receiver)).await;
        (token, outcome.ok())
    }

    /// Waits for the end of an operation; `None` = the token is not known here.
    pub async fn wait(&self, token: &str) -> Outcome {
        let receiver = {
            let kept = self.kept.lock();
            let found = kept.iter().find(|(known, _)| known == token);
            found.map(|(_, receiver)| receiver.clone())?
        };
        Some(end_of(receiver).await)
    }

    /// Whether there was such a token.
    pub fn forget(&self, token: &str) -> bool {
        let mut kept = self.kept.lock();
        let before = kept.len();
        kept.retain(|(known, _)| known != token);
        kept.len() < before
    }
}

async fn end_of(mut receiver: watch::Receiver<Outcome>) -> Result<u64, Failure> {
    match receiver.wait_for(Option::is_some).await {
        Ok(outcome) => outcome.clone().expect("waited for"),
        // Its task panicked.
        Err(_) => Err(Failure::Unknown("the operation was dropped".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn an_operation_outlives_the_patience_of_its_caller() {
        let operations = Operations::default();
        let (finish, finished) = oneshot::channel();
        let work = async { Ok(finished.await.unwrap_or(0)) };
        let (token, outcome) = operations.begin(Duration::from_millis(1), work).await;
        assert_eq!(outcome, None);
        finish.send(7).unwrap();
        assert_eq!(operations.wait(&token).await, Some(Ok(7)));
        assert_eq!(operations.wait(&token).await, Some(Ok(7)), "again");
        assert!(operations.forget(&token));
        assert!(!operations.forget(&token));
        assert_eq!(operations.wait(&token).await, None);
    }

    #[tokio::test]
    async fn the_oldest_token_goes_first() {
        let operations = Operations::default();
        let mut tokens = Vec::new();
        for index in 0..KEPT_MAX as u64 + 1 {
            let (token, outcome) = operations
                .begin(Duration::from_secs(60), async move { Ok(index) })
                .await;
            assert_eq!(outcome, Some(Ok(index)));
            tokens.push(token);
        }
        assert_eq!(operations.wait(&tokens[0]).await, None);
        assert_eq!(operations.wait(&tokens[1]).await, Some(Ok(1)));
    }
}
