//! The same from several threads at once: what they were told must be explained by some order of all their
//! calls that keeps the order of each thread. The search tries them all; answers cut it short.

use std::sync::{Arc, Barrier};

use duroxide::EventKind;
use duroxide::providers::WorkItem;

use crate::answer::{Answer, Offered};
use crate::engine::Engine;
use crate::engine_support::{Turn, activity, event, raised, start};
use crate::model::Model;
use crate::op::{Bytes, Keep, Op, Tags, Which};
use crate::planned::{instance_name, start_by};

const THREADS: usize = 3;
const CALLS: usize = 5;

/// How many bytes decide all calls.
pub(crate) const BYTES: usize = 3 * THREADS * CALLS;

/// A call with all its arguments, so that the model can be asked the same.
#[derive(Debug, Clone)]
enum Call {
    Message(WorkItem),
    Work(WorkItem),
    /// A fetch, or something else whose arguments are numbers.
    Do(Op),
    /// What the thread got by its last fetch.
    AckTurn(Turn),
    AbandonTurn,
    AckWork,
    /// The history of an instance: on a file by another connection than the writer's.
    Read(String),
    /// All who come from an instance.
    Tree(String),
    Depths,
}

const FETCH_TURN: Op = Op::FetchTurn { ranges: None };
const FETCH_WORK: Op = Op::FetchWork { worker: None, tags: Tags::Any };

type Log = Vec<(Call, Answer)>;

/// Chooses a thread's next call by what it holds. There are two instances; the second may be the first one's
/// child.
fn choose(bytes: &mut Bytes<'_>, thread: usize, no: usize, turn: Option<&Offered>, work: bool) -> Call {
    let choice = bytes.below(16);
    let id = instance_name(bytes.below(2));
    let more = bytes.below(12);
    match (choice, turn) {
        (0..=5, Some(offered)) => Call::AckTurn(answer_to(offered, thread, no, more < 4)),
        (6, Some(_)) => Call::AbandonTurn,
        (7 | 8, _) if work => Call::AckWork,
        (0..=2, None) => {
            let parent = (id != instance_name(0) && more < 9).then(|| instance_name(0));
            Call::Message(start_by(parent.as_deref(), &id))
        }
        (3, _) => Call::Message(raised(&id, "bell")),
        (4, _) => Call::Work(activity(&id, unique(thread, no))),
        (6..=8, _) | (5, None) => Call::Do(FETCH_TURN),
        (9, _) => Call::Do(FETCH_WORK),
        (10, _) => Call::Read(id),
        (11, _) => Call::Tree(id),
        (12, _) => Call::Depths,
        (13, _) => Call::Do(Op::DeleteBulk(Which { ids: None, before_s: None, limit: Some(1 + more % 2) })),
        (14, _) if more < 3 => {
            Call::Do(Op::Prune { instance: more % 2, keep: Keep { last: None, before_s: None } })
        }
        _ => Call::Do(Op::DeleteThese { ids: 1 + more % 3, force: more < 6 }),
    }
}

fn unique(thread: usize, no: usize) -> u64 {
    (1000 * (thread + 1) + no) as u64
}

/// A turn that follows on what was offered: one event more, and an activity; or it is the last.
fn answer_to(offered: &Offered, thread: usize, no: usize, ends: bool) -> Turn {
    let id = &offered.instance;
    let mut turn = match offered.history.len() {
        0 => Turn::starting(id, offered.execution),
        _ => Turn::of(offered.execution, Vec::new()),
    };
    turn.metadata.parent_instance_id = offered.messages.iter().find_map(|message| match message {
        WorkItem::StartOrchestration { parent_instance, .. } => parent_instance.clone(),
        _ => None,
    });
    let next = (offered.history.len() + turn.history.len()) as u64 + 1;
    let kind = EventKind::ExternalEvent { name: "bell".into(), data: format!("{thread}.{no}") };
    turn.history.push(event(id, offered.execution, next, kind));
    if ends {
        return turn.ending("Completed");
    }
    turn.work.push(activity(id, unique(thread, no)));
    turn
}

/// Runs one thread's calls.
async fn drive(engine: &mut Engine, thread: usize, bytes: &[u8]) -> Log {
    let (mut log, mut bytes) = (Log::new(), Bytes(bytes));
    let (mut turn, mut work) = (None, false);
    let (mut turns, mut works) = (0, 0);
    for no in 0..CALLS {
        let call = choose(&mut bytes, thread, no, turn.as_deref(), work);
        let answer = match call.clone() {
            Call::Message(item) => engine.enqueue(item, None).await,
            Call::Work(item) => engine.enqueue_work(item).await,
            Call::Do(op) => engine.apply(op).await,
            Call::AckTurn(answer) => engine.ack_turn(turns - 1, answer).await,
            Call::AbandonTurn => {
                engine.apply(Op::AbandonTurn { token: 0, delay_s: None, ignore_attempt: false }).await
            }
            Call::AckWork => engine.ack_work(works - 1, None).await,
            Call::Read(id) => engine.history(&id).await,
            Call::Tree(id) => engine.tree(&id).await,
            Call::Depths => engine.depths().await,
        };
        match (&call, &answer) {
            (_, Answer::Turn(Some(_))) => turns += 1,
            (_, Answer::Work(Some(_))) => (works, work) = (works + 1, true),
            (Call::AckTurn(_) | Call::AbandonTurn, _) => turn = None,
            (Call::AckWork, _) => work = false,
            _ => {}
        }
        let answer = match answer {
            Answer::Turn(Some(offered)) => {
                let copy = Offered::clone(&offered);
                turn = Some(Box::new(copy));
                Answer::Turn(Some(offered))
            }
            other => other,
        };
        log.push((call, answer));
    }
    log
}

/// The state of a search: the model, and which of its leases each thread got last.
#[derive(Clone)]
struct Guess {
    model: Model,
    done: [usize; THREADS],
    turn: [usize; THREADS],
    work: [usize; THREADS],
}

impl Guess {
    /// Makes a thread's next call on the model; whether the model answers as the engine did.
    fn agrees(&mut self, thread: usize, (call, said): &(Call, Answer)) -> bool {
        let model = &mut self.model;
        let expected = match call.clone() {
            Call::Message(item) => {
                model.enqueue(item, None);
                Answer::Done
            }
            Call::Work(item) => {
                model.enqueue_work(item);
                Answer::Done
            }
            Call::Do(op) => model.apply(op),
            Call::AckTurn(turn) => model.ack_turn(self.turn[thread], turn),
            Call::AbandonTurn => model.abandon_turn(self.turn[thread], None, false),
            Call::AckWork => model.ack_work(self.work[thread], None),
            Call::Read(id) => Answer::History(model.history(&id)),
            Call::Tree(id) => Answer::Tree(model.family(&id).tree),
            Call::Depths => {
                let (messages, work) = model.depths();
                Answer::Depths(messages, work)
            }
        };
        match expected {
            Answer::Turn(Some(_)) => self.turn[thread] = model.turn_token(0).unwrap_or(0),
            Answer::Work(Some(_)) => self.work[thread] = model.work_token(0).unwrap_or(0),
            _ => {}
        }
        self.done[thread] += 1;
        expected == *said
    }
}

/// Whether some order of the calls explains all answers.
fn is_explained(logs: &[Log], guess: &Guess) -> bool {
    if (0..THREADS).all(|thread| guess.done[thread] == logs[thread].len()) {
        return true;
    }
    (0..THREADS).any(|thread| {
        let Some(next) = logs[thread].get(guess.done[thread]) else { return false };
        let mut guess = guess.clone();
        guess.agrees(thread, next) && is_explained(logs, &guess)
    })
}

fn explained(logs: &[Log]) -> bool {
    let zero = [0; THREADS];
    is_explained(logs, &Guess { model: Model::default(), done: zero, turn: zero, work: zero })
}

/// What each thread was told.
fn run(engine: &Engine, bytes: &[u8]) -> Vec<Log> {
    let barrier = Arc::new(Barrier::new(THREADS));
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (mut engine, barrier) = (engine.another_handle(), Arc::clone(&barrier));
            let bytes: Vec<u8> = bytes.iter().skip(thread).step_by(THREADS).copied().collect();
            std::thread::spawn(move || {
                let runtime =
                    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                barrier.wait();
                runtime.block_on(drive(&mut engine, thread, &bytes))
            })
        })
        .collect();
    threads.into_iter().map(|thread| thread.join().expect("it ends")).collect()
}

pub(crate) fn check(engine: &Engine, bytes: &[u8]) {
    let logs = run(engine, bytes);
    assert!(explained(&logs), "no order explains {logs:#?}");
}

/// The search can fail: an answer that is changed afterwards is explained by nothing.
#[test]
fn an_answer_nobody_could_have_given_is_not_explained() {
    let id = instance_name(0);
    let offered = |attempt| {
        let (instance, messages) = (id.clone(), vec![start(&id)]);
        let (history, values) = (Vec::new(), Default::default());
        Answer::Turn(Some(Box::new(Offered { instance, execution: 1, messages, attempt, history, values })))
    };
    let log = |attempt| {
        let started = (Call::Message(start(&id)), Answer::Done);
        vec![
            vec![started],
            vec![(Call::Do(FETCH_TURN), offered(attempt))],
            vec![(Call::Do(FETCH_TURN), Answer::Turn(None))],
        ]
    };
    assert!(explained(&log(1)), "the start comes first");
    assert!(!explained(&log(2)), "a second attempt at something that was tried once");
}
