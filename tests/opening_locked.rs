//! Somebody who knows nothing of forebay holds SQLite's own lock on the file while it is opened (a shell in a transaction, a
//! backup, `locking_mode = EXCLUSIVE`): an error of its own kind that says so, after two seconds or as long as
//! `WriterOptions::wait_for_owner` says; nothing was changed, and the next open works as soon as the lock is gone.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use forebay::{Error, WriterOptions};
use rusqlite::Connection;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);

/// Longer than a lock is waited for by default.
const LONG: Duration = Duration::from_millis(2500);

fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().canonicalize().expect("it is there").join("app.db");
    (folder, path)
}

/// The ways to hold the lock: the journal mode of the file, and what is done to hold it.
const WAYS: [(&str, &str); 5] = [
    ("DELETE", "BEGIN IMMEDIATE"),
    ("DELETE", "BEGIN; SELECT * FROM t"),
    ("DELETE", "PRAGMA locking_mode = EXCLUSIVE; UPDATE t SET n = 2"),
    ("WAL", "PRAGMA locking_mode = EXCLUSIVE; UPDATE t SET n = 2"),
    // A log that is found is written again, for which nobody else may write it.
    ("WAL", "UPDATE t SET n = 2; BEGIN IMMEDIATE"),
];

fn locked(path: &Path, (journal, lock): (&str, &str)) -> Connection {
    let connection = Connection::open(path).expect("it opens");
    let sql = format!("PRAGMA journal_mode = {journal}; CREATE TABLE t (n); INSERT INTO t VALUES (1)");
    connection.execute_batch(&sql).expect("it is made");
    drop(connection);
    let connection = Connection::open(path).expect("it opens");
    connection.execute_batch(lock).expect("the lock is free");
    connection
}

fn opening(path: &Path, options: WriterOptions) -> Receiver<Result<(), Error>> {
    let (sender, receiver) = mpsc::channel();
    let path = path.to_path_buf();
    std::thread::spawn(move || {
        let _ = sender.send(options.open(path).and_then(|writer| writer.blocking_close()));
    });
    receiver
}

#[test]
fn it_is_told_as_what_it_is_and_can_be_tried_again() {
    let tried: Vec<_> = WAYS
        .iter()
        .map(|way| {
            let (folder, path) = place();
            let connection = locked(&path, *way);
            (way, folder, opening(&path, WriterOptions::default()), path, connection)
        })
        .collect();
    for (way, _folder, opened, path, connection) in tried {
        let error = opened.recv_timeout(PATIENCE).expect("in time").expect_err("it is locked");
        let text = format!("{error:#}");
        for part in [&path.display().to_string(), "another", "SQLite's lock", "try again"] {
            assert!(text.contains(part), "{way:?}: {text} should say {part}");
        }
        assert!(matches!(error, Error::Locked { .. }) && error.is_retryable(), "{way:?}: {error:?}");
        assert!(std::error::Error::source(&error).is_some(), "{way:?}");
        assert!(!path.with_extension("db-lock").exists(), "{way:?}");
        drop(connection);
        let again = opening(&path, WriterOptions::default()).recv_timeout(PATIENCE).expect("in time");
        again.unwrap_or_else(|error| panic!("{way:?}: {error}"));
    }
}

#[test]
fn it_is_waited_for_as_long_as_an_owner_is() {
    let tried: Vec<_> = WAYS
        .iter()
        .map(|way| {
            let (folder, path) = place();
            let connection = locked(&path, *way);
            (way, folder, opening(&path, WriterOptions::default().wait_for_owner(PATIENCE)), connection)
        })
        .collect();
    let first = tried[0].2.recv_timeout(LONG);
    assert!(first.is_err(), "it did not wait: {first:?}");
    for (way, _folder, opened, connection) in tried {
        drop(connection);
        let opened = opened.recv_timeout(PATIENCE).expect("in time");
        opened.unwrap_or_else(|error| panic!("{way:?}: {error}"));
    }
}
