//! The one connection that writes: its transaction, its durability, its checkpoints.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, DropBehavior, ErrorCode, Transaction, TransactionBehavior};

use super::control::Control;
use super::held_file::StandIn;
use super::identity::{Identity, Lost};
use super::log_file::LogFile;
use super::log_sync::{LogSync, Soon};
use super::owner::FileOwner;
use super::room::Room;
use super::{FOREIGN_LOCK_WAIT, Location, ReaderPool, open_all_files, recover};
use crate::buffer::{CommitError, CommitNo, Counters, Horizon};
use crate::error::Error;
use crate::options::{Durability, Options};

/// How long the writer is idle before it moves the log into the database.
const IDLE_BEFORE_CHECKPOINT: Duration = Duration::from_millis(500);

/// How often the writer looks whether its files are still there and sound while it is busy. It looks before
/// every checkpoint as well.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// At `Normal` the log is moved to the disk every so many bytes, while the writer goes on (see `log_sync.rs`).
const WRITE_BACK_BYTES: u64 = 4 << 20;

/// How long reads of our own are waited for before the log is started over: they are short. While the writer waits,
/// new ones wait too.
const READS_END: Duration = Duration::from_millis(100);

/// The same when the log has grown to half as much again as it should: after that they are interrupted, and waited for once more.
const LONG_READS_END: Duration = Duration::from_secs(1);

/// How long a reader in another process is waited for, each time the log should be started over.
const FOREIGN_READ_WAIT: Duration = Duration::from_millis(100);

/// How often a rollback is tried that a stranger's handle interrupts.
const ROLLBACK_TRIES: u32 = 10_000;

/// Bytes of a frame in the log beyond its page.
const FRAME_HEADER_BYTES: u64 = 24;

/// The writing connection. Every method is called from the writer thread.
pub(crate) struct WriteConnection {
    /// Dropped first: it would keep the connection from removing its log.
    _stand_in: Option<StandIn>,
    /// `None` in memory mode. IMPORTANT: dropped before the connection, which its handle depends on.
    log_sync: Option<LogSync>,
    connection: Connection,
    control: Control,
    counters: Arc<Counters>,
    /// `None` in memory mode.
    path: Option<PathBuf>,
    durability: Durability,
    horizon: Arc<Horizon>,
    last_commit: CommitNo,
    /// The last commit is to be synced by [`Self::maintain`].
    syncs_here: bool,
    frame_bytes: u64,
    wal_bytes_max: u64,
    log: Log,
    /// `None` in memory mode.
    readers: Option<Arc<ReaderPool>>,
    full_disk_wait: Duration,
    /// `None` in memory mode, and where nobody owns the file.
    identity: Option<Identity>,
    /// `None` in the same cases, and where the system does not say.
    room: Option<Room>,
    looked: Duration,
}

/// What is known of the write-ahead log.
#[derive(Default)]
struct Log {
    frames: u64,
    /// Frames at which the next checkpoint is due although the writer is busy.
    due_at_frames: u64,
    /// Frames at which the log is moved to the disk again.
    write_back_at_frames: u64,
    /// When the last commit was made; `None` once a checkpoint has followed it.
    last_commit: Option<Duration>,
    /// A read of ours that nothing ends keeps the log, which has reached its bound, from being started over.
    is_held: bool,
    /// The disk was full: the log is to be moved and cut to nothing at the next opportunity.
    disk_was_full: bool,
}

/// What came of starting the log over.
enum StartedOver {
    /// The next commit writes at its beginning.
    Yes,
    /// A reader in another process, or nothing that could be moved.
    No,
    /// A read of ours is in it.
    HeldByRead,
}

impl WriteConnection {
    pub(crate) fn new(
        connection: Connection,
        location: &Location,
        options: &Options,
        counters: Arc<Counters>,
        readers: Option<Arc<ReaderPool>>,
        horizon: Arc<Horizon>,
        owner: Option<&Arc<FileOwner>>,
    ) -> Result<Self, Error> {
        let page_bytes: i64 = connection.query_row("PRAGMA page_size", [], |row| row.get(0))?;
        let frame_bytes = page_bytes.cast_unsigned() + FRAME_HEADER_BYTES;
        let log = Log {
            due_at_frames: options.wal_bytes_max / frame_bytes,
            write_back_at_frames: WRITE_BACK_BYTES / frame_bytes,
            ..Log::default()
        };
        let path = match location {
            Location::File(path) => Some(path.clone()),
            Location::Memory => None,
        };
        if path.is_some() {
            open_all_files(&connection)?;
        }
        let (identity, stand_in) = owner.map(Identity::of).unzip();
        let room = owner.and_then(|owner| {
            Room::of(owner.file(), page_bytes.cast_unsigned(), frame_bytes, options.wal_bytes_max)
        });
        let log_sync = match &path {
            Some(_) => Some(LogSync::start(LogFile::open(&connection)?, Arc::clone(&horizon))?),
            None => None,
        };
        let mut writer = Self {
            _stand_in: stand_in,
            log_sync,
            connection,
            control: Control::new(),
            counters,
            identity,
            room,
            path,
            durability: options.durability,
            horizon,
            last_commit: 0,
            syncs_here: false,
            frame_bytes,
            wal_bytes_max: options.wal_bytes_max,
            log,
            readers,
            full_disk_wait: options.full_disk_wait.unwrap_or(FOREIGN_LOCK_WAIT),
            looked: Duration::ZERO,
        };
        writer.take_over_log()?;
        Ok(writer)
    }

    /// A log that is found counts: a process that is killed again and again would let it grow without bound.
    fn take_over_log(&mut self) -> Result<(), Error> {
        if self.path.is_some() && recover::has_log(&self.connection)? {
            if let Err(error) = self.start_log_over("TRUNCATE", Duration::ZERO, false) {
                self.let_go();
                return Err(error);
            }
            self.log.due_at_frames = self.log.due_at_frames.max(self.log.frames);
        }
        Ok(())
    }

    /// How many frames the log may have before it is to be started over.
    fn step(&self) -> u64 {
        let bytes = match &self.room {
            Some(room) => room.log_bytes_max(self.log.frames * self.frame_bytes),
            None => self.wal_bytes_max,
        };
        bytes / self.frame_bytes
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(crate) fn is_in_transaction(&self) -> bool {
        !self.connection.is_autocommit()
    }

    /// Opens the batch's transaction, if it is not open yet. IMMEDIATE: a deferred one that upgrades from
    /// read to write is refused by SQLite at once, whatever the busy timeout says.
    pub(crate) fn begin(&mut self) -> Result<(), Error> {
        if !self.is_in_transaction() {
            self.refuse_while_log_is_held()?;
            self.look_for_room();
            self.connection.prepare_cached(&self.control.begin)?.execute([])?;
        }
        Ok(())
    }

    /// Opens the batch's transaction and lends it. It stays open when the loan ends: only [`Self::commit`]
    /// and [`Self::rollback`] end it. With it comes what opens savepoints inside of it.
    pub(crate) fn transaction(&mut self) -> Result<(Transaction<'_>, &Control), Error> {
        self.refuse_while_log_is_held()?;
        self.look_for_room();
        let mut transaction = Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate)?;
        transaction.set_drop_behavior(DropBehavior::Ignore);
        Ok((transaction, &self.control))
    }

    fn look_for_room(&mut self) {
        if let Some(room) = &mut self.room {
            room.begin();
        }
    }

    /// The log has reached its bound, and a read that could not be interrupted is still in it.
    fn refuse_while_log_is_held(&self) -> Result<(), Error> {
        if !self.log.is_held {
            return Ok(());
        }
        match self.readers.as_ref().and_then(|readers| readers.oldest()) {
            Some(ran) if ran >= READS_END => Err(Error::rolled_back(format!(
                "a read has been running for {:.1} s and keeps the write-ahead log, which has reached its bound, from \
                 being reused: keep reads short, or raise wal_bytes_max",
                ran.as_secs_f64()
            ))),
            _ => Ok(()),
        }
    }

    /// The number of the commit that the batch at hand makes; 0 where nobody waits for the disk.
    pub(crate) fn next_commit(&self) -> CommitNo {
        if self.durability == Durability::Full && self.path.is_some() { self.last_commit + 1 } else { 0 }
    }

    /// The number of the last commit, or of the last batch that was rolled back.
    pub(crate) fn last_commit(&self) -> CommitNo {
        self.last_commit
    }

    /// Commits the batch's transaction; nothing to do if it was never opened. It does not wait for the disk.
    ///
    /// `soon` says how soon it is to be on the disk.
    pub(crate) fn commit(&mut self, now: Duration, soon: Soon) -> Result<(), CommitError> {
        if !self.is_in_transaction() {
            return Ok(());
        }
        self.check_sync().map_err(CommitError::Unknown)?;
        if now.saturating_sub(self.looked) >= LOOK_EVERY {
            self.looked = now;
            // This batch did not happen, but what was acknowledged since the last look is as good as gone.
            self.check_files().map_err(CommitError::Unknown)?;
            if let Some(room) = &mut self.room {
                room.look();
            }
        }
        if let Some(room) = &self.room {
            room.reserve(&self.connection).map_err(|error| {
                self.log.disk_was_full = true;
                CommitError::RolledBack(error.into())
            })?;
        }
        // A reader that sees any of it finds its number.
        self.horizon.announce(self.next_commit());
        let committed = self
            .connection
            .prepare_cached(&self.control.commit)
            .and_then(|mut statement| statement.execute([]));
        if let Err(error) = committed {
            // A disk that is full refuses the frame that would make the commit valid, and a lock keeps
            // SQLite from starting to write it: both are certain. Anything else, a failed fsync above
            // all, leaves frames whose fate nobody knows. An interrupt is looked for before it begins.
            let certain = matches!(
                error.sqlite_error_code(),
                Some(ErrorCode::DiskFull | ErrorCode::DatabaseBusy | ErrorCode::OperationInterrupted)
            );
            self.log.disk_was_full |= error.sqlite_error_code() == Some(ErrorCode::DiskFull);
            let error = Error::from(error);
            return Err(if certain { CommitError::RolledBack(error) } else { CommitError::Unknown(error) });
        }
        Counters::add(&self.counters.commits, 1);
        if self.path.is_some() {
            self.measure_log();
            self.write_log_back(soon);
            self.log.last_commit = Some(now);
        }
        Ok(())
    }

    /// Rolls the open transaction back, if there is one.
    ///
    /// After a full disk this takes as long as a foreign lock is waited for: who tries again at once, a few times,
    /// would find it full each time. (SQLite has undone the transaction, so the commit cannot be tried again here.)
    pub(crate) fn rollback(&mut self) -> Result<(), Error> {
        let rolled_back = self.rollback_at_once();
        self.wait_for_room();
        rolled_back
    }

    /// The same without a wait: whoever calls it calls [`Self::wait_for_room`] before anybody is answered.
    pub(crate) fn rollback_at_once(&mut self) -> Result<(), Error> {
        // Readers may wait for its number.
        self.request_sync(Soon::Now);
        self.log.disk_was_full |= super::met_a_full_disk(&self.connection);
        let mut outcome = Ok(0);
        for _ in 0..ROLLBACK_TRIES {
            if !self.is_in_transaction() {
                return Ok(());
            }
            let rollback = self.connection.prepare_cached(&self.control.rollback);
            outcome = rollback.and_then(|mut rollback| rollback.execute([]));
            let interrupted = outcome
                .as_ref()
                .is_err_and(|error| error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted));
            if !interrupted {
                break;
            }
        }
        Ok(outcome.map(drop)?)
    }

    /// Waits, if the disk was full.
    pub(crate) fn wait_for_room(&self) {
        if self.log.disk_was_full {
            std::thread::sleep(self.full_disk_wait);
        }
    }

    /// Whether the disk was full since the last [`Self::maintain`], and little is free on its volume.
    pub(crate) fn is_short_of_room(&self) -> bool {
        self.log.disk_was_full && self.room.as_ref().is_some_and(Room::is_low)
    }

    /// How long until [`Self::maintain`] has something to do although nothing is submitted.
    pub(crate) fn wait(&self, now: Duration) -> Option<Duration> {
        let last_commit = self.log.last_commit?;
        Some((last_commit + IDLE_BEFORE_CHECKPOINT).saturating_sub(now))
    }

    /// Moves the log into the database and starts it over: when idle, when it has passed its limit, and after the disk
    /// was full.
    ///
    /// A checkpoint alone starts nothing over: as long as any reader is in the log, the next commit goes on at its
    /// end. So most of the work is done beside the readers, and then those of our own are kept out for a moment.
    pub(crate) fn maintain(&mut self, now: Duration) -> Result<(), Error> {
        if std::mem::take(&mut self.syncs_here)
            && let Some(log_sync) = &self.log_sync
        {
            log_sync.sync_here();
        }
        self.check_sync()?;
        let full = std::mem::take(&mut self.log.disk_was_full) && self.path.is_some();
        let idle = self.log.last_commit.is_some_and(|at| now.saturating_sub(at) >= IDLE_BEFORE_CHECKPOINT);
        let grown = self.log.last_commit.is_some() && self.log.frames >= self.log.due_at_frames;
        if !(full || idle || grown) {
            return Ok(());
        }
        self.check_files()?;
        let step = self.step();
        let at_bound = self.log.frames > step + step / 2;
        let is_low = self.room.as_ref().is_some_and(Room::is_low);
        let (patience, interrupt) = match (at_bound, self.log.is_held) {
            (true, false) => (LONG_READS_END, true),
            (false, _) if idle => (Duration::ZERO, false),
            // It was given its time; others of our own are waited for as ever.
            _ => (READS_END, at_bound),
        };
        let outcome =
            self.start_log_over(if full || is_low { "TRUNCATE" } else { "RESTART" }, patience, interrupt)?;
        if full && !matches!(outcome, StartedOver::Yes) {
            // What was rolled back may have taken the room that the database needs.
            recover::cut_log(&self.connection, self.frame_bytes)?;
        }
        self.log.is_held = at_bound && matches!(outcome, StartedOver::HeldByRead);
        let done = matches!(outcome, StartedOver::Yes);
        // Somebody held it up: not again before the log has grown by a quarter, or until it is idle.
        self.log.due_at_frames = if done { step } else { self.log.frames + step / 4 };
        self.log.write_back_at_frames = self.log.frames + WRITE_BACK_BYTES / self.frame_bytes;
        if done || idle {
            self.log.last_commit = None;
        }
        Ok(())
    }

    /// Moves the log into the database and, if nobody is in it, has the next commit begin it anew. Waits for reads of
    /// our own for `patience`, and for foreign ones for [`FOREIGN_READ_WAIT`].
    fn start_log_over(
        &mut self,
        mode: &str,
        patience: Duration,
        interrupt: bool,
    ) -> Result<StartedOver, Error> {
        self.finish_sync()?;
        self.checkpoint("PASSIVE")?;
        let readers = self.readers.clone();
        let _cleared = match readers.as_ref().map(|readers| readers.clear(patience, interrupt)) {
            Some(Err(_ran)) => return Ok(StartedOver::HeldByRead),
            Some(Ok(cleared)) => Some(cleared),
            None => None,
        };
        self.connection.busy_timeout(FOREIGN_READ_WAIT)?;
        let outcome = self.checkpoint(mode);
        self.connection.busy_timeout(FOREIGN_LOCK_WAIT)?;
        Ok(if outcome? { StartedOver::Yes } else { StartedOver::No })
    }

    /// Returns whether the whole log is in the database now.
    ///
    /// An I/O error here is as bad as one in a commit: after a failed fsync the kernel may report the next
    /// one as good although the pages are gone, and the log would be reused on the strength of it.
    fn checkpoint(&mut self, mode: &str) -> Result<bool, Error> {
        let sql = match mode {
            "TRUNCATE" => "PRAGMA wal_checkpoint(TRUNCATE)",
            "RESTART" => "PRAGMA wal_checkpoint(RESTART)",
            _ => "PRAGMA wal_checkpoint(PASSIVE)",
        };
        let outcome = self.connection.query_row(sql, [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
        });
        Counters::add(&self.counters.checkpoints, 1);
        match outcome {
            Ok((busy, in_log, moved)) => {
                let complete = busy == 0 && in_log == moved;
                // A passive one may leave readers in it, and then the next commit goes on at its end.
                let started_over = complete && mode != "PASSIVE";
                self.log.frames = if started_over { 0 } else { u64::try_from(in_log).unwrap_or(0) };
                Ok(complete)
            }
            Err(error) => match error.sqlite_error_code() {
                // The log keeps everything; there will be another time.
                Some(
                    ErrorCode::DatabaseBusy
                    | ErrorCode::DatabaseLocked
                    | ErrorCode::DiskFull
                    | ErrorCode::OperationInterrupted,
                ) => {
                    tracing::warn!(%error, "checkpoint put off");
                    Ok(false)
                }
                _ => Err(error.into()),
            },
        }
    }

    fn measure_log(&mut self) {
        let appended = super::pages_written(&self.connection);
        Counters::add(&self.counters.bytes_written, appended * self.frame_bytes);
        self.log.frames += appended;
        if let Some(room) = &mut self.room {
            let was_low = room.is_low();
            room.wrote(appended * self.frame_bytes);
            if room.is_low() && !was_low {
                self.log.due_at_frames = self.log.due_at_frames.min(self.step());
            }
        }
    }

    /// Has the log synced beside the writer: at `Full` after every commit, at `Normal` each time it has grown by
    /// [`WRITE_BACK_BYTES`].
    fn write_log_back(&mut self, soon: Soon) {
        if self.durability == Durability::Full {
            self.syncs_here = soon == Soon::Here;
            self.request_sync(soon);
        } else if self.log.frames >= self.log.write_back_at_frames {
            self.log.write_back_at_frames = self.log.frames + WRITE_BACK_BYTES / self.frame_bytes;
            if let Some(log_sync) = &self.log_sync {
                log_sync.request(0, Soon::Now);
            }
        }
    }

    /// The commit that was announced has been made, or is certain not to be: in both cases its number is over.
    fn request_sync(&mut self, soon: Soon) {
        let announced = self.horizon.announced();
        if announced > self.last_commit
            && let Some(log_sync) = &self.log_sync
        {
            self.last_commit = announced;
            log_sync.request(announced, soon);
        }
    }

    /// Moves the whole log into the database and cuts it to nothing, as far as readers allow.
    pub(crate) fn close(&mut self) -> Result<(), Error> {
        if self.path.is_none() {
            return Ok(());
        }
        if let Err(error) = self.check_files() {
            // Closing would remove a log of this name, whosever it is by now.
            self.let_go();
            return Err(error);
        }
        self.finish_sync()?;
        self.checkpoint("TRUNCATE").map(|_complete| ())
    }

    /// The failure of a sync beside the writer.
    fn check_sync(&self) -> Result<(), Error> {
        self.log_sync.as_ref().map_or(Ok(()), LogSync::check)
    }

    /// Waits for what is being synced beside the writer: see log_sync.rs.
    fn finish_sync(&self) -> Result<(), Error> {
        self.log_sync.as_ref().map_or(Ok(()), LogSync::finish)
    }

    /// Whether the files still are the ones that were opened, and nothing of the log was lost on the way.
    ///
    /// A log that somebody has removed still holds what was committed: that is moved into the database before
    /// anything else. What is open of a batch is rolled back for it.
    fn check_files(&mut self) -> Result<(), Error> {
        match self.identity.as_ref().map_or(Ok(()), Identity::check) {
            Ok(()) => {}
            Err(Lost::Other(error)) => return Err(error),
            Err(Lost::Log(error)) => {
                let moved = self.rollback().and_then(|()| self.checkpoint("TRUNCATE"));
                tracing::error!(
                    error = format_args!("{error:#}"),
                    ?moved,
                    "what had been committed was moved into the database"
                );
                return Err(error);
            }
        }
        Ok(())
    }

    /// Keeps SQLite from checkpointing when the connection is dropped: after a failure nothing may touch
    /// the file until it is opened, and recovered, anew.
    ///
    /// A sync that is under way beside the writer is waited for. It is as good as ever: the writer's own ones, one of
    /// which may be what failed, come only when nothing is under way.
    pub(crate) fn let_go(&mut self) {
        let _ = self.finish_sync();
        let _ = self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::{Patience, configure_writer, open_unchanged};

    /// A connection after a commit of five megabytes.
    fn after_a_large_commit(folder: &tempfile::TempDir, durability: Durability) -> WriteConnection {
        let location = Location::File(folder.path().join("app.db"));
        let options = Options::default().durability(durability);
        let connection = open_unchanged(&location, Patience::none()).unwrap();
        configure_writer(&connection, &location, &options, None, Patience::none()).unwrap();
        let (counters, horizon) = (Arc::default(), Arc::default());
        let mut writer =
            WriteConnection::new(connection, &location, &options, counters, None, horizon, None).unwrap();
        commit(&mut writer, "CREATE TABLE t (b BLOB); INSERT INTO t VALUES (zeroblob(5000000))");
        writer
    }

    fn commit(writer: &mut WriteConnection, sql: &str) {
        writer.begin().unwrap();
        writer.connection().execute_batch(sql).unwrap();
        writer.commit(Duration::ZERO, Soon::Lazily).unwrap();
    }

    #[test]
    fn the_log_is_synced_beside_the_writer_when_it_has_grown_or_for_every_commit() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = after_a_large_commit(&folder, Durability::Normal);
        let next = writer.log.write_back_at_frames;
        assert!(next > writer.log.frames, "it has been asked for");
        commit(&mut writer, "INSERT INTO t VALUES (1)");
        assert_eq!(writer.log.write_back_at_frames, next, "not for every commit");
        assert_eq!((writer.last_commit(), writer.horizon.durable()), (0, 0), "nobody waits for a number");
        writer.close().unwrap();

        let folder = tempfile::tempdir().unwrap();
        let mut writer = after_a_large_commit(&folder, Durability::Full);
        commit(&mut writer, "INSERT INTO t VALUES (1)");
        writer.finish_sync().unwrap();
        assert_eq!((writer.last_commit(), writer.horizon.durable()), (2, 2));
        writer.close().unwrap();
    }
}
