//! The same from several threads at once: what they were told must be explained by some order of all their
//! calls that keeps the order of each thread. The search tries them all; answers cut it short.

use std::sync::{Arc, Barrier};

use duroxide::EventKind;
use duroxide::providers::WorkItem;

use crate::answer::{Answer, Offered};
use crate::engine::Engine;
use crate::engine_support::{Turn, activity, event, raised, start};
use crate::model::Model;
use crate::op::{Bytes, Op, Tags};
use crate::planned::instance_name;

const THREADS: usize = 3;
const CALLS: usize = 5;

/// A call with all its arguments, so that the model can be asked the same.
#[derive(Debug, Clone)]
enum Call {
    Message(String, WorkItem),
    Work(WorkItem),
    FetchTurn,
    /// What the thread got by its last fetch.
    AckTurn(Turn),
    AbandonTurn,
    FetchWork,
    AckWork,
    Delete(u8),
    Look,
}

type Log = Vec<(Call, Answer)>;

/// Chooses a thread's next call by what it holds.
fn choose(bytes: &mut Bytes<'_>, thread: usize, no: usize, turn: Option<&Offered>, work: bool) -> Call {
    let choice = bytes.below(10);
    let instance = bytes.below(2);
    let id = instance_name(instance);
    match (choice, turn) {
        (0..=3, Some(offered)) => Call::AckTurn(answer_to(offered, thread, no)),
        (4, Some(_)) => Call::AbandonTurn,
        (5 | 6, _) if work => Call::AckWork,
        (0 | 1, None) => Call::Message(id.clone(), start(&id)),
        (2, _) => Call::Message(id.clone(), raised(&id, "bell")),
        (3, _) => Call::Work(activity(&id, unique(thread, no))),
        (4..=6, _) => Call::FetchTurn,
        (7, _) => Call::FetchWork,
        (8, _) => Call::Look,
        _ => Call::Delete(instance),
    }
}

fn unique(thread: usize, no: usize) -> u64 {
    (1000 * (thread + 1) + no) as u64
}

/// A turn that follows on what was offered: one event more, and an activity.
fn answer_to(offered: &Offered, thread: usize, no: usize) -> Turn {
    let id = &offered.instance;
    let mut turn = match offered.history.len() {
        0 => Turn::starting(id, offered.execution),
        _ => Turn::of(offered.execution, Vec::new()),
    };
    let next = (offered.history.len() + turn.history.len()) as u64 + 1;
    let kind = EventKind::ExternalEvent { name: "bell".into(), data: format!("{thread}.{no}") };
    turn.history.push(event(id, offered.execution, next, kind));
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
            Call::Message(_, item) => engine.enqueue(item, None).await,
            Call::Work(item) => engine.enqueue_work(item).await,
            Call::FetchTurn => engine.apply(Op::FetchTurn { major: None }).await,
            Call::AckTurn(answer) => engine.ack_turn(turns - 1, answer).await,
            Call::AbandonTurn => {
                engine.apply(Op::AbandonTurn { token: 0, delay_s: None, ignore_attempt: false }).await
            }
            Call::FetchWork => engine.apply(Op::FetchWork { worker: None, tags: Tags::Any }).await,
            Call::AckWork => engine.ack_work(works - 1, None).await,
            Call::Delete(instance) => engine.delete_whatever(&instance_name(instance)).await,
            Call::Look => engine.depths().await,
        };
        match (&call, &answer) {
            (Call::FetchTurn, Answer::Turn(Some(_))) => turns += 1,
            (Call::FetchWork, Answer::Work(Some(_))) => (works, work) = (works + 1, true),
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
            Call::Message(to, item) => {
                model.enqueue(&to, item, None);
                Answer::Done
            }
            Call::Work(item) => {
                model.enqueue_work(item);
                Answer::Done
            }
            Call::FetchTurn => {
                let answer = model.apply(Op::FetchTurn { major: None });
                if matches!(answer, Answer::Turn(Some(_))) {
                    self.turn[thread] = model.turn_token(0).unwrap_or(0);
                }
                answer
            }
            Call::AckTurn(turn) => model.ack_turn(self.turn[thread], turn),
            Call::AbandonTurn => model.abandon_turn(self.turn[thread], None, false),
            Call::FetchWork => {
                let answer = model.apply(Op::FetchWork { worker: None, tags: Tags::Any });
                if matches!(answer, Answer::Work(Some(_))) {
                    self.work[thread] = model.work_token(0).unwrap_or(0);
                }
                answer
            }
            Call::AckWork => model.ack_work(self.work[thread], None),
            Call::Delete(instance) => model.delete_whatever(&instance_name(instance)),
            Call::Look => model.depths(),
        };
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
fn run(bytes: &[u8]) -> Vec<Log> {
    let engine = Engine::in_memory();
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

pub(crate) fn check(bytes: &[u8]) {
    let logs = run(bytes);
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
        let started = (Call::Message(id.clone(), start(&id)), Answer::Done);
        vec![
            vec![started],
            vec![(Call::FetchTurn, offered(attempt))],
            vec![(Call::FetchTurn, Answer::Turn(None))],
        ]
    };
    assert!(explained(&log(1)), "the start comes first");
    assert!(!explained(&log(2)), "a second attempt at something that was tried once");
}
