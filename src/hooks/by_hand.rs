//! The two stores without the writer thread: batches are what the caller says they are.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use duroxide::Event;
use duroxide::providers::{ExecutionMetadata, TagFilter, WorkItem};
use rusqlite::Transaction;

use crate::buffer;
use crate::database::{Held, Opening};
use crate::engine::{Engine, FetchTurn, FetchWork, NewMessage, Op, Reply, Submitted, TurnAck, Visible};
use crate::error::Error;
use crate::options::Options;
use crate::provider::{self, Encoder};
use crate::sqlite::{Location, Patience};
use crate::writer::{ClosureStore, WriterOptions, operation};

/// Long enough that nothing runs out while it is measured.
const LOCK_TIMEOUT: Duration = Duration::from_secs(600);

/// The options are the caller's; a file is not owned, so nobody else may have it open.
fn opening<'a>(location: &'a Location, options: &'a Options) -> Opening<'a> {
    let horizon = Arc::default();
    let patience = Patience::of(options, Instant::now());
    Opening {
        location,
        options,
        counters: Arc::default(),
        readers: None,
        horizon,
        patience,
        held: Held::Memory,
    }
}

fn location(file: Option<&Path>) -> Location {
    file.map_or(Location::Memory, |file| Location::File(file.into()))
}

/// The orchestration engine.
pub struct EngineByHand {
    engine: Engine,
    next_fetch: u64,
}

/// An operation, encoded.
pub struct Encoded(Op);

/// A turn to acknowledge, but for its lease.
pub struct Turn(Box<TurnAck>);

/// The end of an activity, but for its lease.
pub struct Completion(NewMessage);

impl Turn {
    /// The acknowledgement of this lease.
    pub fn under(mut self, lease: u64) -> Encoded {
        self.0.lease = lease;
        Encoded(Op::AckTurn(self.0))
    }
}

impl Completion {
    /// The acknowledgement of this lease.
    pub fn under(self, lease: u64) -> Encoded {
        Encoded(Op::AckWork { lease, completion: Some(self.0) })
    }
}

fn encoder() -> Encoder {
    Encoder { record_bytes_max: Options::default().record_bytes_max }
}

/// Encodes an item of the orchestrator queue.
///
/// # Errors
/// It is none.
pub fn message(item: WorkItem) -> Result<Encoded, Error> {
    Ok(Encoded(Op::EnqueueMessage(encoder().message(item, Visible::Now)?)))
}

/// Encodes what a turn of the first execution did.
///
/// # Errors
/// An item does not belong where it is.
pub fn turn(history: Vec<Event>, work: Vec<WorkItem>, metadata: ExecutionMetadata) -> Result<Turn, Error> {
    let (messages, cancelled) = (Vec::new(), Vec::new());
    let mut turn = provider::Turn { execution: 1, history, work, messages, metadata, cancelled };
    let records = encoder().turn(&mut turn)?;
    Ok(Turn(Box::new(turn.ack(0, records)?)))
}

/// Encodes the end of an activity.
///
/// # Errors
/// It is none.
pub fn completion(item: WorkItem) -> Result<Completion, Error> {
    let record = encoder().completion(&item)?;
    Ok(Completion(provider::produced(item, record)?))
}

/// No lease runs out here.
fn submitted(op: Op) -> Submitted {
    Submitted { at: Duration::ZERO, op }
}

impl EngineByHand {
    /// Opens a file, or memory if there is none.
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn open(file: Option<&Path>, options: &Options) -> Result<Self, Error> {
        let location = location(file);
        let (engine, _shared) = provider::open_engine(opening(&location, options))?;
        Ok(Self { engine, next_fetch: 0 })
    }

    /// A fetch of a turn.
    pub fn fetch_turn(&mut self) -> Encoded {
        let no = self.next_fetch();
        let fetch = FetchTurn { no, lock_timeout: LOCK_TIMEOUT, poll_timeout: Duration::ZERO, filter: None };
        Encoded(Op::FetchTurn(fetch))
    }

    /// A fetch of an activity.
    pub fn fetch_work(&mut self) -> Encoded {
        let no = self.next_fetch();
        Encoded(Op::FetchWork(FetchWork {
            no,
            lock_timeout: LOCK_TIMEOUT,
            poll_timeout: Duration::ZERO,
            session: None,
            tags: TagFilter::DefaultOnly,
        }))
    }

    fn next_fetch(&mut self) -> u64 {
        self.next_fetch += 1;
        self.next_fetch
    }

    /// Applies and commits one batch; the leases that its fetches were granted, in their order.
    ///
    /// # Errors
    /// Any of the operations failed, or a fetch found nothing.
    pub fn batch(&mut self, batch: Vec<Encoded>) -> Result<Vec<u64>, Error> {
        let replies =
            buffer::by_hand::cycle(&mut self.engine, batch.into_iter().map(|op| submitted(op.0)).collect())?;
        let mut leases = Vec::new();
        for reply in replies {
            match reply {
                Some(Reply::Turn(Some(grant))) => leases.push(grant.guard.keep()),
                Some(Reply::Work(Some(grant))) => leases.push(grant.guard.keep()),
                Some(Reply::Turn(None) | Reply::Work(None)) | None => {
                    return Err(Error::not_found("something to fetch"));
                }
                Some(_) => {}
            }
        }
        Ok(leases)
    }

    /// How many items wait in the two queues.
    ///
    /// # Errors
    /// None that a healthy engine has.
    pub fn waiting(&mut self) -> Result<usize, Error> {
        let replies = buffer::by_hand::cycle(&mut self.engine, vec![submitted(Op::QueueDepths)])?;
        let depths = replies.iter().map(|reply| match reply {
            Some(Reply::Depths(depths)) => depths.orchestrator_queue + depths.worker_queue,
            _ => 0,
        });
        Ok(depths.sum())
    }
}

/// The store of [`Writer`](crate::Writer).
pub struct WriterByHand {
    store: ClosureStore,
}

impl WriterByHand {
    /// Opens a file, or memory if there is none.
    ///
    /// # Errors
    /// As [`Writer::open`](crate::Writer::open).
    pub fn open(file: Option<&Path>, options: &WriterOptions) -> Result<Self, Error> {
        let location = location(file);
        Ok(Self { store: ClosureStore::open(opening(&location, options.engine()))? })
    }

    /// Runs and commits one batch.
    ///
    /// # Errors
    /// Any of the closures failed.
    pub fn batch<F>(&mut self, closures: Vec<F>) -> Result<(), Error>
    where
        F: FnOnce(&Transaction<'_>) -> Result<(), Error> + Send + 'static,
    {
        let closures = closures.into_iter().map(|closure| operation(closure, Arc::default())).collect();
        buffer::by_hand::cycle(&mut self.store, closures).map(|_done| ())
    }
}
