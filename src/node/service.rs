//! The gRPC service between stores: the answering end of each call.
//!
//! Listens before the store has a seat: then it says who it is, takes a seat that is offered,
//! and refuses everything else.

use super::calls::Target;
use super::dial::CONNECT_TIME_MAX;
use super::frame::Frame;
use super::greeting::Greeting;
use super::join;
use super::link::{self, Open};
use super::pubsub::Incoming;
use super::replies::Replies;
use super::running::Running;
use super::seat::Seat;
use crate::admin::failure::Failure;
use crate::ctl::server as ctl;
use crate::ctl::wire::LEADER_HINT;
use rangekv_proto::frame::get_request;
use rangekv_proto::internal::internal_server::Internal;
use rangekv_proto::internal::{
    CtlReply, CtlRequest, Identity, Initialise, InitialiseReply, JoinReply, JoinRequest,
    ProbeRequest, SnapshotAck, SnapshotChunk,
};
use rangekv_proto::{Body, ReplySink, StoreId};
use rangekv_router::stores::SentCall;
use std::sync::{Arc, OnceLock};
use tokio::net::TcpStream;
use tonic::{Request, Response, Status, Streaming};

/// See the module's documentation.
#[derive(Clone)]
pub struct Service {
    here: Here,
}

/// This store, which may be waiting for its seat.
#[derive(Clone)]
pub struct Here {
    /// What it has or will have.
    pub seat: Arc<Seat>,
    /// Set once it runs.
    pub running: Arc<OnceLock<Arc<Running>>>,
}

impl Here {
    /// The running store, or the answer to whoever needs one.
    pub fn running(&self) -> Result<&Arc<Running>, Status> {
        self.running.get().ok_or_else(|| {
            let notice = self.seat.notice().map(|n| format!(": {n}"));
            Status::unavailable(format!(
                "{} waits to be initialised{}",
                self.seat.name(),
                notice.unwrap_or_default()
            ))
        })
    }
}

impl Service {
    /// Answers for the seat; for the running store as soon as there is one.
    pub fn new(here: Here) -> Self {
        Service { here }
    }

    /// Somebody else may have the answer: the placement driver's leader, if it is known.
    fn unavailable(&self, why: String) -> Status {
        let mut status = Status::unavailable(why);
        let hint = self.here.running.get().and_then(|node| {
            let leader = node.calls.route(Target::Placement)?.leader?.store;
            node.book.grpc(leader)
        });
        if let Some(address) = hint.and_then(|address| address.parse().ok()) {
            status.metadata_mut().insert(LEADER_HINT, address);
        }
        status
    }

    /// The caller, if it is of this cluster and means this store.
    fn greeted(&self, greeting: &Greeting) -> Result<&Arc<Running>, Status> {
        if self.here.seat.identity().is_none() {
            self.here.seat.was_called(greeting);
        }
        let running = self.here.running()?;
        greeting.check(&running.identity)?;
        Ok(running)
    }

    /// Serves a connection that began as a link until it ends.
    pub async fn link(self, mut stream: TcpStream) {
        let greeting = tokio::time::timeout(CONNECT_TIME_MAX, link::read_greeting(&mut stream));
        let Ok(Ok(greeting)) = greeting.await else {
            return tracing::debug!("a link without a greeting");
        };
        let greeted = self.greeted(&greeting);
        let refusal = greeted.as_ref().err().map(Status::message);
        if let Err(error) = link::answer(&mut stream, refusal).await {
            return tracing::debug!(from = %greeting.from, %error, "a link broke at once");
        }
        let Ok(running) = greeted else { return };
        running.stores.transport.called_by(greeting.from);
        let running = running.clone();
        let stream = match link::socket(stream) {
            Ok(stream) => stream,
            Err(error) => return tracing::warn!(%error, "a link's socket"),
        };
        let replies = Arc::new(Replies::default());
        let session = replies.open(stream.clone());
        let link = Open {
            stream,
            sending: replies.clone(),
            session,
        };
        let reader = running.worker.clone();
        let mut taker = Taker {
            from: greeting.from,
            running,
            messages: None,
            sink: replies.clone(),
        };
        let ended = link::run(link, &reader, move |frame| taker.take(frame)).await;
        tracing::debug!(from = %greeting.from, %ended, "link from store ended");
        replies.close();
    }
}

/// Takes what comes on a link, on the worker's thread.
struct Taker {
    from: StoreId,
    running: Arc<Running>,
    /// Begins with the first Pub/Sub message: they all come on one of a store's links.
    messages: Option<Incoming>,
    sink: Arc<dyn ReplySink>,
}

impl Taker {
    /// Hands a frame to the worker's mailbox and to Pub/Sub, in order.
    fn take(&mut self, frame: Frame) {
        let running = &self.running;
        if !frame.raft.is_empty() {
            running.mailbox.push_raft(self.from, frame.raft);
        }
        let (mut requests, mut calls): (_, Vec<SentCall>) = (frame.requests, Vec::new());
        while !requests.is_empty() {
            match get_request(&mut requests) {
                Ok((token, request)) => match request.body {
                    Body::PubSub(ask) => {
                        let link = || running.pubsub.link(self.from);
                        let messages = self.messages.get_or_insert_with(link);
                        messages.push(ask, &self.sink, token);
                    }
                    _ => calls.push((request, self.sink.clone(), token)),
                },
                Err(error) => {
                    // Their senders hear at their deadlines.
                    tracing::error!(from = %self.from, %error, "requests of another version");
                    break;
                }
            }
        }
        if !calls.is_empty() {
            running.stores.deliver(calls.into_iter());
        }
    }
}

#[tonic::async_trait]
impl Internal for Service {
    async fn send_snapshot(
        &self,
        request: Request<Streaming<SnapshotChunk>>,
    ) -> Result<Response<SnapshotAck>, Status> {
        let running = self.greeted(&Greeting::read(request.metadata())?)?;
        let ack = running.snapshots.receive(request.into_inner()).await?;
        Ok(Response::new(ack))
    }

    async fn identify(&self, _: Request<ProbeRequest>) -> Result<Response<Identity>, Status> {
        Ok(Response::new(self.here.seat.describe()))
    }

    async fn initialise_store(
        &self,
        request: Request<Initialise>,
    ) -> Result<Response<InitialiseReply>, Status> {
        let (seat, offer) = (self.here.seat.clone(), request.into_inner());
        let taken = tokio::task::spawn_blocking(move || seat.take(&offer)).await;
        let taken = taken.map_err(|e| Status::internal(e.to_string()))?;
        Ok(Response::new(InitialiseReply {
            accepted: taken.is_ok(),
            reason: taken.err().unwrap_or_default(),
            identity: Some(self.here.seat.describe()),
        }))
    }

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinReply>, Status> {
        let running = self.here.running()?;
        let reply = join::answer(&running.calls, &running.book, request.into_inner()).await?;
        Ok(Response::new(reply))
    }

    async fn ctl(&self, request: Request<CtlRequest>) -> Result<Response<CtlReply>, Status> {
        let passed_on = request.metadata().contains_key(ctl::PASSED_ON);
        let json = request.into_inner().json;
        let (json, error, outcome_unknown) =
            match ctl::answer(self.here.running()?, &json, passed_on).await {
                Ok(json) => (json, String::new(), false),
                Err(Failure::Unavailable(why)) => return Err(self.unavailable(why)),
                Err(Failure::Unknown(why)) => (String::new(), why, true),
                Err(refused) => (String::new(), refused.to_string(), false),
            };
        Ok(Response::new(CtlReply {
            json,
            error,
            outcome_unknown,
        }))
    }
}
