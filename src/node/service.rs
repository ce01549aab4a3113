//! The gRPC service between stores: the answering end of each call.
//!
//! Listens before the store has a seat: then it says who it is, takes a seat that is offered,
//! and refuses everything else.

use super::greeting::Greeting;
use super::join;
use super::replies::{Replies, ReplyFrames};
use super::running::Running;
use super::seat::Seat;
use crate::ctl::server as ctl;
use rangekv_proto::convert::request_from_wire;
use rangekv_proto::internal::internal_server::Internal;
use rangekv_proto::internal::{
    CtlReply, CtlRequest, Frame, Identity, Initialise, InitialiseReply, JoinReply, JoinRequest,
    ProbeRequest, SnapshotAck, SnapshotChunk,
};
use rangekv_proto::{ReplySink, Request as RangeRequest, RequestError};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tonic::{Request, Response, Status, Streaming};

/// A stream pauses this long when too many raft messages wait for the worker.
const RAFT_PAUSE: Duration = Duration::from_millis(2);

/// See the module's documentation.
pub struct Service {
    seat: Arc<Seat>,
    running: Arc<OnceLock<Arc<Running>>>,
}

impl Service {
    /// Answers for `seat`; for `running` as soon as it is set.
    pub fn new(seat: Arc<Seat>, running: Arc<OnceLock<Arc<Running>>>) -> Self {
        Service { seat, running }
    }

    fn running(&self) -> Result<&Arc<Running>, Status> {
        self.running.get().ok_or_else(|| {
            let notice = self.seat.notice().map(|n| format!(": {n}"));
            Status::unavailable(format!(
                "{} waits to be initialised{}",
                self.seat.name(),
                notice.unwrap_or_default()
            ))
        })
    }

    /// The caller, if it is of this cluster and means this store.
    fn greeted<T>(&self, request: &Request<T>) -> Result<(Greeting, &Arc<Running>), Status> {
        let greeting = Greeting::read(request.metadata())?;
        if self.seat.identity().is_none() {
            self.seat.was_called(&greeting);
        }
        let running = self.running()?;
        greeting.check(&running.identity)?;
        Ok((greeting, running))
    }
}

#[tonic::async_trait]
impl Internal for Service {
    type ExchangeStream = ReplyFrames;

    async fn exchange(
        &self,
        request: Request<Streaming<Frame>>,
    ) -> Result<Response<ReplyFrames>, Status> {
        let (greeting, running) = self.greeted(&request)?;
        running.stores.transport.called_by(greeting.from);
        let replies = Arc::new(Replies::default());
        let (frames, running, sink) = (request.into_inner(), running.clone(), replies.clone());
        tokio::spawn(async move {
            let ended = take_frames(&greeting, frames, &running, &sink).await;
            tracing::debug!(from = %greeting.from, ?ended, "stream from store ended");
            sink.close();
        });
        Ok(Response::new(ReplyFrames(replies)))
    }

    async fn send_snapshot(
        &self,
        request: Request<Streaming<SnapshotChunk>>,
    ) -> Result<Response<SnapshotAck>, Status> {
        let (_, running) = self.greeted(&request)?;
        let ack = running.snapshots.receive(request.into_inner()).await?;
        Ok(Response::new(ack))
    }

    async fn identify(&self, _: Request<ProbeRequest>) -> Result<Response<Identity>, Status> {
        Ok(Response::new(self.seat.describe()))
    }

    async fn initialise_store(
        &self,
        request: Request<Initialise>,
    ) -> Result<Response<InitialiseReply>, Status> {
        let (seat, offer) = (self.seat.clone(), request.into_inner());
        let taken = tokio::task::spawn_blocking(move || seat.take(&offer)).await;
        let taken = taken.map_err(|e| Status::internal(e.to_string()))?;
        Ok(Response::new(InitialiseReply {
            accepted: taken.is_ok(),
            reason: taken.err().unwrap_or_default(),
            identity: Some(self.seat.describe()),
        }))
    }

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinReply>, Status> {
        let calls = &self.running()?.calls;
        let reply = join::answer(calls, request.into_inner()).await?;
        Ok(Response::new(reply))
    }

    async fn ctl(&self, request: Request<CtlRequest>) -> Result<Response<CtlReply>, Status> {
        let passed_on = request.metadata().contains_key(ctl::PASSED_ON);
        let json = request.into_inner().json;
        match ctl::answer(self.running()?, &json, passed_on).await {
            Ok(json) => Ok(Response::new(CtlReply {
                json,
                error: String::new(),
            })),
            Err(ctl::Failure::Refused(error)) => Ok(Response::new(CtlReply {
                json: String::new(),
                error,
            })),
            Err(ctl::Failure::Unavailable(why)) => Err(Status::unavailable(why)),
        }
    }
}

/// Hands what comes on a stream to the worker, in order.
async fn take_frames(
    greeting: &Greeting,
    mut frames: Streaming<Frame>,
    running: &Running,
    replies: &Arc<Replies>,
) -> Result<(), Status> {
    let sink: Arc<dyn ReplySink> = replies.clone();
    while let Some(frame) = frames.message().await? {
        if !frame.raft.is_empty() && running.mailbox.push_raft(greeting.from, frame.raft) {
            // The sender's queue fills, and drops: better than ours growing without end.
            while running.mailbox.over_raft_limit() {
                tokio::time::sleep(RAFT_PAUSE).await;
            }
        }
        let mut batch: Vec<(RangeRequest, u64)> = Vec::with_capacity(frame.requests.len());
        for wire in frame.requests {
            match request_from_wire(wire) {
                Ok((token, request)) => batch.push((request, token)),
                Err((token, why)) => sink.complete(token, Err(RequestError::Invalid(why))),
            }
        }
        if !batch.is_empty() {
            let call = |(request, token)| (request, sink.clone(), token);
            running.stores.deliver(batch.into_iter().map(call));
        }
    }
    Ok(())
}
