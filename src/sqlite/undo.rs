//! Takes back what an open has made when it fails: the database if there was none, its log, its journal mode.
//!
//! What can refuse an open comes before anything is changed, so there is mostly an empty file to be removed. All of this
//! happens while the file is owned, so that no other process with this crate in it is there. One that uses SQLite alone
//! may be: so nothing is removed that anybody has locked, or has put anything into.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
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
        if let Err(error) = self.try_restore(held) {
            let path = held.path().display();
            let error = format!("{error:#}");
            tracing::warn!(error, %path, "what a failed open has made could not be removed");
        }
    }

    fn try_restore(&self, held: &HeldFile) -> Result<(), Error> {
        let path = held.path();
        let failed = |error| Error::io(format!("removing what was made of {}", path.display()), error);
        let Some(file) = held.file() else { return Ok(()) };
        if held.id().is_none() || id_at(path).map_err(failed)? != held.id() {
            return Ok(());
        }
        match self.database {
            Was::Missing | Was::Empty => {
                let is_empty = || Ok(file.metadata()?.len() == 0);
                // SQLite locks nothing that is empty without writing to it, for which there may be no room.
                let excluded = if is_empty().map_err(failed)? { held.exclude_everybody() } else { None };
                if let Some(excluded) = excluded {
                    let _excluded = excluded.map_err(failed)?;
                    // Looked at again, now that nobody can write.
                    if is_empty().map_err(failed)? {
                        self.remove(path, file).map_err(failed)?;
                    }
                } else {
                    let alone = Alone::with(path)?;
                    if alone.finds_nothing_in_it()? {
                        self.remove(path, file).map_err(failed)?;
                    }
                }
            }
            Was::Full { wal } => {
                let changed = !wal && is_wal(file).map_err(failed)?;
                let [had_log, ..] = self.beside;
                if !had_log && (changed || beside(path, "-wal").exists()) {
                    let alone = Alone::with(path)?;
                    // Where there is no room, this makes some.
                    self.remove_beside(path, &["-shm"]).map_err(failed)?;
                    alone.leave_no_log(changed)?;
                }
            }
        }
        Ok(())
    }

    /// Removes the database, or what is in it, and what is beside it.
    fn remove(&self, path: &Path, file: &File) -> io::Result<()> {
        self.remove_beside(path, &BESIDE)?;
        match self.database {
            Was::Missing => fs::remove_file(path),
            _ if file.metadata()?.len() == 0 => Ok(()),
            _ => file.set_len(0),
        }
    }

    /// Removes those that were not there.
    fn remove_beside(&self, path: &Path, suffixes: &[&str]) -> io::Result<()> {
        for (suffix, was_there) in BESIDE.iter().zip(self.beside) {
            if suffixes.contains(suffix) && !was_there {
                remove_if_there(&beside(path, suffix))?;
            }
        }
        Ok(())
    }
}

/// A connection that has the database for itself: nobody else reads it, writes it, or has its `-shm`, which this
/// one does not need either.
struct Alone(Connection);

impl Alone {
    /// An error if somebody else is there; waits for nobody.
    fn with(path: &Path) -> Result<Self, Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_EXRESCODE;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(Duration::ZERO)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        set_pragma(&connection, "locking_mode", "EXCLUSIVE", "exclusive")?;
        // The lock stays.
        connection.execute_batch("BEGIN EXCLUSIVE; COMMIT")?;
        Ok(Self(connection))
    }

    /// Whether a database that was empty when it was opened holds no more than what the open itself puts there.
    fn finds_nothing_in_it(&self) -> Result<bool, Error> {
        let mut found = self.0.prepare("SELECT type, name FROM sqlite_schema")?;
        let found = found.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let found = found.collect::<Result<Vec<(String, String)>, _>>()?;
        let made_by: i64 = self.0.query_row("PRAGMA application_id", [], |row| row.get(0))?;
        if made_by != ENGINE_APPLICATION_ID {
            return Ok(made_by == 0 && found.is_empty());
        }
        for (_kind, table) in found.iter().filter(|(kind, _name)| kind == "table") {
            let table = table.replace('"', "\"\"");
            if self.0.prepare(&format!("SELECT 1 FROM \"{table}\""))?.exists([])? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Moves what little there is of a log into the database, and removes it; and with it the mode that has one.
    fn leave_no_log(self, nor_its_mode: bool) -> Result<(), Error> {
        self.0.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
        if nor_its_mode { set_pragma(&self.0, "journal_mode", "DELETE", "delete") } else { Ok(()) }
    }
}

fn is_wal(mut file: &File) -> io::Result<bool> {
    let (at, wal) = WRITE_VERSION;
    let mut version = [0];
    file.seek(SeekFrom::Start(at))?;
    Ok(file.read(&mut version)? == 1 && version == [wal])
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}
