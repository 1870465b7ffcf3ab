//! The engine and the model side by side, step after step. Free of proptest: `fuzz/` (operations) drives it too.

use std::time::Duration;

use duroxide::providers::WorkItem;

use crate::answer::Answer;
use crate::engine::Engine;
use crate::engine_support::raised;
use crate::model::Model;
use crate::op::{Bytes, Op, Tags};
use crate::planned::{instance_name, start_by};

/// Both sides, and what has been done so far, for the message of a failure.
struct Pair {
    engine: Engine,
    model: Model,
    done: Vec<Op>,
}

impl Pair {
    fn new(engine: Engine) -> Self {
        Self { engine, model: Model::default(), done: Vec::new() }
    }

    async fn step(&mut self, op: Op) {
        if let Op::WholeTurn { plan } = op {
            self.answers(Op::FetchTurn { ranges: None }).await;
            self.answers(Op::AckTurn { token: 0, plan }).await;
        } else {
            self.answers(op).await;
        }
        let (found, expected) = (self.engine.look(self.done.len()).await, self.model.look());
        assert_eq!(found, expected, "engine, model; after {:#?}", self.done);
    }

    /// What both say, which is the same.
    async fn answers(&mut self, op: Op) -> Answer {
        self.done.push(op);
        let (said, expected) = self.both(op).await;
        assert_eq!(said, expected, "engine, model; at the end of {:#?}", self.done);
        said
    }

    async fn both(&mut self, op: Op) -> (Answer, Answer) {
        let (engine, model) = (&mut self.engine, &mut self.model);
        let skipped = (Answer::Done, Answer::Done);
        match op {
            Op::Start { instance, parent } => {
                let parent = parent.map(instance_name);
                let item = start_by(parent.as_deref(), &instance_name(instance));
                model.enqueue(item.clone(), None);
                (engine.enqueue(item, None).await, Answer::Done)
            }
            Op::Raise { instance, delay_s } => {
                let item = raised(&instance_name(instance), "bell");
                model.enqueue(item.clone(), delay_s);
                (engine.enqueue(item, delay_s).await, Answer::Done)
            }
            Op::Queue { instance } => {
                let item = WorkItem::QueueMessage {
                    instance: instance_name(instance),
                    name: "letters".into(),
                    data: "hello".into(),
                };
                model.enqueue(item.clone(), None);
                (engine.enqueue(item, None).await, Answer::Done)
            }
            Op::Work { instance, session, tag } => {
                let item = model.activity(&instance_name(instance), session, tag);
                model.enqueue_work(item.clone());
                (engine.enqueue_work(item).await, Answer::Done)
            }
            Op::AckTurn { token, plan } => {
                let Some(token) = model.turn_token(token) else { return skipped };
                let turn = model.turn(token, plan);
                (engine.ack_turn(token, turn.clone()).await, model.ack_turn(token, turn))
            }
            Op::AckWork { token, completes } => {
                let Some(token) = model.work_token(token) else { return skipped };
                let completion = completes.then(|| model.completion(token));
                (engine.ack_work(token, completion.clone()).await, model.ack_work(token, completion))
            }
            Op::Append { instance, duplicate } => {
                let Some((execution, added)) = model.by_hand(instance, duplicate) else { return skipped };
                (engine.append(execution, added.clone()).await, model.append(execution, added))
            }
            // A restart reads again from the rows when a message is due, so there the clock does not go back.
            Op::SetBack if engine.can_reopen() => skipped,
            Op::Reopen if !engine.can_reopen() => skipped,
            other => (engine.apply(other).await, model.apply(other)),
        }
    }

    /// Takes everything there is, now and later.
    async fn finish(&mut self) {
        for _ in 0..3 {
            self.step(Op::Advance(Duration::from_secs(31))).await;
            let work = Op::FetchWork { worker: Some(0), tags: Tags::Any };
            while !self.took(Op::FetchTurn { ranges: None }).await || !self.took(work).await {}
        }
    }

    /// Whether there was nothing left to take.
    async fn took(&mut self, op: Op) -> bool {
        matches!(self.answers(op).await, Answer::Turn(None) | Answer::Work(None))
    }
}

/// Does what the bytes say on both sides; panics where they differ.
pub(crate) fn run(engine: Engine, bytes: &[u8]) {
    let mut bytes = Bytes(bytes);
    run_steps(engine, std::iter::from_fn(|| Op::from_bytes(&mut bytes)));
}

pub(crate) fn run_steps(engine: Engine, steps: impl IntoIterator<Item = Op>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut pair = Pair::new(engine);
        for op in steps {
            pair.step(op).await;
        }
        pair.finish().await;
    });
}
