//! A client: one operation at a time, sent to whom it takes for the leader, and sent again
//! only where that is safe. It decides by the router's own route cache and retry policy.
//!
//! A client that hears nothing gives up on a write: its outcome is unknown. It asks again for
//! a read, and for what is carried out once however often it is asked for. Only if every attempt was refused is an operation not executed.

use crate::history::{Op, OpId, Reply};
use crate::items::ItemOp;
use crate::schedule::{Time, MS};
use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::Rng;
use rangekv_model::redis::codec::{encode_command, Protocol};
use rangekv_proto::{Body, EvaluatorId, Mark, Request, RequestError, Response, StoreId};
use rangekv_router::cache::{Asked, RangeCache};
use rangekv_router::retry::{Action, Ask, Attempt, DoorError, Policy};

/// An operation on its way.
#[derive(Debug)]
pub struct InFlight {
    /// In the history; `None` for a final read that has not been entered yet.
    pub id: OpId,
    /// Its key's record.
    pub record: Bytes,
    evaluator: EvaluatorId,
    command: Bytes,
    /// What it is, for an item of a table: replies are read by it.
    item: Option<ItemOp>,
    read_only: bool,
    /// Sent again when nobody knows.
    repeatable: bool,
    deadline: Time,
    tries: u32,
    /// How many of the last retries went without a wait.
    at_once: u32,
    /// Token of the attempt that is out, where it went, and when it is taken for lost.
    attempt: Option<(u64, Asked, Time)>,
    /// Where the attempt before went.
    asked_before: Option<StoreId>,
    /// An attempt of a write is out, or was, of which nothing is known.
    open: bool,
    /// Nothing is known of an attempt before this one: whatever comes of this one, that stays so.
    doubtful: bool,
    another: bool,
}

/// What a client wants.
#[derive(Debug)]
pub enum Step {
    /// Send this, under this token, and wake me then.
    Send {
        /// The store.
        store: StoreId,
        /// The request.
        request: Request,
        /// Its token.
        token: u64,
        /// When to call [`Client::on_timer`].
        timer: Time,
    },
    /// No route: wake me then, with news about routes.
    Wait(Time),
    /// The operation ended.
    End(OpId, Ended),
}

/// How an operation ended.
#[derive(Debug)]
pub enum Ended {
    /// With a reply.
    Replied(Reply),
    /// Nobody knows.
    Unknown,
    /// All attempts were refused.
    NotExecuted,
    /// The store says that the request is wrong, or the reply makes no sense: a finding.
    Wrong(String),
}

/// See the module's documentation.
pub struct Client {
    /// Number in the history.
    pub number: u32,
    /// What it knows of routes.
    pub routes: RangeCache,
    /// Which call on it is the valid one.
    pub wake: u64,
    /// Its operation.
    pub busy: Option<InFlight>,
    policy: Policy,
    /// Share of reads sent to any member: as by who has not heard of the new leader.
    astray: f64,
    /// How long an operation may take.
    pub patience: Time,
    rng: SmallRng,
}

impl Client {
    /// A client that knows nothing.
    pub fn new(number: u32, mut rng: SmallRng) -> Client {
        // The longer a client waits, the older the leader that may still answer it.
        let read_try_ms = rng.random_range(150..2_500);
        let astray = rng.random_range(0.0..0.3);
        let policy = Policy {
            read_try_ms,
            ..Policy::default()
        };
        Client {
            number,
            routes: RangeCache::default(),
            wake: 0,
            busy: None,
            policy,
            astray,
            patience: 2_500 * MS,
            rng,
        }
    }

    /// Randomness for its choice of operations.
    pub fn rng(&mut self) -> &mut SmallRng {
        &mut self.rng
    }

    /// Begins an operation.
    pub fn start(&mut self, now: Time, id: OpId, name: &Bytes, record: Bytes, op: &Op) {
        assert!(self.busy.is_none(), "client {} is busy", self.number);
        let (evaluator, command, item) = match op {
            Op::Item(op) => (EvaluatorId::DYNAMO, op.command(name), Some(op.clone())),
            op => {
                let command = encode_command(Protocol::Resp2, 0, &op.arguments(name));
                (EvaluatorId::REDIS, command, None)
            }
        };
        self.busy = Some(InFlight {
            id,
            record,
            evaluator,
            command,
            item,
            read_only: op.is_read_only(),
            repeatable: op.is_repeatable(),
            deadline: now + self.patience,
            tries: 0,
            at_once: 0,
            attempt: None,
            asked_before: None,
            open: false,
            doubtful: false,
            another: false,
        });
    }

    /// Sends the operation to where it should go.
    pub fn send(&mut self, now: Time, token: u64) -> Step {
        let op = self.busy.as_mut().expect("an operation to send");
        if now >= op.deadline {
            return self.give_up();
        }
        let Some(route) = self.routes.lookup(&op.record).cloned() else {
            return Step::Wait(now + 50 * MS);
        };
        let members = &route.descriptor.replicas;
        assert!(
            op.attempt.is_none(),
            "client {} sends while an attempt is out",
            self.number
        );
        let astray = op.read_only && self.rng.random_bool(self.astray);
        let (store, term) = match route.leader {
            _ if astray => {
                let member = members.choose(&mut self.rng).expect("a range has members");
                (member.store, 0)
            }
            Some(hint) if !op.another || Some(hint.store) != op.asked_before => {
                (hint.store, hint.term)
            }
            _ => match members.choose(&mut self.rng) {
                Some(member) => (member.store, 0),
                None => return Step::Wait(now + 50 * MS),
            },
        };
        // Half of the clients name the term by which they routed, as the router does.
        let term = if self.number.is_multiple_of(2) {
            term
        } else {
            0
        };
        op.tries += 1;
        op.another = false;
        let asked = Asked {
            range: route.descriptor.id,
            version: route.descriptor.epoch.version,
            store,
            term,
        };
        let timer = match op.repeatable {
            true => op.deadline.min(now + self.policy.read_try_ms * MS),
            false => op.deadline,
        };
        op.attempt = Some((token, asked, timer));
        op.open |= !op.read_only;
        let body = Body::Command {
            evaluator: op.evaluator,
            read_only: op.read_only,
            command: op.command.clone(),
        };
        let request = Request {
            range: asked.range,
            version: asked.version,
            term,
            mark: Mark::NONE,
            body,
        };
        Step::Send {
            store,
            request,
            token,
            timer,
        }
    }

    /// Takes in a response; `None` if it is to an attempt that was given up.
    pub fn on_response(&mut self, now: Time, token: u64, response: Response) -> Option<Step> {
        let op = self.busy.as_mut()?;
        let (awaited, asked, _) = op.attempt?;
        if awaited != token {
            return None;
        }
        let error = match response {
            Ok(reply) => {
                let parsed = match &op.item {
                    Some(item) => item.reply(&reply),
                    None => Reply::parse(&reply),
                };
                let ended = match parsed {
                    Some(reply) => Ended::Replied(reply),
                    None => Ended::Wrong(format!(
                        "not a reply: {:?}",
                        reply.escape_ascii().to_string()
                    )),
                };
                return Some(self.end(ended));
            }
            Err(error) => error,
        };
        if !matches!(error, RequestError::OutcomeUnknown(_)) {
            op.open = op.doubtful;
        }
        Some(self.retry(now, asked, &error))
    }

    fn retry(&mut self, now: Time, asked: Asked, error: &RequestError) -> Step {
        let news = self.routes.on_error(&asked, error);
        let op = self.busy.as_mut().expect("an operation was refused");
        op.attempt = None;
        op.asked_before = Some(asked.store);
        // What may be sent again is refused, as far as the policy is concerned.
        let unavailable = RequestError::Unavailable("nobody knows; asked again".into());
        let error = match error {
            RequestError::OutcomeUnknown(_) if op.repeatable => {
                op.doubtful = !op.read_only;
                &unavailable
            }
            error => error,
        };
        let attempt = Attempt {
            now_ms: now / MS,
            deadline_ms: op.deadline / MS,
            tries: op.tries,
            at_once: op.at_once,
            read_only: op.read_only,
            asked,
            news,
        };
        match self.policy.next(error, &attempt) {
            Action::RetryAt { when_ms, ask } => {
                op.another = ask == Ask::Another;
                op.at_once = if when_ms <= now / MS {
                    op.at_once + 1
                } else {
                    0
                };
                Step::Wait(now.max(when_ms * MS))
            }
            Action::GiveUp(DoorError::Invalid(why)) => self.end(Ended::Wrong(why)),
            Action::GiveUp(_) => self.give_up(),
        }
    }

    /// Time has passed: an attempt may be lost.
    pub fn on_timer(&mut self, now: Time) -> Option<Step> {
        let op = self.busy.as_mut()?;
        let (_, asked, until) = op.attempt?;
        if now < until {
            return None;
        }
        let lost = match op.read_only {
            true => RequestError::Unavailable("no answer in time".into()),
            false => RequestError::OutcomeUnknown("no answer in time".into()),
        };
        Some(self.retry(now, asked, &lost))
    }

    fn give_up(&mut self) -> Step {
        let open = self.busy.as_ref().is_some_and(|op| op.open);
        self.end(if open {
            Ended::Unknown
        } else {
            Ended::NotExecuted
        })
    }

    fn end(&mut self, ended: Ended) -> Step {
        let op = self.busy.take().expect("an operation to end");
        Step::End(op.id, ended)
    }
}
