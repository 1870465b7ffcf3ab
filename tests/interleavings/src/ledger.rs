//! The store that the buffer drives here, and what its callers may believe.

use std::collections::{BTreeMap, BTreeSet};
use shuttle::thread::{JoinHandle, spawn};

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex as Unscheduled};
use std::time::Duration;

use crate::buffer::{Buffer, CommitError, CommitNo, Horizon, Pending, Replies, Responder, Store};
use crate::error::Error;
use crate::options::Options;
use crate::sync::channel::{Sender, bounded};
use crate::sync::{Mutex, block_on};

pub(crate) enum Op {
    Add(u64),
    /// The same, answered when its commit is durable.
    AddDurably(u64),
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
    /// Which commit holds a number, and the last one that is durable.
    commit_of: Unscheduled<BTreeMap<u64, CommitNo>>,
    durable: Unscheduled<CommitNo>,
    disk_failed: AtomicBool,
    pub(crate) is_closed: AtomicBool,
}

pub(crate) struct Ledger {
    world: Arc<World>,
    staged: Vec<u64>,
    fault: Option<Fault>,
    parked: BTreeMap<u64, Responder<u64>>,
    here: BTreeSet<u64>,
    wait: Option<Duration>,
    last_commit: CommitNo,
    /// To the thread that syncs, if there is one.
    syncs: Option<Sender<CommitNo>>,
    syncing: Option<JoinHandle<()>>,
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
            Op::AddDurably(number) => {
                self.staged.push(number);
                out.push_after(self.last_commit + 1, responder, Ok(number));
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
                if self.world.disk_failed.load(Ordering::SeqCst) {
                    return Err(CommitError::Unknown(Error::invalid_input("the disk")));
                }
                if self.staged.is_empty() {
                    return Ok(());
                }
                self.last_commit += 1;
                let commit_of = self.staged.iter().map(|number| (*number, self.last_commit));
                self.world.commit_of.lock().unwrap().extend(commit_of);
                self.world.committed.lock().unwrap().extend(self.staged.drain(..));
                if let Some(syncs) = &self.syncs {
                    let _ = syncs.send(self.last_commit);
                }
                Ok(())
            }
            Some(Fault::RolledBack) => Err(CommitError::RolledBack(Error::invalid_input("injected"))),
            Some(Fault::Unknown) => Err(CommitError::Unknown(Error::invalid_input("injected"))),
            // A panic without the hook, in which shuttle would see the end of the schedule.
            Some(Fault::Panic) => std::panic::resume_unwind(Box::new("injected")),
        }
    }

    fn rollback(&mut self) -> Result<(), CommitError> {
        self.staged.clear();
        Ok(())
    }

    fn last_commit(&self) -> CommitNo {
        self.last_commit
    }

    fn maintain(&mut self) -> Result<(), Error> {
        let failed = self.world.disk_failed.load(Ordering::SeqCst);
        if failed { Err(Error::invalid_input("the disk")) } else { Ok(()) }
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
        self.finish_syncs();
        self.world.is_closed.store(true, Ordering::SeqCst);
        Ok(())
    }

    fn let_go(&mut self) {
        self.finish_syncs();
        self.world.is_closed.store(true, Ordering::SeqCst);
    }
}

impl Ledger {
    /// Waits for the thread that syncs, which ends when nobody asks any more.
    fn finish_syncs(&mut self) {
        self.syncs = None;
        if let Some(thread) = self.syncing.take() {
            thread.join().expect("it does not panic");
        }
    }
}

/// A buffer and what is behind it.
#[derive(Clone)]
pub(crate) struct Bench {
    pub(crate) buffer: Buffer<Ledger>,
    pub(crate) world: Arc<World>,
    pub(crate) horizon: Arc<Horizon>,
}

impl Bench {
    pub(crate) fn new(options: Options) -> Self {
        Self::waiting(options, None)
    }

    /// The store wants to be looked at again after `wait`.
    pub(crate) fn waiting(options: Options, wait: Option<Duration>) -> Self {
        Self::build(options, wait, None)
    }

    /// With a thread that syncs, as the engine has one; it fails at the commit of this number.
    pub(crate) fn syncing(options: Options, fails_at: Option<CommitNo>) -> Self {
        Self::build(options, None, Some(fails_at))
    }

    fn build(options: Options, wait: Option<Duration>, syncs: Option<Option<CommitNo>>) -> Self {
        let world = Arc::new(World {
            committed: Unscheduled::default(),
            brought: Mutex::new(Vec::new()),
            commit_of: Unscheduled::default(),
            durable: Unscheduled::default(),
            disk_failed: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
        });
        let horizon = Arc::new(Horizon::default());
        let mut store = Ledger {
            world: Arc::clone(&world),
            staged: Vec::new(),
            fault: None,
            parked: BTreeMap::new(),
            here: BTreeSet::new(),
            wait,
            last_commit: 0,
            syncs: None,
            syncing: None,
        };
        if let Some(fails_at) = syncs {
            let (sender, receiver) = bounded::<CommitNo>(8);
            let (world, horizon) = (Arc::clone(&world), Arc::clone(&horizon));
            store.syncs = Some(sender);
            store.syncing = Some(spawn(move || {
                while let Ok(no) = receiver.recv() {
                    if fails_at.is_some_and(|at| at <= no) {
                        world.disk_failed.store(true, Ordering::SeqCst);
                        horizon.fail_beside_the_writer(&Error::invalid_input("the disk"));
                        return;
                    }
                    *world.durable.lock().unwrap() = no;
                    horizon.reach(no);
                }
            }));
        }
        let buffer =
            Buffer::start("writer", &options, Arc::default(), Arc::clone(&horizon), store).unwrap();
        Self { buffer, world, horizon }
    }

    /// Room for so many operations, batches of at most two.
    pub(crate) fn with_room(operations: usize) -> Self {
        Self::new(Options::default().buffer_ops_max(operations).batch_ops_max(2))
    }

    pub(crate) fn has_committed(&self, number: u64) -> bool {
        self.world.committed.lock().unwrap().contains(&number)
    }

    pub(crate) fn add_durably(&self, number: u64) -> Result<u64, Error> {
        let answer = self.submit(Op::AddDurably(number)).and_then(block_on);
        self.believe_on_disk(number, &answer);
        answer
    }

    fn is_durable(&self, number: u64) -> bool {
        let commit = self.world.commit_of.lock().unwrap().get(&number).copied();
        commit.is_some_and(|commit| commit <= *self.world.durable.lock().unwrap())
    }

    /// What a reader sees now, when it may show it.
    pub(crate) fn read(&self) -> Result<(), Error> {
        let seen = self.world.committed.lock().unwrap().clone();
        let last = self.world.commit_of.lock().unwrap().values().copied().max().unwrap_or(0);
        block_on(self.horizon.reached(last))?;
        for number in seen {
            assert!(self.is_durable(number), "{number} was shown before it was durable");
        }
        Ok(())
    }

    fn believe_on_disk(&self, number: u64, answer: &Result<u64, Error>) {
        if answer.is_ok() {
            assert!(self.is_durable(number), "{number} was answered before it was durable");
        }
        if !matches!(answer, Err(Error::Failed { .. } | Error::Closed)) {
            return;
        }
        assert!(!self.has_committed(number), "{number} is committed, and yet: {answer:?}");
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
