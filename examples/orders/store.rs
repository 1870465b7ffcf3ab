//! All of the example that concerns forebay: open it, hand it to duroxide, read its counters, close it.
//!
//! Also the files around a database, because `--fresh` deletes them.

use std::ffi::OsString;
use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use duroxide::providers::Provider;
use forebay::{Forebay, Options, Stats};

use crate::Error;
use crate::args::Durability;

pub struct Store {
    forebay: Forebay,
}

impl Store {
    pub fn open(path: &Path, durability: Durability) -> Result<Store, Error> {
        let durability = match durability {
            Durability::Full => forebay::Durability::Full,
            Durability::Normal => forebay::Durability::Normal,
        };
        let forebay = Options::default()
            .durability(durability)
            .open(path)
            .map_err(|error| format!("cannot open {}: {error}", path.display()))?;
        Ok(Store { forebay })
    }

    /// The same engine for the runtime and for every client: a handle is cheap to clone.
    pub fn provider(&self) -> Arc<dyn Provider> {
        Arc::new(self.forebay.clone())
    }

    pub fn stats(&self) -> Stats {
        self.forebay.stats()
    }

    pub fn close(self) -> Result<(), Error> {
        Ok(self.forebay.close()?)
    }
}

/// The database and what may lie beside it.
fn files(path: &Path) -> [PathBuf; 4] {
    ["", "-wal", "-shm", "-lock"].map(|suffix| {
        let mut file = OsString::from(path);
        file.push(suffix);
        PathBuf::from(file)
    })
}

/// A log without its database counts: SQLite would take it for the log of the new one.
pub fn exists(path: &Path) -> bool {
    let [database, wal, ..] = files(path);
    database.exists() || wal.exists()
}

pub fn create_parent(path: &Path) -> Result<(), Error> {
    match path.parent() {
        Some(parent) => fs::create_dir_all(parent)
            .map_err(|error| format!("cannot create {}: {error}", parent.display()).into()),
        None => Ok(()),
    }
}

/// Deletes the database and its companions, unless the path looks like a mistake: not a database at all,
/// or one that is open in another process.
pub fn delete(path: &Path) -> Result<(), Error> {
    if !is_database(path) {
        return Err(format!("{} is not a SQLite database, so --fresh leaves it alone", path.display()).into());
    }
    // Opening takes forebay's lock, which is refused while another process has the file.
    Store::open(path, Durability::Full)
        .and_then(Store::close)
        .map_err(|error| format!("--fresh deletes only what it can open itself first: {error}"))?;
    for file in files(path) {
        match fs::remove_file(&file) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(format!("cannot delete {}: {error}", file.display()).into());
            }
            _ => {}
        }
    }
    Ok(())
}

/// An absent or empty file is a database that holds nothing yet.
fn is_database(path: &Path) -> bool {
    let mut head = Vec::new();
    match fs::File::open(path).map(|file| file.take(16).read_to_end(&mut head)) {
        Ok(Ok(_)) => head.is_empty() || head == b"SQLite format 3\0",
        Ok(Err(_)) => false,
        Err(error) => error.kind() == ErrorKind::NotFound,
    }
}
