//! Connections that only read: `query_only`, no checkpoints, short transactions.
//!
//! A read in progress keeps the log from being started over. So the writer may close the **gate**: new reads wait
//! outside while it does so, those inside are waited for and, if it has to be, interrupted.
//!
//! Invariants:
//! - a read inside a read never waits: neither at the gate, whose keeper waits for the outer one, nor for a
//!   connection, which the outer one may hold;
//! - whoever awaits a read needs no thread of any runtime: the pool has threads of its own.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::{Condvar, Mutex};
use rusqlite::config::DbConfig;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::{Connection, InterruptHandle, OpenFlags};
use tokio::sync::{Semaphore, oneshot};

use super::{
    Location, PRAGMAS_ASKING, explain, explain_error, has_temporary_objects, on_open, open_all_files,
    prepare_for_work, read_pragma, set_pragma,
};
use crate::error::Error;
use crate::options::OnOpen;

/// Reads that are awaited and handed to the pool's threads; further ones wait before they are.
const WAITING_READS_MAX: usize = 256;

/// Connections opened with the database; further ones are when they are needed.
const OPENED_AHEAD: usize = 8;

/// A read that is to give way is interrupted this often: it may go on with its next statement.
const INTERRUPT_EVERY: Duration = Duration::from_millis(10);

type Job = Box<dyn FnOnce(&ReaderPool) + Send>;

/// Whose code reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readers {
    /// This crate's: statements that read, and nothing else.
    Own,
    /// A user's, which may do anything to a connection.
    Strange,
}

/// A bounded set of reading connections to one file: the first are opened by [`ReaderPool::fill`], others when needed.
pub(crate) struct ReaderPool {
    path: PathBuf,
    readers: Readers,
    connections_max: usize,
    on_open: Option<OnOpen>,
    state: Mutex<State>,
    /// A connection came back, the gate opened, or the pool closed.
    changed: Condvar,
    room: Arc<Semaphore>,
    jobs: Receiver<Job>,
}

struct State {
    idle: Vec<Reader>,
    /// Connections that exist or are being opened.
    open: usize,
    closed: bool,
    gated: bool,
    inside: Vec<Inside>,
    next_read: u64,
    /// `None` once the pool is closed, which ends the threads.
    sender: Option<Sender<Job>>,
    threads: usize,
}

/// One read that has a connection, or is about to.
struct Inside {
    read: u64,
    thread: ThreadId,
    since: Instant,
    /// `None` while the connection is being opened.
    interrupt: Option<InterruptHandle>,
    interrupted: bool,
}

impl State {
    fn is_inside(&self, thread: ThreadId) -> bool {
        self.inside.iter().any(|inside| inside.thread == thread)
    }

    fn enter(&mut self, interrupt: Option<InterruptHandle>) -> u64 {
        let (read, thread) = (self.next_read, thread::current().id());
        self.next_read += 1;
        self.inside.push(Inside { read, thread, since: Instant::now(), interrupt, interrupted: false });
        read
    }

    fn close_idle(&mut self) {
        self.open -= self.idle.len();
        self.idle.clear();
    }

    fn leave(&mut self, read: u64) -> Option<Inside> {
        let at = self.inside.iter().position(|inside| inside.read == read)?;
        Some(self.inside.swap_remove(at))
    }
}

impl ReaderPool {
    pub(crate) fn new(
        path: PathBuf,
        readers: Readers,
        connections_max: usize,
        on_open: Option<OnOpen>,
    ) -> Self {
        let (sender, jobs) = bounded(WAITING_READS_MAX);
        let state = State {
            idle: Vec::new(),
            open: 0,
            closed: false,
            gated: false,
            inside: Vec::new(),
            next_read: 0,
            sender: Some(sender),
            threads: 0,
        };
        let room = Arc::new(Semaphore::new(WAITING_READS_MAX));
        Self {
            path,
            readers,
            connections_max,
            on_open,
            state: Mutex::new(state),
            changed: Condvar::new(),
            room,
            jobs,
        }
    }

    /// Opens all connections, or the first [`OPENED_AHEAD`] of them, while the path still leads to the file: a process may change its root, its user, or the
    /// name of a folder afterwards. It does so before anything in the file is changed, because what is called for each
    /// of them may refuse; then none is left open. [`Self::open_files`] is to follow.
    pub(super) fn fill(&self) -> Result<(), Error> {
        for _ in 0..self.connections_max.min(OPENED_AHEAD) {
            // IMPORTANT: none is open when the one that writes is closed, which then removes the log that it made.
            let reader = self.open().inspect_err(|_error| self.empty())?;
            let mut state = self.state.lock();
            state.open += 1;
            state.idle.push(reader);
        }
        Ok(())
    }

    /// Has the connections that [`Self::fill`] opened open their files, now that there is a log.
    pub(crate) fn open_files(&self) -> Result<(), Error> {
        let state = self.state.lock();
        let opened = state.idle.iter().try_for_each(|reader| open_all_files(&reader.connection));
        opened.map_err(|error| explain_error(error, &self.path))
    }

    /// Closes the idle connections.
    pub(super) fn empty(&self) {
        self.state.lock().close_idle();
    }

    /// Runs `read` on a connection and on this thread, waiting for a connection if all are busy.
    ///
    /// # Errors
    /// The outer one: it was not run, or was interrupted.
    pub(crate) fn with<T, E>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, E>,
    ) -> Result<Result<T, E>, Error> {
        self.take()?.run(read)
    }

    /// Runs `read` only if that needs no waiting and no opening; gives it back otherwise.
    pub(crate) fn with_idle<T, E, F>(&self, read: F) -> Result<Result<Result<T, E>, Error>, F>
    where
        F: FnOnce(&Connection) -> Result<T, E>,
    {
        let mut state = self.state.lock();
        let free = !state.closed && !state.gated;
        let Some(connection) = free.then(|| state.idle.pop()).flatten() else { return Err(read) };
        let number = state.enter(Some(connection.connection.get_interrupt_handle()));
        drop(state);
        Ok(Lent { pool: self, read: number, connection: Some(connection) }.run(read))
    }

    /// Runs `read` on one of the pool's threads. May be awaited on any executor; one that is dropped before it
    /// has begun is not run.
    ///
    /// # Errors
    /// As [`Self::with`].
    pub(crate) async fn run<T: Send + 'static, E: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<Result<T, E>, Error> {
        let room = Arc::clone(&self.room).acquire_owned().await.map_err(|_closed| Error::Closed)?;
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |pool| {
            if !answer.is_closed() {
                let outcome = catch_unwind(AssertUnwindSafe(|| pool.with(read)));
                let _ = answer.send(outcome);
            }
            drop(room);
        });
        self.hand_over(job)?;
        match answered.await {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => resume_unwind(panic),
            Err(_dropped) => Err(Error::Closed),
        }
    }

    fn hand_over(self: &Arc<Self>, job: Job) -> Result<(), Error> {
        let mut state = self.state.lock();
        let Some(sender) = state.sender.clone() else { return Err(Error::Closed) };
        if state.threads < self.connections_max {
            let pool = Arc::clone(self);
            let work = move || {
                // Ends when the pool closes, which drops the last sender.
                for job in &pool.jobs {
                    job(&pool);
                }
            };
            match thread::Builder::new().name("forebay-reader".into()).spawn(work) {
                Ok(_detached) => state.threads += 1,
                Err(error) if state.threads == 0 => return Err(Error::io("starting a reader thread", error)),
                // Those that run do what there is to do.
                Err(_) => {}
            }
        }
        drop(state);
        // There is room: as many fit as there are permits.
        sender.send(job).map_err(|_closed| Error::Closed)
    }

    fn take(&self) -> Result<Lent<'_>, Error> {
        let mut state = self.state.lock();
        let nested = state.is_inside(thread::current().id());
        loop {
            if state.closed {
                return Err(Error::Closed);
            }
            if nested || !state.gated {
                if let Some(connection) = state.idle.pop() {
                    let read = state.enter(Some(connection.connection.get_interrupt_handle()));
                    return Ok(Lent { pool: self, read, connection: Some(connection) });
                }
                if state.open < self.connections_max {
                    break;
                }
                if nested {
                    return Err(Error::WouldDeadlock {
                        what: "a read inside a read while all connections are busy",
                        instead: "read through the connection that the outer one has, or raise `readers`",
                    });
                }
            }
            self.changed.wait(&mut state);
        }
        state.open += 1;
        let read = state.enter(None);
        drop(state);
        // Left again if it does not open.
        let mut lent = Lent { pool: self, read, connection: None };
        let connection = self.open()?;
        open_all_files(&connection.connection).map_err(|error| explain_error(error, &self.path))?;
        let interrupt = connection.connection.get_interrupt_handle();
        if let Some(inside) = self.state.lock().inside.iter_mut().find(|inside| inside.read == read) {
            inside.interrupt = Some(interrupt);
        }
        lent.connection = Some(connection);
        Ok(lent)
    }

    fn open(&self) -> Result<Reader, Error> {
        // Not even one that switches `query_only` off writes past the writer.
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_EXRESCODE;
        let mut connection =
            Connection::open_with_flags(&self.path, flags).map_err(|e| explain(e, &self.path))?;
        prepare_for_work(&connection)?;
        set_pragma(&connection, "wal_autocheckpoint", "0", "0")?;
        // Nor when it is the last one to close: after a failure nothing may touch the file.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        set_pragma(&connection, "query_only", "ON", "1")?;
        set_pragma(&connection, "trusted_schema", "OFF", "0")?;
        on_open::run(&connection, &Location::File(self.path.clone()), self.on_open.as_ref())?;
        let was_set = Arc::new(AtomicBool::new(false));
        let note = Arc::clone(&was_set);
        let authorizer = move |context: AuthContext<'_>| {
            if let AuthAction::Pragma { pragma_name, pragma_value: Some(_) } = context.action
                && !PRAGMAS_ASKING.iter().any(|asking| asking.eq_ignore_ascii_case(pragma_name))
            {
                note.store(true, Ordering::Relaxed);
            }
            Authorization::Allow
        };
        connection.authorizer(Some(authorizer))?;
        Ok(Reader { connection, was_set })
    }

    /// Refuses further reads, closes the idle connections, and waits for those that are reading.
    ///
    /// # Errors
    /// [`Error::WouldDeadlock`] inside a read, which would wait for itself; nothing was closed.
    pub(crate) fn close(&self) -> Result<(), Error> {
        let mut state = self.state.lock();
        if state.is_inside(thread::current().id()) {
            return Err(Error::WouldDeadlock {
                what: "closing inside a read",
                instead: "close when the read has returned",
            });
        }
        state.closed = true;
        state.sender = None;
        self.room.close();
        state.close_idle();
        self.changed.notify_all();
        while state.open > 0 {
            self.changed.wait(&mut state);
        }
        drop(state);
        // What nobody has begun is told that the pool is closed, also if there is no thread any more.
        while self.jobs.try_recv().is_ok() {}
        Ok(())
    }

    /// How long the oldest read that is inside has been running.
    pub(super) fn oldest(&self) -> Option<Duration> {
        self.state.lock().inside.iter().map(|inside| inside.since.elapsed()).max()
    }

    /// Keeps new reads out until the guard is dropped, and waits for those inside, `patience` at most; with
    /// `interrupt` they are then interrupted, and waited for as long again.
    ///
    /// # Errors
    /// How long the oldest read has been running that is still inside. The gate is open again.
    pub(super) fn clear(&self, patience: Duration, interrupt: bool) -> Result<Cleared<'_>, Duration> {
        let mut state = self.state.lock();
        state.gated = true;
        let cleared = Cleared(self);
        let began = Instant::now();
        while !state.inside.is_empty() && began.elapsed() < patience {
            self.changed.wait_until(&mut state, began + patience);
        }
        while interrupt && !state.inside.is_empty() && began.elapsed() < patience * 2 {
            for inside in &mut state.inside {
                if let Some(interrupt) = &inside.interrupt {
                    inside.interrupted = true;
                    interrupt.interrupt();
                }
            }
            self.changed.wait_for(&mut state, INTERRUPT_EVERY);
        }
        match state.inside.iter().map(|inside| inside.since.elapsed()).max() {
            None => Ok(cleared),
            Some(oldest) => {
                // IMPORTANT: before the guard, which takes the lock.
                drop(state);
                Err(oldest)
            }
        }
    }
}

/// Whether the next one may have it. A read that left a transaction open would pin the log for ever; one that set a
/// pragma, attached a database or made temporary objects would have the next one read something else.
fn is_as_lent(reader: &Reader) -> bool {
    let connection = &reader.connection;
    !reader.was_set.load(Ordering::Relaxed)
        && connection.is_autocommit()
        && connection.db_name(2).is_err()
        && read_pragma(connection, "query_only").is_ok_and(|value| value == "1")
        && has_temporary_objects(connection).is_ok_and(|has| !has)
}

/// Nobody reads while this lives.
pub(super) struct Cleared<'a>(&'a ReaderPool);

impl Drop for Cleared<'_> {
    fn drop(&mut self) {
        self.0.state.lock().gated = false;
        self.0.changed.notify_all();
    }
}

/// A connection that reads.
struct Reader {
    connection: Connection,
    /// Whether a read has prepared a pragma that sets something.
    was_set: Arc<AtomicBool>,
}

/// A connection and its place in the pool, both given back even if the read panics.
struct Lent<'a> {
    pool: &'a ReaderPool,
    read: u64,
    connection: Option<Reader>,
}

impl Lent<'_> {
    /// What a read that was interrupted fails with is not looked at: it is of no use, and trying again is right either way.
    fn run<T, E>(self, read: impl FnOnce(&Connection) -> Result<T, E>) -> Result<Result<T, E>, Error> {
        let Some(connection) = &self.connection else { return Err(Error::Closed) };
        let result = read(&connection.connection);
        if result.is_err() {
            let state = self.pool.state.lock();
            let inside = state.inside.iter().find(|inside| inside.read == self.read);
            if let Some(inside) = inside.filter(|inside| inside.interrupted) {
                return Err(Error::ReadInterrupted { ran: inside.since.elapsed() });
            }
        }
        Ok(result)
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let usable = self.connection.take().filter(|reader| match self.pool.readers {
            Readers::Own => reader.connection.is_autocommit(),
            Readers::Strange => is_as_lent(reader),
        });
        let mut state = self.pool.state.lock();
        state.leave(self.read);
        match usable {
            Some(connection) if !state.closed => state.idle.push(connection),
            other => {
                // IMPORTANT: first gone, then counted: who closes the pool goes on to close the writer's.
                drop(other);
                state.open -= 1;
            }
        }
        // All of them: they wait for different things.
        self.pool.changed.notify_all();
    }
}
