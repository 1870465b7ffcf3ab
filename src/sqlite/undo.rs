//! Takes back what an open has made when it fails: the database if there was none, its log, its journal mode.
//!
//! What can refuse an open comes before anything is changed, so there is mostly an empty file to be removed. All of this
//! happens while the file is owned, so that no other process with this crate in it is there. One that uses SQLite alone
//! may be: so nothing is removed that anybody has locked, or has put anything into.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rusqlite::{Connection, OpenFlags};

use super::held_file::{HeldFile, id_at};
use super::path::beside;
use super::{ENGINE_APPLICATION_ID, set_pragma};
use crate::error::Error;

/// What SQLite puts beside a database.
const BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];

/// Where the header says how the file is written, and what it says of a write-ahead log.
const WRITE_VERSION: (u64, u8) = (18, 2);

/// What was there before an open.
#[derive(Debug)]
pub(super) struct Before {
    database: Was,
    /// Which of [`BESIDE`] there were.
    beside: [bool; 3],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Was {
    Missing,
    Empty,
    /// With something in it, and this mode.
    Full {
        wal: bool,
    },
}

impl Before {
    /// Looks at a file that was opened and nothing else.
    pub(super) fn of(path: &Path, file: &File, made: bool) -> io::Result<Self> {
        let database = match file.metadata()?.len() {
            _ if made => Was::Missing,
            0 => Was::Empty,
            _ => Was::Full { wal: is_wal(file)? },
        };
        Ok(Self { database, beside: BESIDE.map(|suffix| beside(path, suffix).exists()) })
    }

    /// Makes it so again, as far as nobody else has a part in it. To be called when every connection is closed.
    pub(super) fn restore(&self, held: &HeldFile) {
        let restored = match self.database {
            Was::Missing | Was::Empty => self.remove(held),
            Was::Full { wal } => self.put_back(held, wal),
        };
        if let Err(error) = restored {
            let path = held.path().display();
            tracing::warn!(%error, %path, "what a failed open has made beside its error could not be removed");
        }
    }

    fn remove(&self, held: &HeldFile) -> Result<(), Error> {
        let path = held.path();
        let failed = |error| Error::io(format!("removing {}", path.display()), error);
        let Some(file) = held.file() else { return Ok(()) };
        let is_ours = || Ok(id_at(path)? == held.id());
        if !held.id().is_some() || !is_ours().map_err(failed)? {
            return Ok(());
        }
        let before = stamps(path);
        let is_empty = file.metadata().map_err(failed)?.len() == 0;
        if !is_empty && !(HeldFile::CAN_EXCLUDE && is_unused(path)?) {
            return Ok(());
        }
        let Ok(_excluded) = held.exclude_everybody() else { return Ok(()) };
        // IMPORTANT: looked at again now that nobody can write.
        if stamps(path) != before || !is_ours().map_err(failed)? {
            return Ok(());
        }
        for (suffix, was_there) in BESIDE.iter().zip(self.beside) {
            if !was_there {
                remove_if_there(&beside(path, suffix)).map_err(failed)?;
            }
        }
        match self.database {
            Was::Missing => remove_if_there(path).map_err(failed),
            _ if is_empty => Ok(()),
            _ => file.set_len(0).map_err(failed),
        }
    }

    /// Has SQLite itself do it, which knows whether it is the only one there.
    fn put_back(&self, held: &HeldFile, wal: bool) -> Result<(), Error> {
        let path = held.path();
        let [had_log, ..] = self.beside;
        let changed = |file| Ok(!wal && is_wal(file)?);
        let changed = held.file().map_or(Ok(false), changed);
        let changed = changed.map_err(|error| Error::io(format!("reading {}", path.display()), error))?;
        if had_log || !(changed || beside(path, "-wal").exists()) {
            return Ok(());
        }
        let connection = connection(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        if changed {
            return set_pragma(&connection, "journal_mode", "DELETE", "delete");
        }
        // The last one to close removes the log.
        Ok(connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_row| Ok(()))?)
    }
}

/// When the database and its log were last written, and how long they are.
fn stamps(path: &Path) -> [Option<(u64, SystemTime)>; 2] {
    [path, &beside(path, "-wal")].map(|path| {
        let metadata = fs::metadata(path).ok()?;
        Some((metadata.len(), metadata.modified().ok()?))
    })
}

fn is_wal(mut file: &File) -> io::Result<bool> {
    let (at, wal) = WRITE_VERSION;
    let mut version = [0];
    file.seek(SeekFrom::Start(at))?;
    Ok(file.read(&mut version)? == 1 && version == [wal])
}

/// Whether a database that was empty when it was opened holds nothing but what the open itself puts there.
fn is_unused(path: &Path) -> Result<bool, Error> {
    let connection = connection(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut tables = connection.prepare("SELECT type, name FROM sqlite_schema")?;
    let tables = tables.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let tables = tables.collect::<Result<Vec<(String, String)>, _>>()?;
    let made_by: i64 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    if made_by != ENGINE_APPLICATION_ID {
        return Ok(made_by == 0 && tables.is_empty());
    }
    for (_type, name) in tables.iter().filter(|(kind, _name)| kind == "table") {
        if connection.prepare(&format!("SELECT 1 FROM \"{}\"", name.replace('"', "\"\"")))?.exists([])? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// One that waits for nobody.
fn connection(path: &Path, flags: OpenFlags) -> Result<Connection, Error> {
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_EXRESCODE;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::ZERO)?;
    Ok(connection)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}
