//! The placement driver's end of heartbeats, on whichever store leads range 1.
//!
//! The replicated state is read through the worker, as a command of the term in which this
//! store believes to lead: an answer proves that it does. The rest is soft state of that
//! term, kept by the `pd` crate.

use super::clock;
use super::mailbox::Mailbox;
use super::once::once;
use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message;
use rangekv_pd::leader::Leader;
use rangekv_pd::state::encode;
use rangekv_proto::internal::placement_command::{Kind, ReadState};
use rangekv_proto::internal::{Heartbeat, PlacementReply, PlacementState};
use rangekv_proto::{
    Body, EvaluatorId, Mark, ReplySink, Request, RequestError, Response, StoreId, PLACEMENT_RANGE,
};
use rangekv_store::shared::StoreShared;
use std::sync::Arc;
use tokio::runtime::Handle;

/// Range 1 is never split: its bounds are those of the cluster's beginning.
pub const PLACEMENT_VERSION: u64 = 1;

/// See the module's documentation.
pub struct Placement {
    me: StoreId,
    shared: Arc<StoreShared>,
    mailbox: Arc<Mailbox>,
    runtime: Handle,
    /// Held for one heartbeat, without waiting.
    leader: Mutex<Leader>,
}

impl Placement {
    /// Knows nothing yet.
    pub fn new(
        me: StoreId,
        shared: Arc<StoreShared>,
        mailbox: Arc<Mailbox>,
        runtime: Handle,
    ) -> Arc<Self> {
        Arc::new(Placement {
            me,
            shared,
            mailbox,
            runtime,
            leader: Mutex::default(),
        })
    }

    /// Answers a heartbeat, or says who can.
    pub fn answer(self: &Arc<Self>, heartbeat: Bytes, sink: Arc<dyn ReplySink>, token: u64) {
        let this = self.clone();
        self.runtime.spawn(async move {
            let response = this.heartbeat(heartbeat).await;
            sink.complete(token, response);
        });
    }

    /// Looks at the soft state, if this store leads range 1 now; with the replicated state.
    pub async fn inspect<T>(
        &self,
        look: impl FnOnce(&mut Leader, u64, &PlacementState) -> T,
    ) -> Result<T, RequestError> {
        let (term, state) = self.state().await?;
        let mut leader = self.leader.lock();
        leader.enter(now_ms(), term);
        Ok(look(&mut leader, term, &state))
    }

    async fn heartbeat(&self, heartbeat: Bytes) -> Response {
        let invalid = |e| RequestError::Invalid(format!("not a heartbeat: {e}"));
        let heartbeat = Heartbeat::decode(heartbeat).map_err(invalid)?;
        let reply = self
            .inspect(|leader, term, state| leader.heartbeat(now_ms(), term, &heartbeat, state))
            .await?;
        Ok(reply.encode_to_vec().into())
    }

    /// The replicated state, and the term in which this store leads range 1.
    async fn state(&self) -> Result<(u64, PlacementState), RequestError> {
        let range = PLACEMENT_RANGE;
        let route = self.shared.cell(range).and_then(|cell| cell.route());
        let Some(route) = route else {
            return Err(RequestError::RangeNotFound {
                range,
                store: self.me,
            });
        };
        let term = match route.1 {
            Some(hint) if hint.store == self.me => hint.term,
            leader => return Err(RequestError::NotLeader { range, leader }),
        };
        let request = Request {
            range,
            version: PLACEMENT_VERSION,
            term,
            mark: Mark::NONE,
            body: Body::Command {
                evaluator: EvaluatorId::PLACEMENT,
                read_only: true,
                command: encode(Kind::ReadState(ReadState {})),
            },
        };
        let (sink, reply) = once();
        self.mailbox.request(request, sink, 0);
        let reply = PlacementReply::decode(reply.await?)
            .map_err(|e| RequestError::Unavailable(format!("the placement state: {e}")))?;
        match reply.state {
            Some(state) => Ok((term, state)),
            None => Err(RequestError::Unavailable(reply.error)),
        }
    }
}

/// Milliseconds of the monotonic clock.
pub fn now_ms() -> u64 {
    clock::mono_ns() / 1_000_000
}
