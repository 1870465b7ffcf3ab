//! An open that fails leaves its folder as it found it: no journal mode that was changed, no database that was made, no
//! `-lock`, `-wal` or `-shm`; and it takes nothing away that somebody else has put there meanwhile.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use forebay::{Error, Writer, WriterOptions};
use rusqlite::Connection;
use tempfile::TempDir;

/// A folder, and the path of a database in it.
fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().canonicalize().expect("it is there").join("app.db");
    (folder, path)
}

/// Every file of the folder, with what is in it.
fn contents(folder: &TempDir) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder.path()).expect("a folder").map(|entry| entry.expect("an entry"));
    let named = entries.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path()));
    named.map(|(name, path)| (name, fs::read(path).expect("it is read"))).collect()
}

/// Fails on the connection with this number, the writer's being 0.
fn failing_on(number: usize) -> WriterOptions {
    let opened = AtomicUsize::new(0);
    WriterOptions::default().on_open(move |_connection| match opened.fetch_add(1, Ordering::SeqCst) {
        opened if opened == number => Err(Error::operation("not today")),
        _ => Ok(()),
    })
}

fn made_by_somebody(path: &Path, journal: &str) -> Connection {
    let connection = Connection::open(path).expect("it opens");
    let sql = format!("PRAGMA journal_mode = {journal}; CREATE TABLE t (n); INSERT INTO t VALUES (1)");
    connection.execute_batch(&sql).expect("it is made");
    connection
}

fn refused(folder: &TempDir, path: &Path, options: WriterOptions, what: &str) -> Error {
    let before = contents(folder);
    let error = options.open(path).expect_err(what);
    let after = contents(folder);
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>(), "{what}: {error}");
    assert!(before == after, "{what}: something was changed: {error}");
    error
}

/// Whichever connection it is that the function refuses.
#[test]
fn a_function_that_refuses_changes_no_file() {
    for number in 0..3 {
        for journal in ["DELETE", "WAL"] {
            let (folder, path) = place();
            drop(made_by_somebody(&path, journal));
            refused(&folder, &path, failing_on(number), &format!("{journal}, connection {number}"));
            let writer = Writer::open(&path).expect("it opens without it");
            writer.blocking_submit(|tx| tx.execute("INSERT INTO t VALUES (2)", [])).wait().expect("inserted");
            writer.blocking_close().expect("it closes");
        }
        let (folder, path) = place();
        refused(&folder, &path, failing_on(number), &format!("no file, connection {number}"));
        fs::write(&path, "").expect("written");
        refused(&folder, &path, failing_on(number), &format!("an empty file, connection {number}"));
        Writer::open(&path).expect("it opens without it").blocking_close().expect("it closes");
    }
}

#[test]
fn what_is_no_database_gets_no_lock_beside_it() {
    let (folder, path) = place();
    fs::write(&path, "Dear diary").expect("written");
    refused(&folder, &path, WriterOptions::default(), "a text");
    // One that was there stays: somebody else may be about to use it.
    fs::write(path.with_extension("db-lock"), "").expect("written");
    refused(&folder, &path, WriterOptions::default(), "a text beside a lock");
}

/// The database did not exist; while it is opened somebody else makes one of his own at its path.
#[test]
fn what_somebody_else_has_written_meanwhile_stays() {
    let (_folder, path) = place();
    let theirs = path.clone();
    let options = WriterOptions::default().on_open(move |_connection| {
        drop(made_by_somebody(&theirs, "DELETE"));
        Err(Error::operation("not today"))
    });
    options.open(&path).expect_err("it is refused");
    let found: i64 = Connection::open(&path)
        .and_then(|found| found.query_row("SELECT n FROM t", [], |row| row.get(0)))
        .expect("it is there");
    assert_eq!(found, 1);
}

/// The same, and he is reading an empty one.
#[test]
fn what_somebody_else_is_reading_stays() {
    let (_folder, path) = place();
    let theirs = path.clone();
    let reading = std::sync::Arc::new(Mutex::new(None));
    let reader = std::sync::Arc::clone(&reading);
    let options = WriterOptions::default().on_open(move |_connection| {
        let connection = Connection::open(&theirs)?;
        connection.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema")?;
        *reader.lock().expect("nobody panics") = Some(connection);
        Err(Error::operation("not today"))
    });
    options.open(&path).expect_err("it is refused");
    assert!(path.exists(), "it was removed under somebody");
    let connection = reading.lock().expect("nobody panics").take().expect("it was opened");
    connection.execute_batch("COMMIT; CREATE TABLE t (n)").expect("it is made");
    drop(connection);
    Writer::open(&path).expect("it opens").blocking_close().expect("it closes");
}

/// Two at once, of which one fails, again and again: the lock that the one removes is not the one the other has.
#[test]
fn opens_that_fail_take_nothing_from_those_that_do_not() {
    let (folder, path) = place();
    let opens = |options: fn() -> WriterOptions| {
        (0..100).filter(|_| options().open(&path).is_ok_and(|writer| writer.blocking_close().is_ok())).count()
    };
    let (failed, opened) = std::thread::scope(|scope| {
        let failing = scope.spawn(|| opens(|| failing_on(1)));
        let opening = scope.spawn(|| opens(WriterOptions::default));
        (failing.join().expect("no panic"), opening.join().expect("no panic"))
    });
    assert!(failed == 0 && opened > 0, "{failed} {opened}");
    assert!(contents(&folder).contains_key("app.db"));
}
