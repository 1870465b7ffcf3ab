//! The write-ahead log under reads of this process: it stays within twice `wal_bytes_max`.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use forebay::{Error, Writer, WriterOptions};

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
            Ok::<_, Error>(())
        };
        writer.blocking_submit(row).wait().unwrap();
        largest = largest.max(log_bytes(path));
    }
    largest
}

fn opened(path: &Path) -> Writer {
    let writer = WriterOptions::default().wal_bytes_max(WAL_BYTES_MAX).open(path).unwrap();
    writer.blocking_submit(|tx| tx.execute_batch("CREATE TABLE t (b BLOB)")).wait().unwrap();
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
                        Ok::<_, Error>(())
                    };
                    writer.blocking_read(held).unwrap();
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
    writer.blocking_submit(|tx| tx.execute("INSERT INTO t VALUES (x'01')", [])).wait().unwrap();
    let (entered, inside) = std::sync::mpsc::channel();
    let largest = std::thread::scope(|scope| {
        let read = scope.spawn(|| {
            writer.blocking_read(|connection| -> Result<_, Error> {
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

/// It cannot be interrupted while it sleeps: writes are refused until it ends, and the log stays as it is.
#[test]
fn while_a_read_sleeps_with_a_statement_open() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let writer = opened(&path);
    writer.blocking_submit(|tx| tx.execute("INSERT INTO t VALUES (x'01')", [])).wait().unwrap();
    let ((entered, inside), (end, ended)) = (std::sync::mpsc::channel(), std::sync::mpsc::channel::<()>());
    std::thread::scope(|scope| {
        let writer = &writer;
        scope.spawn(move || {
            let asleep = |connection: &rusqlite::Connection| {
                let mut statement = connection.prepare("SELECT 1 FROM t")?;
                let mut rows = statement.query([])?;
                let _ = rows.next()?;
                entered.send(()).unwrap();
                let _ = ended.recv();
                Ok::<_, Error>(())
            };
            writer.blocking_read(asleep).unwrap();
        });
        inside.recv().unwrap();
        let insert =
            || writer.blocking_submit(|tx| tx.execute("INSERT INTO t VALUES (zeroblob(40000))", [])).wait();
        let refused = (0..400).find_map(|_| insert().err()).expect("the log would outgrow its bound");
        assert!(
            refused.is_retryable() && format!("{refused:#}").contains("a read has been running"),
            "{refused:#}"
        );
        assert!(log_bytes(&path) <= 2 * WAL_BYTES_MAX, "{} bytes", log_bytes(&path));
        end.send(()).unwrap();
        let began = Instant::now();
        while let Err(error) = insert() {
            assert!(error.is_retryable() && began.elapsed() < Duration::from_secs(60), "{error}");
        }
    });
    assert!(log_bytes(&path) <= 2 * WAL_BYTES_MAX, "{} bytes", log_bytes(&path));
}

/// What the runtime asks for every minute, asked for all the time.
#[cfg(feature = "duroxide")]
#[test]
fn while_the_engine_is_asked_for_its_metrics_without_a_pause() {
    use duroxide::providers::{Provider, ProviderAdmin, WorkItem};
    for durability in [forebay::Durability::Full, forebay::Durability::Normal] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        let options = forebay::Options::default().wal_bytes_max(WAL_BYTES_MAX).durability(durability);
        let store = options.open(&path).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        runtime.block_on(async {
            let asking = tokio::spawn({
                let store = store.clone();
                async move {
                    loop {
                        store.get_system_metrics().await.unwrap();
                    }
                }
            });
            for n in 0..400 {
                let data = "x".repeat(40_000);
                let item =
                    WorkItem::ExternalRaised { instance: format!("order {n}"), name: "bell".into(), data };
                store.enqueue_for_orchestrator(item, None).await.unwrap();
                assert!(
                    log_bytes(&path) <= 2 * WAL_BYTES_MAX,
                    "{} bytes at {durability:?}",
                    log_bytes(&path)
                );
            }
            asking.abort();
        });
        store.close().unwrap();
    }
}

/// The process that is killed in the next test: this binary once more.
#[test]
fn the_one_that_is_killed() {
    let Some(path) = std::env::var_os("FOREBAY_KILLED") else { return };
    let writer = WriterOptions::default().wal_bytes_max(WAL_BYTES_MAX).open(path).unwrap();
    for n in 0.. {
        let row = |tx: &rusqlite::Transaction<'_>| {
            tx.execute_batch("CREATE TABLE IF NOT EXISTS t (b BLOB)")?;
            tx.execute("INSERT INTO t VALUES (zeroblob(40000))", [])?;
            Ok::<_, Error>(())
        };
        writer.blocking_submit(row).wait().unwrap();
        if n == 15 {
            println!("\nwritten");
        }
    }
}

/// A log that is found when a database is opened counts: it does not grow by each process that is killed.
#[test]
fn over_a_crash_loop() {
    use std::io::{BufRead, BufReader};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    for _ in 0..8 {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_one_that_is_killed", "--nocapture", "--test-threads=1"])
            .env("FOREBAY_KILLED", &path)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let written = lines.map_while(Result::ok).any(|line| line == "written");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(written, "it ended by itself");
        assert!(log_bytes(&path) <= 2 * WAL_BYTES_MAX, "{} bytes", log_bytes(&path));
    }
    let writer = WriterOptions::default().wal_bytes_max(WAL_BYTES_MAX).open(&path).unwrap();
    assert_eq!(log_bytes(&path), 0, "it is in the database");
    assert!(writer.blocking_read(count).unwrap() >= 8 * 16);
    writer.blocking_close().unwrap();
}
