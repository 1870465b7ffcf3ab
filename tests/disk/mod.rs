//! A disk in memory, under SQLite as its default VFS, that can lose power at any I/O operation, fail any of
//! them, and lie about fsync.
//!
//! ```text
//!   engine ──► SQLite ──► vfs.rs (the calls of a VFS) ──► Disk: numbers every I/O operation, then
//!                                                          stored.rs  what is durable, what is not yet
//!                                                          locks.rs   file locks, shared memory
//! ```
//!
//! A disk owns a real temporary folder. Paths in it belong to the disk; SQLite's calls for any other path go
//! to the operating system's VFS. The folder is real because the engine keeps its lock file there.
//!
//! Names are data too: a file that was created or deleted is so for good only when its folder was synced,
//! which SQLite's unix VFS does at the first sync of a new journal or write-ahead log, and so does this one.
#![allow(dead_code)]
// every test binary takes what it needs
// Rust cannot speak to SQLite's VFS interface without raw pointers. Every use says why it is sound; nothing
// of this is in the crate.
#![allow(unsafe_code)]

mod locks;
pub(crate) mod random;
mod stored;
mod vfs;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use locks::Locks;
use random::Random;
use rusqlite::ffi;
use stored::Stored;
pub(crate) use stored::Survival;
use tempfile::TempDir;

/// How long a slow sync waits for other operations.
const SLOW_SYNC_MAX: Duration = Duration::from_micros(500);

/// What is on a disk without power.
pub(crate) type Image = BTreeMap<String, Vec<u8>>;

/// The I/O operations that are counted, and that can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Io {
    Open,
    Read,
    Write,
    Sync,
    Truncate,
    Delete,
}

/// How an operation fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing is done. What a failed sync was to make durable, later syncs make durable.
    Eio,
    /// As [`Fault::Eio`], but a failed sync takes the pages for clean: no later sync writes them.
    EioLosingPages,
    /// Half of a write is done, then [`Fault::Eio`].
    ShortEio,
    /// The disk is full: a write that makes a file longer does half of it. Others succeed.
    Full,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lasting {
    Once,
    /// This operation and everything of its kind after it; everything at all for [`Lasting::Dead`].
    ForGood,
    Dead,
}

/// Which syncs report success and do nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Lies {
    #[default]
    None,
    EverySync,
    /// Those of the database file, on which checkpoints depend.
    DatabaseSync,
}

#[derive(Clone, Copy)]
struct Planned {
    at: u64,
    fault: Fault,
    lasting: Lasting,
}

/// A number, what it was, and the name of the file.
pub(crate) type Operation = (Io, String);

pub(crate) struct Disk {
    shared: Arc<Shared>,
    folder: TempDir,
}

struct Shared {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    files: Vec<Entry>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    unsynced_names: Vec<Renaming>,
    operations: Vec<Operation>,
    cut_at: Option<u64>,
    is_off: bool,
    planned: Option<Planned>,
    /// Operations that failed as planned.
    failures: u64,
    /// Whether a sync has failed, and which were asked for all the same after that.
    sync_failed: bool,
    syncs_after_failure: Vec<String>,
    /// The kind that fails for good.
    lasting: Option<(Io, Planned)>,
    lies: Lies,
    /// See [`Disk::slow_syncs`].
    slow_syncs: u64,
    next_holder: u64,
}

#[derive(Default)]
struct Entry {
    stored: Stored,
    locks: Locks,
}

struct Renaming {
    operation: u64,
    name: String,
    /// The file it names from now on.
    file: Option<usize>,
}

/// What becomes of an operation.
enum Verdict {
    Done,
    /// Half of it, then the error.
    Half,
    Not,
}

impl Disk {
    pub(crate) fn new() -> Self {
        Self::with(Image::new())
    }

    /// A disk that has just been given power.
    pub(crate) fn with(image: Image) -> Self {
        // In memory, if there is such a file system: nothing here waits for the machine's own disk.
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let folder = folder.expect("a folder for the disk");
        let mut state = State::default();
        for (name, content) in image {
            state.durable_names.insert(name, state.files.len());
            state.files.push(Entry { stored: Stored::new(content), locks: Locks::default() });
        }
        state.names = state.durable_names.clone();
        let shared = Arc::new(Shared { state: Mutex::new(state) });
        vfs::mount(folder.path().canonicalize().expect("it was just made"), Arc::clone(&shared));
        Self { shared, folder }
    }

    /// The database on it.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().canonicalize().expect("it is there").join("app.db")
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }

    /// I/O operations so far; the first is number 1.
    pub(crate) fn operations(&self) -> u64 {
        self.state().operations.len() as u64
    }

    pub(crate) fn trace(&self) -> Vec<Operation> {
        self.state().operations.clone()
    }

    /// The power goes at this operation.
    pub(crate) fn cut_at(&self, operation: u64) {
        self.state().cut_at = Some(operation);
    }

    pub(crate) fn is_off(&self) -> bool {
        self.state().is_off
    }

    /// The operation with this number fails.
    pub(crate) fn fail_at(&self, at: u64, fault: Fault, lasting: Lasting) {
        self.state().planned = Some(Planned { at, fault, lasting });
    }

    pub(crate) fn failures(&self) -> u64 {
        self.state().failures
    }

    /// Syncs that were asked for although one had failed, since this was last asked.
    pub(crate) fn take_syncs_after_failure(&self) -> Vec<String> {
        let mut state = self.state();
        state.sync_failed = false;
        std::mem::take(&mut state.syncs_after_failure)
    }

    pub(crate) fn heal(&self) {
        let mut state = self.state();
        state.planned = None;
        state.lasting = None;
    }

    pub(crate) fn lie(&self, lies: Lies) {
        self.state().lies = lies;
    }

    /// A sync of the log does not begin before this many other operations have, if they come soon: what is committed
    /// stays a while without being durable.
    pub(crate) fn slow_syncs(&self, operations: u64) {
        self.state().slow_syncs = operations;
    }

    /// What is found when the power comes back.
    pub(crate) fn survivor(&self, survival: Survival, seed: u64) -> Image {
        self.state().survivor(survival, &mut Random::new(seed))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        vfs::unmount(&self.path());
    }
}

impl Shared {
    /// A test that panicked while it held the lock left nothing half done.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Shared {
    /// Holds a sync up, as far as it is to be slow.
    fn hold_sync(&self, file: usize) {
        let begin = {
            let state = self.state();
            if state.slow_syncs == 0 || !state.name_of(file).ends_with("-wal") {
                return;
            }
            state.number() + state.slow_syncs
        };
        let end = Instant::now() + SLOW_SYNC_MAX;
        let waits = |state: &State| !state.is_off && state.number() < begin;
        while Instant::now() < end && waits(&self.state()) {
            std::thread::sleep(Duration::from_micros(20));
        }
    }
}

impl State {
    /// Counts an operation and decides about it.
    fn begin(&mut self, io: Io, name: &str) -> Verdict {
        if self.is_off {
            return Verdict::Not;
        }
        self.operations.push((io, name.to_owned()));
        let number = self.operations.len() as u64;
        if self.cut_at == Some(number) {
            self.is_off = true;
            return Verdict::Not;
        }
        if let Some(planned) = self.planned.filter(|planned| planned.at == number) {
            if planned.lasting != Lasting::Once {
                self.lasting = Some((io, planned));
            }
            return self.fail(io, planned.fault);
        }
        match self.lasting {
            Some((kind, planned)) if kind == io || planned.lasting == Lasting::Dead => {
                self.fail(io, planned.fault)
            }
            _ => Verdict::Done,
        }
    }

    fn fail(&mut self, io: Io, fault: Fault) -> Verdict {
        self.failures += 1;
        match (fault, io) {
            (Fault::Full | Fault::ShortEio, Io::Write) => Verdict::Half,
            _ => Verdict::Not,
        }
    }

    fn number(&self) -> u64 {
        self.operations.len() as u64
    }

    /// The fault behind a verdict that is not `Done`; `None` if the power has gone.
    fn fault(&self) -> Option<Fault> {
        let planned = self.planned.or(self.lasting.map(|(_, planned)| planned));
        planned.map(|planned| planned.fault).filter(|_| !self.is_off)
    }

    fn name_of(&self, file: usize) -> String {
        let named = self.names.iter().find(|(_, of)| **of == file);
        named.map_or_else(|| "deleted".into(), |(name, _)| name.clone())
    }

    /// The file by this name, made if it is missing.
    fn open(&mut self, name: &str, create: bool) -> Result<usize, i32> {
        let Verdict::Done = self.begin(Io::Open, name) else { return Err(ffi::SQLITE_CANTOPEN) };
        if let Some(file) = self.names.get(name) {
            return Ok(*file);
        }
        if !create {
            return Err(ffi::SQLITE_CANTOPEN);
        }
        let file = self.files.len();
        self.files.push(Entry::default());
        self.names.insert(name.into(), file);
        self.unsynced_names.push(Renaming { operation: self.number(), name: name.into(), file: Some(file) });
        Ok(file)
    }

    fn delete(&mut self, name: &str, sync_folder: bool) -> Result<(), i32> {
        let Verdict::Done = self.begin(Io::Delete, name) else { return Err(ffi::SQLITE_IOERR_DELETE) };
        if self.names.remove(name).is_none() {
            return Err(ffi::SQLITE_IOERR_DELETE_NOENT);
        }
        self.unsynced_names.push(Renaming { operation: self.number(), name: name.into(), file: None });
        if sync_folder {
            self.sync_folder();
        }
        Ok(())
    }

    fn sync_folder(&mut self) {
        if self.lies == Lies::EverySync {
            return;
        }
        for Renaming { name, file, .. } in self.unsynced_names.drain(..) {
            rename(&mut self.durable_names, name, file);
        }
    }

    fn read(&mut self, file: usize, at: usize, into: &mut [u8]) -> Result<(), i32> {
        let name = self.name_of(file);
        let Verdict::Done = self.begin(Io::Read, &name) else { return Err(ffi::SQLITE_IOERR_READ) };
        let whole = self.files[file].stored.read(at, into);
        if whole { Ok(()) } else { Err(ffi::SQLITE_IOERR_SHORT_READ) }
    }

    fn write(&mut self, file: usize, at: usize, bytes: &[u8]) -> Result<(), i32> {
        let name = self.name_of(file);
        let verdict = self.begin(Io::Write, &name);
        let number = self.number();
        let cut_here = self.is_off && self.cut_at == Some(number);
        let fault = self.fault();
        let stored = &mut self.files[file].stored;
        match verdict {
            Verdict::Done => stored.write(number, at, bytes),
            Verdict::Half => {
                let full = fault == Some(Fault::Full);
                if full && at + bytes.len() <= stored.len() {
                    stored.write(number, at, bytes);
                    return Ok(());
                }
                stored.write(number, at, &bytes[..bytes.len() / 2]);
                return Err(if full { ffi::SQLITE_FULL } else { ffi::SQLITE_IOERR_WRITE });
            }
            Verdict::Not => {
                // The write the power went away in: some of it, all of it or nothing may have got there.
                if cut_here {
                    stored.write(number, at, bytes);
                    self.cut_at = None;
                }
                return Err(ffi::SQLITE_IOERR_WRITE);
            }
        }
        Ok(())
    }

    fn truncate(&mut self, file: usize, length: usize) -> Result<(), i32> {
        let name = self.name_of(file);
        let Verdict::Done = self.begin(Io::Truncate, &name) else { return Err(ffi::SQLITE_IOERR_TRUNCATE) };
        let number = self.number();
        self.files[file].stored.truncate(number, length);
        Ok(())
    }

    fn sync(&mut self, file: usize, and_folder: bool) -> Result<(), i32> {
        let name = self.name_of(file);
        if self.sync_failed {
            self.syncs_after_failure.push(format!("{name} at {}", self.operations.len() + 1));
        }
        let Verdict::Done = self.begin(Io::Sync, &name) else {
            self.sync_failed = true;
            if self.fault() == Some(Fault::EioLosingPages) {
                self.files[file].stored.forget_unsynced();
            }
            return Err(ffi::SQLITE_IOERR_FSYNC);
        };
        match self.lies {
            Lies::EverySync => return Ok(()),
            Lies::DatabaseSync if name.ends_with(".db") => return Ok(()),
            Lies::DatabaseSync | Lies::None => {}
        }
        self.files[file].stored.sync();
        if and_folder {
            self.sync_folder();
        }
        Ok(())
    }

    fn survivor(&self, survival: Survival, random: &mut Random) -> Image {
        let mut names = self.durable_names.clone();
        for Renaming { operation, name, file } in &self.unsynced_names {
            let survives = match survival {
                Survival::Nothing => false,
                Survival::Everything => true,
                Survival::Before(before) => *operation < before,
                Survival::Scattered(chance) => random.percent(chance.max(50)),
            };
            if survives {
                rename(&mut names, name.clone(), *file);
            }
        }
        let content = |file: usize, random: &mut Random| self.files[file].stored.survivor(survival, random);
        names.into_iter().map(|(name, file)| (name, content(file, random))).collect()
    }
}

fn rename(names: &mut BTreeMap<String, usize>, name: String, file: Option<usize>) {
    match file {
        Some(file) => names.insert(name, file),
        None => names.remove(&name),
    };
}
