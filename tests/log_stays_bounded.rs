//! The write-ahead log under reads of this process: it stays within twice `wal_bytes_max`.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use forebay::{Error, Options, Writer};

const WAL_BYTES_MAX: u64 = 1 << 20;

fn log_bytes(path: &Path) -> u64 {
    std::fs::metadata(path.with_extension("db-wal")).map_or(0, |metadata| metadata.len())
}

/// Commits one after another, 16 MiB of log in all, and looks at the log after each.
fn write(writer: &Writer, path: &Path) -> u64 {
    let mut largest = 0;
    for _ in 0..400 {
        let row = |tx: &rusqlite::Transaction<'_>| {
            tx.execute("INSERT INTO t VALUES (zeroblob(40000))", [])?;
            Ok(())
        };
        writer.submit(row).wait().unwrap();
        largest = largest.max(log_bytes(path));
    }
    largest
}

fn opened(path: &Path) -> Writer {
    let writer = Writer::open(path, Options::default().wal_bytes_max(WAL_BYTES_MAX)).unwrap();
    writer.submit(|tx| Ok(tx.execute_batch("CREATE TABLE t (b BLOB)")?)).wait().unwrap();
    writer
}

fn count(connection: &rusqlite::Connection) -> Result<i64, Error> {
    Ok(connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0))?)
}

#[test]
fn while_two_threads_read_without_a_pause() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let writer = opened(&path);
    let stop = AtomicBool::new(false);
    let largest = std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let held = |connection: &rusqlite::Connection| {
                        let mut statement = connection.prepare("SELECT 1 FROM t")?;
                        let mut rows = statement.query([])?;
                        let _ = rows.next()?;
                        std::thread::sleep(Duration::from_millis(1));
                        Ok(())
                    };
                    writer.read(held).unwrap();
                }
            });
        }
        let largest = write(&writer, &path);
        stop.store(true, Ordering::Relaxed);
        largest
    });
    assert!(largest <= 2 * WAL_BYTES_MAX, "{largest} bytes");
}

#[test]
fn while_one_read_does_not_end_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let writer = opened(&path);
    writer.submit(|tx| Ok(tx.execute("INSERT INTO t VALUES (x'01')", [])?)).wait().unwrap();
    let (entered, inside) = std::sync::mpsc::channel();
    let largest = std::thread::scope(|scope| {
        let read = scope.spawn(|| {
            writer.read(|connection| {
                count(connection)?;
                entered.send(()).unwrap();
                let endless = "WITH RECURSIVE c(n) AS (SELECT 1 FROM t UNION ALL SELECT n + 1 FROM c) SELECT max(n) FROM c";
                Ok(connection.query_row(endless, [], |row| row.get::<_, Option<i64>>(0))?)
            })
        });
        inside.recv().unwrap();
        let largest = write(&writer, &path);
        let error = read.join().unwrap().expect_err("it never ends by itself");
        assert!(matches!(error, Error::ReadInterrupted { .. }) && error.is_retryable(), "{error}");
        largest
    });
    assert!(largest <= 2 * WAL_BYTES_MAX, "{largest} bytes");
}
