//! The folder of one file and the copies of it that are looked at, so that looking leaves no trace for the
//! child that comes next.

use std::path::PathBuf;

use tempfile::TempDir;

pub(crate) struct Scratch {
    folder: TempDir,
    copies: usize,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder for the database"), copies: 0 }
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.folder.path().join("app.db")
    }

    /// The database and its log as they are, under another name. Nobody has it open.
    pub(crate) fn copy(&mut self) -> PathBuf {
        self.copies += 1;
        let folder = self.folder.path().join(format!("copy {}", self.copies));
        std::fs::create_dir(&folder).expect("a folder for the copy");
        for name in ["app.db", "app.db-wal"] {
            let from = self.folder.path().join(name);
            // A child that died early has not got there.
            if from.exists() {
                std::fs::copy(from, folder.join(name)).expect("it can be copied");
            }
        }
        folder.join("app.db")
    }
}
