//! Each closure of a batch stands alone: its error, its broken constraint, its panic and its attempts to
//! break the batch reach its own caller, and nobody else notices.

mod writer_support;

use forebay::{Error, Writer};
use tempfile::TempDir;
use writer_support::hold;

fn open(folder: &TempDir) -> Writer {
    let writer = Writer::open(folder.path().join("app.db")).unwrap();
    let sql = "CREATE TABLE t (n INTEGER PRIMARY KEY, who TEXT NOT NULL)";
    writer.blocking_submit(move |tx| tx.execute_batch(sql)).wait().unwrap();
    writer
}

fn insert(writer: &Writer, n: i64) -> forebay::Ticket<usize> {
    writer.blocking_submit(move |tx| tx.execute("INSERT INTO t VALUES (?1, 'insert')", [n]))
}

fn rows(writer: &Writer) -> Vec<i64> {
    let read = writer.blocking_read(|conn| {
        let mut statement = conn.prepare("SELECT n FROM t ORDER BY n")?;
        let rows = statement.query_map([], |row| row.get(0))?;
        Ok::<_, Error>(rows.collect::<Result<_, _>>()?)
    });
    read.unwrap()
}

/// Submits `bad` between two good closures of the same batch and returns its error.
fn between_neighbours<T: Send + 'static + std::fmt::Debug>(
    bad: impl FnOnce(&rusqlite::Transaction<'_>) -> Result<T, Error> + Send + 'static,
) -> Error {
    let folder = tempfile::tempdir().unwrap();
    let writer = open(&folder);
    let batches = writer.stats().batches;
    let held = hold(&writer);
    let (before, bad, after) = (insert(&writer, 1), writer.blocking_submit(bad), insert(&writer, 3));
    held.release();
    assert_eq!(before.wait().unwrap(), 1);
    let error = bad.wait().unwrap_err();
    assert_eq!(after.wait().unwrap(), 1);
    assert_eq!(writer.stats().batches, batches + 2, "all three were to share a batch");
    assert_eq!(rows(&writer), [1, 3], "{error}");
    insert(&writer, 4).wait().unwrap();
    writer.blocking_close().unwrap();
    error
}

#[test]
fn an_error_of_its_own_undoes_one_closure_alone() {
    let error = between_neighbours(|tx| {
        tx.execute("INSERT INTO t VALUES (2, 'undone')", [])?;
        Err::<(), _>(Error::operation("changed my mind"))
    });
    assert!(
        matches!(&error, Error::Operation { .. }) && format!("{error:#}") == "changed my mind",
        "{error}"
    );
    assert!(!error.is_retryable());
}

#[test]
fn a_broken_constraint_undoes_one_closure_alone() {
    let error = between_neighbours(|tx| {
        tx.execute("INSERT INTO t VALUES (2, 'undone')", [])?;
        Ok(tx.execute("INSERT INTO t VALUES (1, 'duplicate')", [])?)
    });
    assert!(matches!(error, Error::Sqlite { .. }), "{error}");
}

#[test]
fn a_panic_undoes_one_closure_alone_and_reaches_its_caller() {
    let error = between_neighbours(|tx| {
        tx.execute("INSERT INTO t VALUES (2, 'undone')", [])?;
        if tx.last_insert_rowid() == 2 {
            panic!("on purpose: {}", 2);
        }
        Ok(())
    });
    assert!(matches!(&error, Error::Panicked { message, .. } if message == "on purpose: 2"), "{error}");
}

#[test]
fn a_deferred_foreign_key_undoes_one_closure_alone() {
    let error = between_neighbours(|tx| {
        tx.execute_batch(
            "CREATE TABLE child (parent INTEGER REFERENCES t (n) DEFERRABLE INITIALLY DEFERRED);
             INSERT INTO child VALUES (99);",
        )?;
        Ok(())
    });
    assert!(format!("{error:#}").contains("foreign key"), "{error}");
}

#[test]
fn a_closure_that_swallows_the_error_of_a_statement_keeps_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let writer = open(&folder);
    insert(&writer, 1).wait().unwrap();
    let ticket = writer.blocking_submit(|tx| {
        assert!(tx.execute("INSERT INTO t VALUES (1, 'duplicate')", []).is_err());
        tx.execute("INSERT INTO t VALUES (2, 'kept')", [])
    });
    assert_eq!(ticket.wait().unwrap(), 1);
    assert_eq!(rows(&writer), [1, 2]);
}

#[test]
fn what_would_break_the_batch_is_refused_by_name() {
    let forbidden = [
        ("COMMIT", "neither begin, commit nor roll back"),
        ("ROLLBACK", "neither begin, commit nor roll back"),
        ("BEGIN", "neither begin, commit nor roll back"),
        ("ATTACH ':memory:' AS other", "attach"),
        ("DETACH other", "attach"),
        ("PRAGMA journal_mode = DELETE", "journal_mode"),
        ("PRAGMA synchronous = OFF", "synchronous"),
        ("PRAGMA wal_checkpoint", "wal_checkpoint"),
        ("PRAGMA defer_foreign_keys = ON", "defer_foreign_keys"),
        ("RELEASE forebay_operation", "savepoint"),
        ("ROLLBACK TO forebay_operation", "savepoint"),
    ];
    for (sql, why) in forbidden {
        let error = between_neighbours(move |tx| {
            tx.execute("INSERT INTO t VALUES (2, 'undone')", [])?;
            Ok(tx.execute_batch(sql)?)
        });
        assert!(matches!(&error, Error::NotAllowed { reason, .. } if reason.contains(why)), "{sql}: {error}");
    }
}

#[test]
fn savepoints_and_reporting_pragmas_of_its_own_are_fine() {
    let folder = tempfile::tempdir().unwrap();
    let writer = open(&folder);
    let ticket = writer.blocking_submit(|tx| {
        tx.execute_batch(
            "SAVEPOINT mine; INSERT INTO t VALUES (1, 'undone'); ROLLBACK TO mine; RELEASE mine;
             INSERT INTO t VALUES (2, 'kept');",
        )?;
        let columns = tx.query_row("SELECT count(*) FROM pragma_table_info('t')", [], |row| row.get(0))?;
        tx.pragma_update(None, "user_version", 7)?;
        Ok::<i64, Error>(columns)
    });
    assert_eq!(ticket.wait().unwrap(), 2);
    assert_eq!(rows(&writer), [2]);
}

#[test]
fn on_conflict_rollback_costs_the_batch_and_tells_whose_fault_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let writer = open(&folder);
    insert(&writer, 1).wait().unwrap();
    let held = hold(&writer);
    let before = insert(&writer, 2);
    let bad = writer.blocking_submit(|tx| tx.execute("INSERT OR ROLLBACK INTO t VALUES (1, 'x')", []));
    let after = insert(&writer, 3);
    held.release();
    for ticket in [before, after] {
        let error = ticket.wait().unwrap_err();
        assert!(matches!(error, Error::RolledBack { .. }) && error.is_retryable(), "{error}");
    }
    // Again it would end the same way, and cost others theirs.
    let error = bad.wait().unwrap_err();
    assert!(!error.is_retryable() && format!("{error:#}").contains("with ABORT"), "{error}");
    assert_eq!(rows(&writer), [1]);
    insert(&writer, 2).wait().unwrap();
    assert_eq!(rows(&writer), [1, 2]);
}

#[test]
fn a_file_of_the_orchestration_engine_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("engine.db");
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.pragma_update(None, "application_id", 0x6662_6179).unwrap();
    connection.close().unwrap();
    let error = Writer::open(&path).unwrap_err();
    assert!(matches!(error, Error::ForeignDatabase { .. }), "{error}");
    assert!(
        format!("{error:#}").contains("engine.db") && format!("{error:#}").contains("Forebay::open"),
        "{error}"
    );
}
