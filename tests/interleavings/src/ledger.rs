//! The store that the buffer drives here, and what its callers may believe.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex as Unscheduled};
use std::time::Duration;

use crate::buffer::{Buffer, CommitError, Pending, Replies, Responder, Store};
use crate::error::Error;
use crate::options::Options;
use crate::sync::{Mutex, block_on};

pub(crate) enum Op {
    Add(u64),
    /// Answered when the number is brought: see [`World::bring`].
    Park(u64),
    /// The batch with this in it fails so; the operation itself adds this number.
    Fail(Fault, u64),
    /// Closes the buffer from the writer's own thread.
    Close(Buffer<Ledger>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Certain: the batch did not happen.
    RolledBack,
    /// Nobody can tell.
    Unknown,
    /// The writer panics in the commit.
    Panic,
}

/// What everybody can see. What is not scheduled by the checker is bookkeeping of the test's own, never held
/// across a switch.
pub(crate) struct World {
    committed: Unscheduled<BTreeSet<u64>>,
    /// What was brought beside the channel, as dropped futures are in the engine.
    brought: Mutex<Vec<u64>>,
    taken_back: Unscheduled<Vec<u64>>,
    pub(crate) is_closed: AtomicBool,
}

pub(crate) struct Ledger {
    world: Arc<World>,
    staged: Vec<u64>,
    fault: Option<Fault>,
    parked: BTreeMap<u64, Responder<u64>>,
    here: BTreeSet<u64>,
    wait: Option<Duration>,
}

impl Store for Ledger {
    type Op = Op;
    type Reply = u64;

    fn tick(&mut self, _out: &mut Replies<u64>) {
        self.here.append(&mut self.world.brought.lock().drain(..).collect());
    }

    fn apply(&mut self, op: Op, responder: Responder<u64>, out: &mut Replies<u64>) -> Result<(), Error> {
        assert!(!self.world.is_closed.load(Ordering::SeqCst), "nothing is applied to a closed store");
        match op {
            Op::Add(number) => {
                self.staged.push(number);
                out.push(responder, Ok(number));
            }
            Op::Park(number) => {
                self.parked.insert(number, responder);
            }
            Op::Fail(fault, number) => {
                self.fault = Some(fault);
                self.staged.push(number);
                out.push(responder, Ok(number));
            }
            Op::Close(buffer) => {
                let _ = buffer.close();
                out.push(responder, Ok(0));
            }
        }
        Ok(())
    }

    fn goes_ahead(&self, op: &Op) -> bool {
        matches!(op, Op::Park(_))
    }

    fn settle(&mut self, out: &mut Replies<u64>) -> Result<(), Error> {
        for number in std::mem::take(&mut self.here) {
            match self.parked.remove(&number) {
                Some(responder) => {
                    self.staged.push(number);
                    out.push(responder, Ok(number));
                }
                None => {
                    self.here.insert(number);
                }
            }
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<(), CommitError> {
        match self.fault.take() {
            None => {
                self.world.committed.lock().unwrap().extend(self.staged.drain(..));
                Ok(())
            }
            Some(Fault::RolledBack) => Err(CommitError::RolledBack(Error::refused("injected"))),
            Some(Fault::Unknown) => Err(CommitError::Unknown(Error::refused("injected"))),
            // A panic without the hook, in which shuttle would see the end of the schedule.
            Some(Fault::Panic) => std::panic::resume_unwind(Box::new("injected")),
        }
    }

    fn rollback(&mut self) -> Result<(), CommitError> {
        self.staged.clear();
        Ok(())
    }

    fn take_back(&mut self, reply: u64) {
        self.world.taken_back.lock().unwrap().push(reply);
    }

    fn maintain(&mut self) -> Result<(), Error> {
        Ok(())
    }

    fn wait(&self) -> Option<Duration> {
        self.wait
    }

    fn abandon(&mut self, error: &Error) {
        for (_, responder) in std::mem::take(&mut self.parked) {
            let _ = responder.send(Err(error.clone()));
        }
    }

    fn close(&mut self) -> Result<(), Error> {
        self.world.is_closed.store(true, Ordering::SeqCst);
        Ok(())
    }

    fn let_go(&mut self) {
        self.world.is_closed.store(true, Ordering::SeqCst);
    }
}

/// A buffer and what is behind it.
#[derive(Clone)]
pub(crate) struct Bench {
    pub(crate) buffer: Buffer<Ledger>,
    pub(crate) world: Arc<World>,
}

impl Bench {
    pub(crate) fn new(options: Options) -> Self {
        Self::waiting(options, None)
    }

    /// The store wants to be looked at again after `wait`.
    pub(crate) fn waiting(options: Options, wait: Option<Duration>) -> Self {
        let world = Arc::new(World {
            committed: Unscheduled::default(),
            brought: Mutex::new(Vec::new()),
            taken_back: Unscheduled::default(),
            is_closed: AtomicBool::new(false),
        });
        let store = Ledger {
            world: Arc::clone(&world),
            staged: Vec::new(),
            fault: None,
            parked: BTreeMap::new(),
            here: BTreeSet::new(),
            wait,
        };
        let buffer = Buffer::start("writer", &options, Arc::default(), store).unwrap();
        Self { buffer, world }
    }

    /// Room for so many operations, batches of at most two.
    pub(crate) fn with_room(operations: usize) -> Self {
        Self::new(Options::default().buffer_ops_max(operations).batch_ops_max(2))
    }

    pub(crate) fn has_committed(&self, number: u64) -> bool {
        self.world.committed.lock().unwrap().contains(&number)
    }

    pub(crate) fn was_taken_back(&self, number: u64) -> bool {
        self.world.taken_back.lock().unwrap().contains(&number)
    }

    pub(crate) fn submit(&self, op: Op) -> Result<Pending<u64>, Error> {
        self.buffer.submit_blocking(op, 0)
    }

    pub(crate) fn add(&self, number: u64) -> Result<u64, Error> {
        let answer = self.submit(Op::Add(number)).and_then(block_on);
        self.believe(number, &answer);
        answer
    }

    /// Brings a number past the buffer and wakes the writer for it.
    pub(crate) fn bring(&self, number: u64) {
        self.world.brought.lock().push(number);
        self.buffer.nudge();
    }

    /// Closes, and is told the truth about it.
    pub(crate) fn close(&self) -> Result<(), Error> {
        let result = self.buffer.close();
        assert!(self.world.is_closed.load(Ordering::SeqCst), "close came back before the store was closed");
        result
    }

    /// What an answer says about `number` holds at the moment it is heard.
    pub(crate) fn believe(&self, number: u64, answer: &Result<u64, Error>) {
        match answer {
            Ok(answered) => {
                assert_eq!(*answered, number, "somebody else's answer");
                assert!(self.has_committed(number), "{number} was answered before its commit");
            }
            Err(Error::OutcomeUnknown { .. }) => {}
            Err(error) => assert!(!self.has_committed(number), "{number} is committed, and yet: {error}"),
        }
    }
}
