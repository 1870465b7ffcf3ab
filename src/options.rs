//! How an engine is set up: one plain struct, every default with its reason. The options of a `Writer` are those of these that
//! mean something to it (`writer/options.rs`).

use std::any::TypeId;
use std::error::Error as StdError;
use std::fmt::Debug;
use std::ops::RangeInclusive;
#[cfg(feature = "duroxide")]
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;

use crate::clock::{Clock, SystemClock};
use crate::error::{Cause, Error};

/// What a write survives once it is answered: once its call has returned, or its ticket has resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Whatever anybody outside was told, or could have seen, survives a crash of the process, of the machine, and a power
    /// loss. A client, an activity, a reader, and a ticket of a [`Writer`](crate::Writer) are answered when the commits they
    /// depend on are on the disk; one sync covers many.
    ///
    /// duroxide's runtime itself does not wait: its acknowledgements, and its fetches of turns, are answered when they are
    /// committed, and survive the process from then on. The sync that covers such a commit begins within 5 ms, or when
    /// a sync already under way has ended. What a power loss takes before that, nobody outside has seen anything of; it
    /// is done again. Attempt counts may be among it: a message is then tried more often than was counted.
    /// [`Options::sync_acks`] has the runtime wait as well. (The idea is *external synchrony*, Nightingale et al.,
    /// "Rethink the Sync", OSDI 2006.)
    #[default]
    Full,
    /// An answered write is committed and survives a crash of the process. After a crash of the machine or a power loss
    /// the newest commits may be missing, always a suffix and never a part of a batch. This is
    /// what duroxide's own `SqliteProvider` gives.
    Normal,
}

type OnOpenFn = dyn Fn(&Connection) -> Result<(), Cause> + Send + Sync;

/// What [`Options::on_open`] was given.
#[derive(Clone)]
pub(crate) struct OnOpen {
    function: Arc<OnOpenFn>,
    /// Which function it is, where that says all: one that has captured nothing.
    plain: Option<TypeId>,
}

impl OnOpen {
    pub(crate) fn new<E, F>(function: F) -> Self
    where
        E: Into<Box<dyn StdError + Send + Sync>>,
        F: Fn(&Connection) -> Result<(), E> + Send + Sync + 'static,
    {
        let plain = (size_of::<F>() == 0).then(TypeId::of::<F>);
        let function = Arc::new(move |connection: &Connection| {
            function(connection).map_err(|error| Cause::from(error.into()))
        });
        Self { function, plain }
    }

    pub(crate) fn call(&self, connection: &Connection) -> Result<(), Cause> {
        (self.function)(connection)
    }

    /// Whether both are known to do the same.
    fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.function, &other.function) || (self.plain.is_some() && self.plain == other.plain)
    }
}

impl std::fmt::Debug for OnOpen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OnOpen")
    }
}

/// Options of duroxide's storage, with chainable setters. Those of a [`Writer`](crate::Writer) are
/// [`WriterOptions`](crate::WriterOptions).
///
#[cfg_attr(feature = "duroxide", doc = "```")]
#[cfg_attr(not(feature = "duroxide"), doc = "```ignore")]
/// use forebay::{Durability, Options};
///
/// # fn main() -> Result<(), forebay::Error> {
/// let store = Options::default().durability(Durability::Normal).batch_ops_max(256).in_memory()?;
/// # store.close()
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Options {
    pub(crate) durability: Durability,
    pub(crate) sync_acks: bool,
    pub(crate) batch_ops_max: usize,
    pub(crate) batch_bytes_max: usize,
    pub(crate) commit_delay: Duration,
    pub(crate) buffer_ops_max: usize,
    pub(crate) readers: usize,
    pub(crate) wal_bytes_max: u64,
    pub(crate) record_bytes_max: usize,
    pub(crate) cache_bytes: usize,
    pub(crate) wait_for_owner: Duration,
    pub(crate) clock: Option<Arc<dyn Clock>>,
    pub(crate) on_open: Option<OnOpen>,
    /// How long the answer to a batch that met a full disk is held back, where it is not what a foreign lock is waited
    /// for; only tests change it.
    pub(crate) full_disk_wait: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            durability: Durability::Full,
            sync_acks: false,
            batch_ops_max: 1024,
            batch_bytes_max: 8 << 20,
            commit_delay: Duration::ZERO,
            buffer_ops_max: 4096,
            readers: 2,
            wal_bytes_max: 32 << 20,
            record_bytes_max: 64 << 20,
            cache_bytes: 64 << 20,
            wait_for_owner: Duration::ZERO,
            clock: None,
            on_open: None,
            full_disk_wait: None,
        }
    }
}

/// Nobody waits for a batch of more.
const BATCH_OPS: RangeInclusive<usize> = 1..=1 << 20;
const BATCH_BYTES: RangeInclusive<usize> = 1..=1 << 30;
/// Longer than anybody's patience.
const COMMIT_DELAY: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3600);
/// Room for so many waiting operations is set aside at open.
const BUFFER_OPS: RangeInclusive<usize> = 1..=1 << 20;
/// Each is a connection, and at most one thread.
const READERS: RangeInclusive<usize> = 1..=256;
/// From less than a handful of pages every commit would be followed by a checkpoint; of more SQLite's index of the log takes
/// hundreds of megabytes.
const WAL_BYTES: RangeInclusive<u64> = 16 << 10..=64 << 30;
/// No option may promise more than SQLite's own limit on one value (1,000,000,000 bytes), and the events that the engine
/// itself writes have to fit.
const RECORD_BYTES: RangeInclusive<usize> = 1 << 10..=256 << 20;
/// SQLite counts its cache in KiB, in 32 bits.
const CACHE_BYTES: RangeInclusive<usize> = 1 << 10..=1 << 40;

/// The setters of what every engine has: those of [`Options`] and of `WriterOptions`, each of which says by `settings` where
/// it keeps that.
macro_rules! shared_setters {
    () => {
        /// What an answered write survives. Default: [`Durability::Full`], because what somebody was
        /// told cannot be taken back.
        pub fn durability(mut self, durability: Durability) -> Self {
            self.settings().durability = durability;
            self
        }

        /// The most operations one transaction takes. Default: 1024, where the cost of a commit is long since
        /// spread thin and a caller's wait is still a few milliseconds. From 1 to 1,048,576 operations.
        pub fn batch_ops_max(mut self, operations: usize) -> Self {
            self.settings().batch_ops_max = operations;
            self
        }

        /// The most payload bytes after which a batch takes no further operation. Default: 8 MiB, which bounds
        /// how long one batch of large records can keep the others waiting. From 1 byte to 1 GiB.
        pub fn batch_bytes_max(mut self, bytes: usize) -> Self {
            self.settings().batch_bytes_max = bytes;
            self
        }

        /// How long the writer waits for company after the first operation of a batch. Default: zero, because a
        /// batch gathers by itself while the one before it commits; a delay only helps where an fsync is so
        /// expensive that fewer of them are worth everybody's latency. An hour at most.
        pub fn commit_delay(mut self, delay: Duration) -> Self {
            self.settings().commit_delay = delay;
            self
        }

        /// The most operations that wait in the buffer; one that carries more than 4 KiB counts once for every
        /// 4 KiB. Default: 4096. From 1 to 1,048,576. A full buffer suspends an async caller and blocks a sync one.
        pub fn buffer_ops_max(mut self, operations: usize) -> Self {
            self.settings().buffer_ops_max = operations;
            self
        }

        /// The size of the write-ahead log, in bytes, at which the writer checkpoints even though it is busy.
        /// Default: 32 MiB. From 16 KiB to 64 GiB. When idle it checkpoints anyway.
        ///
        /// The log takes up to twice as much, because one batch more may come before it is moved and reads in progress are
        /// given time; a single batch that is larger than a quarter of this adds its own size. From one and a
        /// half times on, reads of this process that are still running are interrupted
        /// ([`Error::ReadInterrupted`]), and while one cannot be, writes are refused with [`Error::RolledBack`]. A
        /// reader in another process is waited for, but only for a moment: while it reads, the log grows. On a small
        /// volume choose a quarter of it or less.
        pub fn wal_bytes_max(mut self, bytes: u64) -> Self {
            self.settings().wal_bytes_max = bytes;
            self
        }

        /// SQLite's page cache on the writing connection, in bytes. Default: 64 MiB. From 1 KiB to 1 TiB.
        pub fn cache_bytes(mut self, bytes: usize) -> Self {
            self.settings().cache_bytes = bytes;
            self
        }

        /// How long opening waits for another process that has the database open, before it is
        /// [`Error::OwnedByProcess`]. Default: zero, so that a mistake is told at once. Where a new process starts while
        /// the one before it shuts down, as long as that may take. Blocks the thread that opens; real time, whatever the
        /// clock of the engine is. Any duration.
        ///
        /// What is left of it is also waited where somebody who knows nothing of forebay holds SQLite's own lock on the
        /// file, before that is [`Error::Locked`]. Such a lock is waited for for two seconds in any case.
        pub fn wait_for_owner(mut self, wait: Duration) -> Self {
            self.settings().wait_for_owner = wait;
            self
        }

        /// The clock the engine runs on. Default: the machine's. Tests hand in a
        /// [`ManualClock`](crate::clock::ManualClock). With the feature `test-util` alone.
        ///
        /// Where the file is open in this process already, the clock it was opened with counts: two clocks are not
        /// compared.
        #[cfg(any(test, feature = "test-util"))]
        pub fn clock(mut self, clock: impl Clock) -> Self {
            self.settings().clock = Some(Arc::new(clock));
            self
        }

        /// Runs `on_open` on every connection when it is opened, the writer's and each reader's, after forebay's own
        /// settings: for functions, collations, modules, `trusted_schema` and other pragmas that belong to a connection.
        /// Default: none.
        ///
        /// It runs on the thread that opens the connection: the one that opens the database, for the writer's and the first
        /// eight readers'; the one that needs it, for a further reader's. It cannot write (`PRAGMA query_only`). What
        /// durability depends on (`journal_mode`, `synchronous`, `wal_autocheckpoint`, `locking_mode`, attached databases)
        /// is looked at afterwards: a change is an [`Error::InvalidOption`], and the connection is not used. So is a panic.
        /// An error that it returns, of any kind, is the cause of an [`Error::OnOpen`]. Hooks and busy handlers are not
        /// kept. When the database is opened it comes before anything in the file is changed, so it may find one that is
        /// empty or not in WAL mode yet.
        ///
        /// Where the file is open in this process already, its `on_open` has to be the same one, or the open is refused
        /// ([`Error::OptionsDiffer`]): give both opens clones of the same options. A function that is given by its name, and a
        /// closure that has captured nothing, is the same wherever it is given.
        ///
        /// rusqlite has functions and collations behind features that forebay does not switch on: depend on rusqlite as
        /// well, in the version that forebay has, with `features = ["functions", "collation"]`. Cargo builds one for both.
        ///
        /// ```
        /// let options = forebay::WriterOptions::default()
        ///     .on_open(|connection| connection.execute_batch("PRAGMA recursive_triggers = ON"));
        /// # let _ = options;
        /// ```
        pub fn on_open<E: Into<Box<dyn StdError + Send + Sync>>>(
            mut self,
            on_open: impl Fn(&Connection) -> Result<(), E> + Send + Sync + 'static,
        ) -> Self {
            self.settings().on_open = Some(OnOpen::new(on_open));
            self
        }

        #[cfg(feature = "test-hooks")]
        #[doc(hidden)]
        pub fn full_disk_wait(mut self, wait: Duration) -> Self {
            self.settings().full_disk_wait = Some(wait);
            self
        }
    };
}
pub(crate) use shared_setters;

impl Options {
    shared_setters!();

    /// How many `query_only` connections serve reads beside the writer. Default: 2. From 1 to 256. In memory mode there
    /// are none, reads go through the writer, and this is not looked at. The first eight are opened with the database,
    /// further ones when they are needed. Reads run on threads of their own: each starts one more, up to as many as there
    /// may be connections.
    pub fn readers(mut self, connections: usize) -> Self {
        self.readers = connections;
        self
    }

    /// Whether, at [`Durability::Full`], the runtime's own calls wait for the disk too. Default: false, because nobody
    /// outside sees a difference (see there).
    ///
    /// With it, acknowledgements, abandons, and fetches that are given a turn or an activity are answered when the commit of
    /// their own batch is on the disk, as a client's calls are in any case. The attempt that a fetch counts is then on
    /// the disk before the item is given out. Choose it if you drive duroxide's `Provider` by hand and act on the outcome of
    /// its acknowledgements yourself. It changes nothing at [`Durability::Normal`] and in memory.
    pub fn sync_acks(mut self, sync_acks: bool) -> Self {
        self.sync_acks = sync_acks;
        self
    }

    /// The largest single value (one event, or one queued item) that is stored, in bytes. Default: 64 MiB. From 1 KiB to
    /// 256 MiB. A larger one is refused with [`Error::RecordTooLarge`], and ends the activity or the orchestration that produced it,
    /// which fails with the size and the limit in its error. A turn may be of any size.
    pub fn record_bytes_max(mut self, bytes: usize) -> Self {
        self.record_bytes_max = bytes;
        self
    }

    /// Opens duroxide's storage on the file at `path`, creating it if it is missing or empty.
    ///
    /// Blocks on file I/O. When it returns, the schema is on the disk and every message, timer and attempt
    /// count in the file is scheduled again.
    ///
    /// # Errors
    /// Every error of the opening group of [`Error`]; the file is left as it was, and one that was not there is not there
    /// ([`Error`] says what may be left all the same).
    #[cfg(feature = "duroxide")]
    pub fn open(self, path: impl AsRef<Path>) -> Result<crate::Forebay, Error> {
        crate::provider::open_file(path.as_ref(), self)
    }

    /// Opens duroxide's storage in memory: nothing survives the last handle. Every call makes a new one.
    ///
    /// # Errors
    /// [`Error::InvalidOption`], or SQLite's own error if memory cannot be had.
    #[cfg(feature = "duroxide")]
    pub fn in_memory(self) -> Result<crate::Forebay, Error> {
        crate::provider::open_memory(self)
    }

    fn settings(&mut self) -> &mut Self {
        self
    }

    /// Refuses what is out of its range.
    pub(crate) fn check(&self) -> Result<(), Error> {
        within("readers", self.readers, &READERS, "connections")?;
        self.check_in_memory()
    }

    /// The same in memory, where nobody reads beside the writer.
    pub(crate) fn check_in_memory(&self) -> Result<(), Error> {
        within("batch_ops_max", self.batch_ops_max, &BATCH_OPS, "operations")?;
        within("batch_bytes_max", self.batch_bytes_max, &BATCH_BYTES, "bytes")?;
        within("commit_delay", self.commit_delay, &COMMIT_DELAY, "")?;
        within("buffer_ops_max", self.buffer_ops_max, &BUFFER_OPS, "operations")?;
        within("wal_bytes_max", self.wal_bytes_max, &WAL_BYTES, "bytes")?;
        within("record_bytes_max", self.record_bytes_max, &RECORD_BYTES, "bytes")?;
        within("cache_bytes", self.cache_bytes, &CACHE_BYTES, "bytes")
    }

    pub(crate) fn clock_or_system(&self) -> Arc<dyn Clock> {
        self.clock.clone().unwrap_or_else(|| Arc::new(SystemClock::default()))
    }

    /// What a second open of the same file would change, as text; empty when nothing.
    pub(crate) fn differences(&self, asked: &Options) -> String {
        // Exhaustive, so that a new option cannot be forgotten here.
        let Options {
            durability,
            sync_acks,
            batch_ops_max,
            batch_bytes_max,
            commit_delay,
            buffer_ops_max,
            readers,
            wal_bytes_max,
            record_bytes_max,
            cache_bytes,
            // Over as soon as it is open.
            wait_for_owner: _,
            clock,
            on_open,
            full_disk_wait: _,
        } = self;
        let mut found = Vec::new();
        let mut compare = |name: &str, open: String, asked: String| {
            if open != asked {
                found.push(format!("{name}: {open}, {asked}"));
            }
        };
        compare("durability", format!("{durability:?}"), format!("{:?}", asked.durability));
        compare("sync_acks", sync_acks.to_string(), asked.sync_acks.to_string());
        compare("batch_ops_max", batch_ops_max.to_string(), asked.batch_ops_max.to_string());
        compare("batch_bytes_max", batch_bytes_max.to_string(), asked.batch_bytes_max.to_string());
        compare("commit_delay", format!("{commit_delay:?}"), format!("{:?}", asked.commit_delay));
        compare("buffer_ops_max", buffer_ops_max.to_string(), asked.buffer_ops_max.to_string());
        compare("readers", readers.to_string(), asked.readers.to_string());
        compare("wal_bytes_max", wal_bytes_max.to_string(), asked.wal_bytes_max.to_string());
        compare("record_bytes_max", record_bytes_max.to_string(), asked.record_bytes_max.to_string());
        compare("cache_bytes", cache_bytes.to_string(), asked.cache_bytes.to_string());
        // Two clocks cannot be compared; whoever comes second gets the first one's.
        let given = |clock: &Option<Arc<dyn Clock>>| if clock.is_some() { "given" } else { "system" };
        compare("clock", given(clock).into(), given(&asked.clock).into());
        let (open, asked) = match (on_open, &asked.on_open) {
            (None, None) => ("none", "none"),
            (None, Some(_)) => ("none", "given"),
            (Some(_), None) => ("given", "none"),
            (Some(open), Some(asked)) if open.is_same(asked) => ("given", "given"),
            (Some(_), Some(_)) => ("given", "another one (give both opens clones of the same options)"),
        };
        compare("on_open", open.into(), asked.into());
        found.join("; ")
    }
}

/// Refuses a value that is out of its range, by the name of its option.
fn within<T: PartialOrd + Debug>(
    option: &'static str,
    value: T,
    range: &RangeInclusive<T>,
    unit: &str,
) -> Result<(), Error> {
    if range.contains(&value) {
        return Ok(());
    }
    let (least, most) = (range.start(), range.end());
    let reason = format!("{value:?} is out of its range, it must be from {least:?} to {most:?} {unit}");
    Err(Error::InvalidOption { option, reason: reason.trim_end().into() })
}
