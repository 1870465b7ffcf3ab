//! The connections a `Writer` works with: `WriterOptions::on_open` runs on each of them and cannot undo what is promised, and
//! a reader's connection goes to the next one as it was.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use forebay::rusqlite::functions::FunctionFlags;
use forebay::rusqlite::limits::Limit;
use forebay::rusqlite::{self, Connection};
use forebay::{Error, Writer, WriterOptions};

fn pragma(connection: &Connection, name: &str) -> Result<i64, Error> {
    Ok(connection.pragma_query_value(None, name, |row| row.get(0))?)
}

fn seven(connection: &Connection) -> Result<(), Error> {
    connection.create_scalar_function("seven", 0, FunctionFlags::SQLITE_UTF8, |_context| Ok(7))?;
    connection.create_collation("backwards", |a, b| b.cmp(a))?;
    Ok(connection.execute_batch("PRAGMA foreign_keys = ON; PRAGMA trusted_schema = ON")?)
}

/// All that [`seven`] has set, and what forebay has.
fn look(connection: &Connection) -> Result<Vec<i64>, Error> {
    let sql = "SELECT seven() WHERE 'a' > 'b' COLLATE backwards";
    let mut found = vec![connection.query_row(sql, [], |row| row.get(0))?];
    for name in ["foreign_keys", "trusted_schema", "busy_timeout", "wal_autocheckpoint"] {
        found.push(pragma(connection, name)?);
    }
    Ok(found)
}

#[test]
fn on_open_runs_on_every_connection() {
    let folder = tempfile::tempdir().unwrap();
    let opened = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&opened);
    let options = WriterOptions::default().readers(2).on_open(move |connection| {
        counted.fetch_add(1, Ordering::SeqCst);
        connection.busy_timeout(Duration::ZERO)?;
        connection.prepare_cached("COMMIT")?;
        seven(connection)
    });
    let path = folder.path().join("app.db");
    let writer = options.clone().open(&path).unwrap();
    assert_eq!(writer.blocking_submit(|tx| look(tx)).wait().unwrap(), [7, 1, 1, 2000, 0]);
    let both = writer
        .blocking_read(|one| -> Result<_, Error> { Ok((look(one)?, writer.blocking_read(look)?)) })
        .unwrap();
    assert_eq!(both, (vec![7, 1, 1, 2000, 0], vec![7, 1, 1, 2000, 0]));
    assert_eq!(opened.load(Ordering::SeqCst), 3);
    writer.blocking_read(|conn| conn.execute_batch("CREATE TABLE t (n)")).unwrap_err();
    writer.blocking_submit(|tx| tx.execute_batch("CREATE TABLE t (n)")).wait().unwrap();
    let ended = writer.blocking_submit(|tx| tx.prepare_cached("COMMIT")?.execute([])).wait().unwrap_err();
    assert!(matches!(ended, Error::NotAllowed { .. }), "what on_open has prepared is not shared: {ended}");
    assert!(format!("{options:?}").contains("on_open: Some"));
    options.open(&path).unwrap();
    let error = Writer::open(&path).unwrap_err();
    assert!(format!("{error:#}").contains("on_open: given, none"), "{error}");
}

#[test]
fn on_open_cannot_undo_what_is_promised() {
    type OnOpen = fn(&Connection) -> Result<(), Error>;
    let cases: &[(&str, OnOpen)] = &[
        ("synchronous", |conn| Ok(conn.execute_batch("PRAGMA synchronous = OFF")?)),
        ("journal_mode", |conn| {
            Ok(conn.execute_batch("PRAGMA query_only = OFF; PRAGMA journal_mode = DELETE")?)
        }),
        ("wal_autocheckpoint", |conn| Ok(conn.execute_batch("PRAGMA wal_autocheckpoint = 10")?)),
        ("query_only", |conn| Ok(conn.execute_batch("PRAGMA query_only = OFF")?)),
        ("attached", |conn| Ok(conn.execute_batch("ATTACH ':memory:' AS other")?)),
        ("transaction", |conn| Ok(conn.execute_batch("BEGIN")?)),
        ("NO_CKPT_ON_CLOSE", |conn| {
            let config = rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
            let now = conn.db_config(config)?;
            Ok(conn.set_db_config(config, !now).map(drop)?)
        }),
        ("panicked", |_conn| std::panic::resume_unwind(Box::new("quietly"))),
    ];
    for (what, on_open) in cases {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        // In WAL mode, which a new file is not when it is called.
        Writer::open(&path).unwrap().blocking_close().unwrap();
        let error = WriterOptions::default().on_open(on_open).open(&path).unwrap_err();
        let refused =
            matches!(&error, Error::InvalidOption { option: "on_open", reason, .. } if reason.contains(what));
        assert!(refused, "{what}: {error}");
        // On a reader alone: the open is refused as well, and leaves nothing open.
        let opened = AtomicUsize::new(0);
        let options =
            WriterOptions::default().on_open(move |conn| match opened.fetch_add(1, Ordering::SeqCst) {
                0 => Ok(()),
                _ => on_open(conn),
            });
        let error = options.open(&path).unwrap_err();
        // The journal's mode cannot be changed beside another connection, and SQLite says so itself.
        let refused = matches!(&error, Error::InvalidOption { option: "on_open", .. });
        assert!(refused || *what == "journal_mode", "{what}: {error}");
        let writer = Writer::open(&path).unwrap();
        writer.blocking_submit(|tx| tx.execute_batch("CREATE TABLE t (n)")).wait().unwrap();
        writer.blocking_close().unwrap();
    }
}

/// Whoever reads the error knows which option of which open it is about, and finds what went wrong behind it.
#[test]
fn an_error_of_on_open_says_where_it_comes_from() {
    type OnOpen = fn(&Connection) -> Result<(), Error>;
    let cases: [(&str, OnOpen); 4] = [
        ("not today", |_conn| Err(Error::operation("not today"))),
        ("syntax error", |conn| Ok(conn.execute_batch("SELEKT 1")?)),
        ("query_only", |conn| Ok(conn.execute_batch("CREATE TABLE t (n)")?)),
        ("unable to open", |conn| Ok(conn.execute_batch("ATTACH '/no/such/folder/db' AS other")?)),
    ];
    for (what, on_open) in cases {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap().join("app.db");
        // The writer's connection, one of those opened ahead, and one that is opened when it is needed.
        for number in [0, 2, 9] {
            let opened = AtomicUsize::new(0);
            let on_open = move |conn: &Connection| match opened.fetch_add(1, Ordering::SeqCst) {
                opened if opened == number => on_open(conn),
                _ => Ok(()),
            };
            let error = match WriterOptions::default().readers(9).on_open(on_open).open(&path) {
                Ok(writer) => read_in_reads(&writer, 9),
                failed => failed.map(drop),
            };
            let error = error.unwrap_err();
            let text = format!("{error:#}");
            let says =
                ["`on_open`", &path.display().to_string(), what].iter().all(|part| text.contains(part));
            assert!(says && !text.contains("permissions"), "{number}: {text}");
            let source = std::error::Error::source(&error).unwrap();
            assert!(source.downcast_ref::<Error>().is_some(), "{number}: {text}");
            assert!(matches!(error, Error::OnOpen { .. }), "{number}: {error:?}");
        }
    }
}

/// Has as many connections open at once.
fn read_in_reads(writer: &Writer, connections: usize) -> Result<(), Error> {
    match connections {
        0 => Ok(()),
        _ => writer.blocking_read(|_conn| read_in_reads(writer, connections - 1)),
    }
}

/// Two functions cannot be compared, so a second open has to give the same one.
#[test]
fn another_on_open_is_not_taken_for_the_same() {
    fn by_name(_connection: &Connection) -> Result<(), Error> {
        Ok(())
    }
    let capturing = |n: i64| {
        WriterOptions::default().on_open(move |conn| {
            conn.create_scalar_function("n", 0, FunctionFlags::SQLITE_UTF8, move |_context| Ok(n))
        })
    };
    let plain = || WriterOptions::default().on_open(|_connection| Ok::<_, Error>(()));
    let refused = |open: WriterOptions, asked: WriterOptions| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        let _writer = open.open(&path).unwrap();
        asked.open(&path).err().map(|error| format!("{error:#}"))
    };
    let one = capturing(1);
    assert_eq!(refused(one.clone(), one), None, "a clone");
    assert_eq!(refused(plain(), plain()), None, "a closure that has captured nothing");
    assert_eq!(
        refused(WriterOptions::default().on_open(by_name), WriterOptions::default().on_open(by_name)),
        None
    );
    for (open, asked) in [(capturing(1), capturing(2)), (plain(), WriterOptions::default().on_open(by_name))]
    {
        let text = refused(open, asked).unwrap();
        assert!(
            text.contains("on_open: given, another one") && text.contains("clones of the same options"),
            "{text}"
        );
    }
}

#[test]
fn what_a_read_leaves_on_its_connection_does_not_reach_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let writer = WriterOptions::default().readers(1).open(folder.path().join("app.db")).unwrap();
    writer
        .blocking_submit(|tx| tx.execute_batch("CREATE TABLE t (n); INSERT INTO t VALUES (1), (2)"))
        .wait()
        .unwrap();
    type Read = fn(&Connection) -> Result<(), Error>;
    let cases: &[(&str, Read)] = &[
        ("query_only off", |conn| Ok(conn.execute_batch("PRAGMA query_only = OFF")?)),
        ("a temporary table", |conn| {
            Ok(conn
                .execute_batch("PRAGMA query_only = OFF; CREATE TEMP TABLE t (n); PRAGMA query_only = ON")?)
        }),
        ("an attached database", |conn| Ok(conn.execute_batch("ATTACH ':memory:' AS other")?)),
        ("an open transaction", |conn| Ok(conn.execute_batch("BEGIN; SELECT n FROM t")?)),
        ("limits", |conn| {
            conn.set_limit(Limit::SQLITE_LIMIT_LENGTH, 10)?;
            conn.set_limit(Limit::SQLITE_LIMIT_SQL_LENGTH, 1)?;
            Ok(())
        }),
        ("a busy timeout", |conn| Ok(conn.busy_timeout(Duration::ZERO)?)),
        ("an unfinished query", |conn| {
            let statement = Box::leak(Box::new(conn.prepare("SELECT n FROM t")?));
            let mut rows = statement.query([])?;
            assert!(rows.next()?.is_some());
            std::mem::forget(rows);
            Ok(())
        }),
        ("a panic", |conn| {
            conn.execute_batch("PRAGMA query_only = OFF")?;
            conn.set_limit(Limit::SQLITE_LIMIT_LENGTH, 10)?;
            std::panic::resume_unwind(Box::new("quietly"))
        }),
    ];
    let next = |conn: &Connection| {
        let count: i64 = conn.query_row("SELECT count(*) FROM t WHERE n < 100", [], |row| row.get(0))?;
        let databases: i64 =
            conn.query_row("SELECT count(*) FROM pragma_database_list WHERE name <> 'temp'", [], |row| {
                row.get(0)
            })?;
        let limit = i64::from(conn.limit(Limit::SQLITE_LIMIT_LENGTH)?);
        Ok::<_, Error>([count, databases, pragma(conn, "query_only")?, pragma(conn, "busy_timeout")?, limit])
    };
    let before = writer.blocking_read(next).unwrap();
    assert_eq!(before[..4], [2, 1, 1, 2000]);
    for (name, read) in cases {
        let left = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| writer.blocking_read(read)));
        assert!(
            left.is_err() == (*name == "a panic")
                && left.is_ok_and(|left| left.is_ok()) != (*name == "a panic")
        );
        assert_eq!(writer.blocking_read(next).unwrap(), before, "{name}");
        // A read that had gone on would not see what was written since.
        writer.blocking_submit(|tx| tx.execute_batch("INSERT INTO t VALUES (100)")).wait().unwrap();
        let count = "SELECT count(*) FROM t WHERE n = 100";
        let seen: i64 = writer.blocking_read(|conn| conn.query_row(count, [], |row| row.get(0))).unwrap();
        assert_eq!(seen, 1, "{name}");
        writer.blocking_submit(|tx| tx.execute_batch("DELETE FROM t WHERE n = 100")).wait().unwrap();
    }
    writer.blocking_close().unwrap();
}
