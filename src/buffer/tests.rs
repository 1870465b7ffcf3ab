//! The writer's cycle over a store that fails where the test says: whatever happens, every submission is
//! answered exactly once, with what holds for it, and nobody hangs.

mod durable;
mod standing;

use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::*;

/// Longer than anything here takes; reached only by a hang.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Tick,
    Apply,
    Settle,
    Commit,
    Rollback,
    Maintain,
    Abandon,
    Close,
    LetGo,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Panic,
    /// The phase's own kind of error; for a commit the certain one.
    Error,
    /// A commit, or a rollback, nobody knows the outcome of.
    Unknown,
}

enum Op {
    Add(u32),
    /// The same, and nobody hears of it before its commit is durable.
    AddDurably(u32),
    /// Refused on its own.
    Refuse,
    /// Refused, whatever becomes of the batch.
    RefuseForGood,
    /// The same, for what was committed last: nobody hears of it before that is durable.
    RefuseDurably,
    /// Answered with what is committed, whatever becomes of the batch.
    Ask,
    /// Answered by nobody until the store is abandoned.
    Park,
    /// From here on the store fails in this way.
    Break(Phase, Fault),
    /// Says that the writer is inside, and waits until the test lets go of the other end.
    Wait(mpsc::Sender<()>, mpsc::Receiver<()>),
    /// Closes the buffer on the writer's own thread, when the other end has been let go of.
    Close(mpsc::Sender<()>, mpsc::Receiver<()>, Buffer<Sum>),
}

/// Adds numbers; what was committed is what survives.
#[derive(Default)]
struct Sum {
    staged: u32,
    committed: Arc<Mutex<u32>>,
    parked: Vec<Responder<u32>>,
    faults: Vec<(Phase, Fault)>,
    last_commit: CommitNo,
}

impl Sum {
    fn reach(&mut self, phase: Phase) -> Result<(), Error> {
        match self.faults.iter().find(|(at, _)| *at == phase) {
            Some((_, Fault::Panic)) => panic!("injected at {phase:?}"),
            Some(_) => Err(Error::invalid_input(format!("injected at {phase:?}"))),
            None => Ok(()),
        }
    }

    fn reach_with_outcome(&mut self, phase: Phase) -> Result<(), CommitError> {
        let unknown = self.faults.contains(&(phase, Fault::Unknown));
        self.reach(phase).map_err(|error| match unknown {
            true => CommitError::Unknown(error),
            false => CommitError::RolledBack(error),
        })
    }
}

impl Store for Sum {
    type Op = Op;
    type Reply = u32;

    fn tick(&mut self, _out: &mut Replies<u32>) {
        let _ = self.reach(Phase::Tick);
    }

    fn apply(&mut self, op: Op, responder: Responder<u32>, out: &mut Replies<u32>) -> Result<(), Error> {
        match op {
            Op::Break(phase, fault) => {
                self.faults.push((phase, fault));
                out.push(responder, Ok(0));
                return Ok(());
            }
            Op::Wait(inside, until) => {
                let _ = inside.send(());
                let _ = until.recv();
                out.push(responder, Ok(0));
                return Ok(());
            }
            Op::Close(inside, until, buffer) => {
                let _ = inside.send(());
                let _ = until.recv();
                out.push(responder, buffer.close().map(|()| 0));
                return Ok(());
            }
            Op::Ask => {
                out.push(responder, Ok(*self.committed.lock()));
                return Ok(());
            }
            Op::RefuseDurably => {
                out.push_standing_after(
                    self.last_commit,
                    responder,
                    Err(Error::invalid_input("asked to refuse")),
                );
                return Ok(());
            }
            Op::RefuseForGood => {
                out.push_standing(responder, Err(Error::invalid_input("asked to refuse")));
                return Ok(());
            }
            _ => {}
        }
        if let Err(error) = self.reach(Phase::Apply) {
            out.push(responder, Err(error.clone()));
            return Err(error);
        }
        match op {
            Op::Add(number) => {
                self.staged += number;
                out.push(responder, Ok(number));
            }
            Op::AddDurably(number) => {
                self.staged += number;
                out.push_after(self.last_commit + 1, responder, Ok(number));
            }
            Op::Park => self.parked.push(responder),
            _ => out.push(responder, Err(Error::invalid_input("asked to refuse"))),
        }
        Ok(())
    }

    fn needs_no_commit(&self, op: &Op) -> bool {
        matches!(op, Op::Ask)
    }

    fn settle(&mut self, _out: &mut Replies<u32>) -> Result<(), Error> {
        self.reach(Phase::Settle)
    }

    fn commit(&mut self) -> Result<(), CommitError> {
        self.reach_with_outcome(Phase::Commit)?;
        *self.committed.lock() += std::mem::take(&mut self.staged);
        self.last_commit += 1;
        Ok(())
    }

    fn rollback(&mut self) -> Result<(), CommitError> {
        self.reach_with_outcome(Phase::Rollback)?;
        self.staged = 0;
        // A fault that was certain is over.
        self.faults.clear();
        Ok(())
    }

    fn last_commit(&self) -> CommitNo {
        self.last_commit
    }

    fn maintain(&mut self) -> Result<(), Error> {
        self.reach(Phase::Maintain)
    }

    fn wait(&self) -> Option<Duration> {
        None
    }

    fn abandon(&mut self, error: &Error) {
        let _ = self.reach(Phase::Abandon);
        for responder in self.parked.drain(..) {
            let _ = responder.send(Err(error.clone()));
        }
    }

    fn close(&mut self) -> Result<(), Error> {
        self.reach(Phase::Close)
    }

    fn let_go(&mut self) {
        let _ = self.reach(Phase::LetGo);
    }
}

struct Bench {
    buffer: Buffer<Sum>,
    horizon: Arc<Horizon>,
    committed: Arc<Mutex<u32>>,
}

impl Bench {
    fn new() -> Self {
        Self::with(&Options::default())
    }

    fn with(options: &Options) -> Self {
        let store = Sum::default();
        let committed = Arc::clone(&store.committed);
        let horizon = Arc::new(Horizon::default());
        let buffer =
            Buffer::start("test-writer", options, Arc::default(), Arc::clone(&horizon), store).unwrap();
        Self { buffer, horizon, committed }
    }

    fn submit(&self, op: Op) -> Pending<u32> {
        self.buffer.submit_blocking(op, 0).unwrap()
    }

    /// Keeps the writer inside an operation until the first of the two is dropped.
    fn hold(&self) -> (mpsc::Sender<()>, Pending<u32>) {
        let ((enter, entered), (hold, held)) = (mpsc::channel(), mpsc::channel());
        let waiting = self.submit(Op::Wait(enter, held));
        entered.recv_timeout(PATIENCE).expect("the writer gets there");
        (hold, waiting)
    }

    /// Submits all of these into one batch and waits for every answer.
    fn one_batch(&self, ops: Vec<Op>) -> Vec<Result<u32, Error>> {
        let (hold, waiting) = self.hold();
        let pending: Vec<_> = ops.into_iter().map(|op| self.submit(op)).collect();
        drop(hold);
        answer(waiting).unwrap();
        pending.into_iter().map(answer).collect()
    }
}

/// The answer, or a panic of the test instead of a hang.
fn answer(pending: Pending<u32>) -> Result<u32, Error> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(pollster::block_on(pending)));
    receiver.recv_timeout(PATIENCE).expect("every submission is answered")
}

#[test]
fn a_large_operation_takes_the_room_of_several_and_never_more_than_there_is() {
    let bench = Bench::with(&Options::default().buffer_ops_max(4));
    for (bytes, fit_beside_it) in [(0, 3), (PERMIT_BYTES - 1, 3), (PERMIT_BYTES, 2), (2 * PERMIT_BYTES, 1)] {
        let (hold, waiting) = bench.hold();
        let mut pending = vec![bench.buffer.try_submit(Op::Add(1), bytes).expect("the buffer is empty")];
        for _ in 0..fit_beside_it {
            pending.push(bench.buffer.try_submit(Op::Add(1), 0).expect("there is room"));
        }
        let full = bench.buffer.try_submit(Op::Add(1), 0);
        assert!(matches!(full, Err(Error::Full)), "{bytes} bytes");
        drop(hold);
        for pending in pending {
            answer(pending).unwrap();
        }
        answer(waiting).unwrap();
    }
    // Or it would wait for ever.
    answer(bench.buffer.try_submit(Op::Add(1), 1000 * PERMIT_BYTES).expect("alone it fits")).unwrap();
}

#[test]
fn a_nudge_makes_the_writer_look_at_its_store_again() {
    let bench = Bench::new();
    // One that is over and done with: it must not stand in the way of the next.
    bench.buffer.nudge();
    let parked = bench.submit(Op::Park);
    answer(bench.submit(Op::Break(Phase::Tick, Fault::Panic))).unwrap();
    assert!(bench.buffer.refusal().is_none(), "it waits");
    bench.buffer.nudge();
    assert!(matches!(answer(parked), Err(Error::Failed { .. })), "it looked");
}

#[test]
fn a_delay_holds_a_batch_open_and_not_a_nudge() {
    // Full with one operation, so that nothing of the preparation waits for the delay.
    let options = Options::default().batch_ops_max(1).commit_delay(Duration::from_secs(3600));
    let bench = Bench::with(&options);
    let parked = bench.submit(Op::Park);
    answer(bench.submit(Op::Break(Phase::Tick, Fault::Panic))).unwrap();
    bench.buffer.nudge();
    assert!(matches!(answer(parked), Err(Error::Failed { .. })), "it looked at once");
}

#[test]
fn beside_a_full_buffer_there_is_room_for_a_close_however_often_it_was_nudged() {
    let bench = Bench::with(&Options::default().buffer_ops_max(1));
    let ((enter, entered), (hold, held)) = (mpsc::channel(), mpsc::channel());
    let inside = bench.submit(Op::Close(enter, held, bench.buffer.clone()));
    entered.recv_timeout(PATIENCE).expect("the writer gets there");
    let waiting = bench.submit(Op::Add(1));
    for _ in 0..10 {
        bench.buffer.nudge();
    }
    // The writer is about to close the buffer itself: without room in the channel it would wait for itself.
    drop(hold);
    assert_eq!(answer(inside).unwrap(), 0);
    assert_eq!(answer(waiting).unwrap(), 1);
}

#[test]
fn an_operation_that_is_refused_leaves_its_neighbours_alone() {
    let bench = Bench::new();
    let answers = bench.one_batch(vec![Op::Add(1), Op::Refuse, Op::Add(2)]);
    assert!(matches!(answers[..], [Ok(1), Err(Error::InvalidInput { .. }), Ok(2)]), "{answers:?}");
    assert_eq!(*bench.committed.lock(), 3);
    bench.buffer.close().unwrap();
}

#[test]
fn a_batch_that_is_rolled_back_is_retryable_for_all_of_it_and_the_engine_goes_on() {
    for phase in [Phase::Apply, Phase::Settle, Phase::Commit] {
        let bench = Bench::new();
        let answers =
            bench.one_batch(vec![Op::Add(1), Op::Break(phase, Fault::Error), Op::Add(2), Op::Refuse]);
        for answer in answers {
            let error = answer.unwrap_err();
            assert!(matches!(error, Error::RolledBack { .. }) && error.is_retryable(), "{phase:?}: {error}");
        }
        assert_eq!(*bench.committed.lock(), 0, "{phase:?}");
        assert_eq!(answer(bench.submit(Op::Add(5))).unwrap(), 5);
        assert_eq!(*bench.committed.lock(), 5);
        bench.buffer.close().unwrap();
    }
}

#[test]
fn a_failure_of_unknown_outcome_latches_and_says_so_to_everybody() {
    let certain_to_latch = [
        (Phase::Tick, Fault::Panic),
        (Phase::Apply, Fault::Panic),
        (Phase::Settle, Fault::Panic),
        (Phase::Commit, Fault::Panic),
        (Phase::Commit, Fault::Unknown),
    ];
    for (phase, fault) in certain_to_latch {
        let bench = Bench::new();
        let parked = bench.submit(Op::Park);
        // The phases before `apply` are reached by the batch after the one that breaks the store.
        answer(bench.submit(Op::Break(phase, fault))).ok();
        let answers: Vec<_> = (0..3).map(|_| bench.buffer.submit_blocking(Op::Add(1), 0)).collect();
        for answered in answers {
            let error = answered.and_then(answer).unwrap_err();
            assert!(
                matches!(error, Error::OutcomeUnknown { .. } | Error::Failed { .. }),
                "{phase:?} {fault:?}: {error}"
            );
            assert!(!error.is_retryable());
        }
        let error = answer(parked).unwrap_err();
        assert!(matches!(error, Error::Failed { .. }), "{phase:?} {fault:?}: {error}");
        assert_latched(&bench);
    }
}

#[test]
fn the_operation_a_store_panicked_in_hears_that_its_outcome_is_unknown_and_why() {
    let bench = Bench::new();
    let parked = bench.submit(Op::Park);
    answer(bench.submit(Op::Break(Phase::Apply, Fault::Panic))).unwrap();
    let inside = bench.submit(Op::Add(1));
    // Latched by now, and still it is not told that it was merely refused.
    assert!(matches!(answer(parked), Err(Error::Failed { .. })));
    let error = answer(inside).unwrap_err();
    assert!(matches!(error, Error::OutcomeUnknown { .. }), "{error}");
    let cause = std::error::Error::source(&error).map(ToString::to_string);
    assert!(cause.is_some_and(|cause| cause.contains("writer thread panicked")), "{error}");
}

#[test]
fn a_failure_between_batches_latches_too() {
    for (phase, fault) in [(Phase::Maintain, Fault::Panic), (Phase::Maintain, Fault::Error)] {
        let bench = Bench::new();
        let parked = bench.submit(Op::Park);
        drop(bench.submit(Op::Break(phase, fault)));
        // Maintenance follows in any case.
        drop(bench.submit(Op::Add(1)));
        let error = answer(parked).unwrap_err();
        assert!(matches!(error, Error::Failed { .. }), "{phase:?} {fault:?}: {error}");
        assert_latched(&bench);
    }
}

#[test]
fn a_rollback_that_fails_leaves_the_outcome_unknown() {
    for fault in [Fault::Unknown, Fault::Panic] {
        let bench = Bench::new();
        answer(bench.submit(Op::Break(Phase::Rollback, fault))).unwrap();
        let answers = bench.one_batch(vec![Op::Add(1), Op::Break(Phase::Settle, Fault::Error), Op::Add(2)]);
        for answer in answers {
            let error = answer.unwrap_err();
            assert!(matches!(error, Error::OutcomeUnknown { .. }), "{fault:?}: {error}");
        }
        assert_latched(&bench);
    }
}

#[test]
fn a_store_that_cannot_go_on_after_a_rollback_still_says_that_it_was_one() {
    let bench = Bench::new();
    answer(bench.submit(Op::Break(Phase::Rollback, Fault::Error))).unwrap();
    let answers = bench.one_batch(vec![Op::Add(1), Op::Break(Phase::Settle, Fault::Error), Op::Add(2)]);
    for answer in answers {
        let error = answer.unwrap_err();
        assert!(matches!(error, Error::RolledBack { .. }), "{error}");
    }
    assert_latched(&bench);
}

#[test]
fn a_store_that_panics_while_it_is_let_go_cannot_keep_callers_waiting() {
    for phase in [Phase::Abandon, Phase::LetGo] {
        let bench = Bench::new();
        answer(bench.submit(Op::Break(phase, Fault::Panic))).unwrap();
        let parked = bench.submit(Op::Park);
        match phase {
            // Closing abandons; a panic there must not lose the answer of the parked one.
            Phase::Abandon => {
                let _ = bench.buffer.close();
            }
            _ => bench.buffer.close().unwrap(),
        }
        assert!(answer(parked).is_err(), "{phase:?}");
        assert!(bench.buffer.submit_blocking(Op::Add(1), 0).is_err());
    }
}

#[test]
fn closing_completes_what_was_submitted_and_reports_how_the_store_closed() {
    let bench = Bench::new();
    let parked = bench.submit(Op::Park);
    let (hold, waiting) = bench.hold();
    let pending: Vec<_> = (0..50).map(|_| bench.submit(Op::Add(1))).collect();
    let closing = {
        let buffer = bench.buffer.clone();
        thread::spawn(move || buffer.close())
    };
    drop(hold);
    closing.join().unwrap().unwrap();
    answer(waiting).unwrap();
    for pending in pending {
        assert_eq!(answer(pending).unwrap(), 1);
    }
    assert_eq!(*bench.committed.lock(), 50);
    assert!(matches!(answer(parked), Err(Error::Closed)));
    assert!(matches!(bench.buffer.submit_blocking(Op::Add(1), 0), Err(Error::Closed)));

    let bench = Bench::new();
    answer(bench.submit(Op::Break(Phase::Close, Fault::Error))).unwrap();
    assert!(bench.buffer.close().is_err());
    assert!(bench.buffer.close().is_err(), "a second close answers as the first did");
}

/// Found under the model checker (`tests/interleavings`). The first version of `close` waited on the writer's own
/// thread for whoever was closing already, who was waiting for the writer; where nobody was, it took the handle
/// of the thread with it, and those who closed later came back while the store was still open.
#[test]
fn closing_on_the_writers_own_thread_waits_for_nobody_and_those_outside_still_wait() {
    for outside_first in [true, false] {
        let bench = Bench::new();
        let ((enter, entered), (hold, held)) = (mpsc::channel(), mpsc::channel());
        let inside = bench.submit(Op::Close(enter, held, bench.buffer.clone()));
        entered.recv_timeout(PATIENCE).expect("the writer gets there");
        let close = || {
            let (buffer, (sender, closed)) = (bench.buffer.clone(), mpsc::channel());
            thread::spawn(move || sender.send(buffer.close().is_ok()));
            closed
        };
        let outside = outside_first.then(|| {
            let closed = close();
            // Until it has asked; that it waits for the thread as well by now is likely, and enough.
            let asking = Instant::now();
            while bench.buffer.refusal().is_none() {
                assert!(asking.elapsed() < PATIENCE, "closing is seen from outside");
                thread::yield_now();
            }
            closed
        });
        drop(hold);
        let closed = outside.unwrap_or_else(close);
        assert_eq!(closed.recv_timeout(PATIENCE), Ok(true), "outside first: {outside_first}");
        assert_eq!(answer(inside).unwrap(), 0);
    }
}

/// Who was given a place may send at any later moment: between the writer's last look into the channel and its end,
/// or after that. (`send` alone is the second half of a submission.)
#[test]
fn a_submission_that_crosses_the_end_of_the_engine_is_answered() {
    let bench = Bench::new();
    let ((enter, entered), (hold, held)) = (mpsc::channel(), mpsc::channel());
    let closing = bench.submit(Op::Close(enter, held, bench.buffer.clone()));
    entered.recv_timeout(PATIENCE).expect("the writer gets there");
    let ((enter, entered), (hold_last, held)) = (mpsc::channel(), mpsc::channel());
    let last = bench.submit(Op::Wait(enter, held));
    drop(hold);
    entered.recv_timeout(PATIENCE).expect("the writer is in its last batch");
    let crossing = bench.buffer.send(Op::Add(1), 0, 1);
    drop(hold_last);
    assert!(matches!(answer(crossing), Err(Error::Closed)));
    assert!(answer(closing).is_ok() && answer(last).is_ok());
    bench.buffer.close().unwrap();
    let late = bench.buffer.send(Op::Add(1), 0, 1);
    assert!(matches!(answer(late), Err(Error::Closed)));

    let bench = Bench::with(&Options::default().batch_ops_max(1));
    let (hold, waiting) = bench.hold();
    let breaking = bench.submit(Op::Break(Phase::Maintain, Fault::Error));
    let behind = bench.submit(Op::Add(1));
    drop(hold);
    assert!(answer(waiting).is_ok() && answer(breaking).is_ok());
    assert!(matches!(answer(behind), Err(Error::Failed { .. })));
    assert!(matches!(bench.buffer.close(), Err(Error::Failed { .. })));
    let late = bench.buffer.send(Op::Add(1), 0, 1);
    assert!(matches!(answer(late), Err(Error::Failed { .. })));
}

#[test]
fn replies_are_heard_in_order_and_those_nobody_hears_come_back() {
    let shared = Arc::new(Shared::new(1, Arc::default()));
    let mut replies = Replies::new();
    let mut pending = Vec::new();
    let numbers = [0, 1, 2, 3].map(Arc::new);
    for (value, number) in numbers.iter().zip(0..) {
        assert_eq!(**value, number);
        let (responder, end) = reply::pair(&shared);
        assert!(!responder.is_abandoned());
        replies.push(responder, Ok(Arc::clone(value)));
        pending.push(end);
    }
    drop(pending.drain(1..3));
    let (responder, end) = reply::pair::<u32>(&shared);
    drop(end);
    assert!(responder.is_abandoned(), "nobody is there to hear it");
    assert_eq!(replies.len(), 4);
    replies.deliver(&Horizon::default(), 0);
    assert_eq!(replies.len(), 0);
    // Those whose callers are gone are dropped, the others delivered.
    assert_eq!(numbers.each_ref().map(Arc::strong_count), [2, 1, 1, 2]);
    let heard: Vec<_> = pending.into_iter().map(|pending| *pollster::block_on(pending).unwrap()).collect();
    assert_eq!(heard, [0, 3]);
}

fn assert_latched(bench: &Bench) {
    let refused = bench.buffer.submit_blocking(Op::Add(1), 0).and_then(answer).unwrap_err();
    assert!(matches!(refused, Error::Failed { .. }), "{refused}");
    assert!(matches!(bench.buffer.close(), Err(Error::Failed { .. })));
}
