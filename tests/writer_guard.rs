//! Whatever a closure can reach through its `&Transaction`: each of it is refused, undone when the closure ends, or
//! harmless. A closure that makes its batch end, by whatever means, costs the batch and writes nothing after it.

mod writer_support;

use std::panic::resume_unwind;
use std::time::Duration;

use forebay::{Error, Ticket, Writer};
use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, Transaction, ffi};
use writer_support::hold;

type Closure = fn(&Transaction<'_>) -> Result<(), Error>;

enum Expected {
    /// Its caller is told why, its own row is undone.
    Refused(&'static str),
    /// It is done like any other closure; what it changed beyond rows is as before when the next one runs.
    Undone,
    /// Its caller hears of the panic, its own row is undone.
    Panicked,
    /// The whole batch did not happen.
    BatchRolledBack,
    /// The same, and the closure is told that it was the reason.
    BatchLostBy(&'static str),
}
use Expected::{BatchLostBy, BatchRolledBack, Panicked, Refused, Undone};

const TABLE: &str = "
    CREATE TABLE t (n INTEGER PRIMARY KEY, who TEXT NOT NULL DEFAULT 'somebody');
    CREATE TABLE unique_rows (n INTEGER PRIMARY KEY ON CONFLICT ROLLBACK);
    INSERT INTO unique_rows VALUES (1);
    CREATE TABLE guarded (n INTEGER);
    CREATE TRIGGER no_row BEFORE INSERT ON guarded BEGIN SELECT RAISE(ROLLBACK, 'no row here'); END;";

/// What a closure leaves alone, as the next one sees it.
fn surroundings(connection: &Connection) -> Result<Vec<String>, Error> {
    let mut found = Vec::new();
    for pragma in
        ["journal_mode", "synchronous", "foreign_keys", "busy_timeout", "trusted_schema", "query_only"]
    {
        let value =
            connection.pragma_query_value(None, pragma, |row| row.get::<_, rusqlite::types::Value>(0))?;
        found.push(format!("{pragma} {value:?}"));
    }
    for limit in [Limit::SQLITE_LIMIT_LENGTH, Limit::SQLITE_LIMIT_SQL_LENGTH, Limit::SQLITE_LIMIT_ATTACHED] {
        found.push(format!("{limit:?} {}", connection.limit(limit)?));
    }
    for config in [
        DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE,
        DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER,
        DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW,
        DbConfig::SQLITE_DBCONFIG_DEFENSIVE,
        DbConfig::SQLITE_DBCONFIG_WRITABLE_SCHEMA,
        DbConfig::SQLITE_DBCONFIG_RESET_DATABASE,
    ] {
        found.push(format!("{config:?} {}", connection.db_config(config)?));
    }
    let temporary = "SELECT count(*) FROM sqlite_temp_schema";
    found.push(format!("temporary {}", connection.query_row(temporary, [], |row| row.get::<_, i64>(0))?));
    Ok(found)
}

fn insert(writer: &Writer, n: i64) -> Ticket<Vec<String>> {
    writer.blocking_submit(move |tx| {
        assert_eq!(tx.prepare_cached("INSERT INTO t (n) VALUES (?1)")?.execute([n])?, 1);
        surroundings(tx)
    })
}

fn rows(connection: &Connection) -> Result<Vec<i64>, Error> {
    let mut statement = connection.prepare("SELECT n FROM main.t ORDER BY n")?;
    let rows = statement.query_map([], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Runs a closure between two others in one batch, then one more, and holds the file against what they heard.
fn check(name: &str, closure: Closure, expected: &Expected) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let writer = Writer::open(&path).unwrap();
    writer.blocking_submit(|tx| tx.execute_batch(TABLE)).wait().unwrap();
    let before = insert(&writer, 100).wait().unwrap();
    let held = hold(&writer);
    let first = insert(&writer, 1);
    let odd = writer.blocking_submit(move |tx| {
        tx.execute("INSERT INTO t (n) VALUES (2)", [])?;
        closure(tx)
    });
    let last = insert(&writer, 3);
    held.release();
    let (first, odd, last) = (first.wait(), odd.wait(), last.wait());
    let in_file: &[i64] = match expected {
        Undone => {
            odd.unwrap_or_else(|error| panic!("{name}: {error}"));
            &[1, 2, 3]
        }
        Refused(why) => {
            let error = odd.expect_err(name);
            let refused = matches!(&error, Error::NotAllowed { reason, .. } if reason.contains(why));
            assert!(refused, "{name}: {error}");
            &[1, 3]
        }
        Panicked => {
            let error = odd.expect_err(name);
            assert!(matches!(error, Error::Panicked { .. }), "{name}: {error}");
            &[1, 3]
        }
        BatchRolledBack | BatchLostBy(_) => {
            for answer in [first.as_ref().err(), last.as_ref().err()] {
                let error = answer.unwrap_or_else(|| panic!("{name}: acknowledged"));
                assert!(matches!(error, Error::RolledBack { .. }), "{name}: {error}");
            }
            let error = odd.expect_err(name);
            match expected {
                BatchLostBy(why) => {
                    let its_own = matches!(&error, Error::NotAllowed { reason, .. } if reason.contains(why));
                    assert!(its_own && !error.is_retryable(), "{name}: {error}");
                }
                _ => assert!(matches!(error, Error::RolledBack { .. }), "{name}: {error}"),
            }
            &[]
        }
    };
    if !matches!(expected, BatchRolledBack | BatchLostBy(_)) {
        assert_eq!(first.unwrap(), before, "{name}");
        assert_eq!(last.unwrap(), before, "{name}: the neighbour behind it");
    }
    let next = insert(&writer, 101).wait().unwrap_or_else(|error| panic!("{name}: next batch: {error}"));
    assert_eq!(next, before, "{name}: the next batch");
    let in_file: Vec<i64> = in_file.iter().copied().chain([100, 101]).collect();
    assert_eq!(writer.blocking_read(rows).unwrap(), in_file, "{name}");
    writer.blocking_close().unwrap_or_else(|error| panic!("{name}: closing: {error}"));
    assert_eq!(rows(&Connection::open(&path).unwrap()).unwrap(), in_file, "{name}: in the file");
}

/// Goes on after an error, as a closure may.
fn swallow<T>(result: rusqlite::Result<T>) {
    assert!(result.is_err());
}

const SHARED: &str = "shares its transaction";

#[test]
fn cached_statements_cannot_end_the_batch() {
    let cases: &[(&str, Closure, Expected)] = &[
        ("a cached COMMIT", |tx| run_cached(tx, &["COMMIT"]), Refused(SHARED)),
        ("a cached ROLLBACK", |tx| run_cached(tx, &["ROLLBACK"]), Refused(SHARED)),
        ("a cached BEGIN", |tx| run_cached(tx, &["BEGIN IMMEDIATE"]), Refused(SHARED)),
        ("a cached SAVEPOINT", |tx| run_cached(tx, &["SAVEPOINT forebay_operation"]), Refused("savepoint")),
        (
            "a cached ROLLBACK TO",
            |tx| run_cached(tx, &["ROLLBACK TO forebay_operation"]),
            Refused("savepoint"),
        ),
        ("a cached RELEASE", |tx| run_cached(tx, &["RELEASE forebay_operation"]), Refused("savepoint")),
        (
            "a cached ROLLBACK, then a cached SAVEPOINT",
            |tx| run_cached(tx, &["ROLLBACK", "SAVEPOINT forebay_operation"]),
            Refused(SHARED),
        ),
        (
            "a cached COMMIT whose refusal is swallowed",
            |tx| {
                swallow(tx.prepare_cached("COMMIT").and_then(|mut statement| statement.execute([])));
                Ok(())
            },
            Undone,
        ),
        (
            "an empty statement cache",
            |tx| {
                tx.set_prepared_statement_cache_capacity(0);
                tx.flush_prepared_statement_cache();
                Ok(())
            },
            Undone,
        ),
    ];
    for (name, closure, expected) in cases {
        check(name, *closure, expected);
    }
}

fn run_cached(tx: &Transaction<'_>, statements: &[&str]) -> Result<(), Error> {
    for sql in statements {
        tx.prepare_cached(sql)?.execute([])?;
    }
    Ok(())
}

#[test]
fn nothing_is_written_after_a_batch_has_ended() {
    let cases: &[(&str, Closure, Expected)] = &[
        (
            "INSERT OR ROLLBACK",
            |tx| {
                swallow(tx.execute("INSERT OR ROLLBACK INTO t (n) VALUES (2)", []));
                swallow(tx.execute("INSERT INTO t (n) VALUES (50)", []));
                Ok(())
            },
            BatchRolledBack,
        ),
        (
            "a column that rolls back",
            |tx| {
                swallow(tx.execute("INSERT INTO unique_rows VALUES (1)", []));
                swallow(tx.execute_batch("CREATE TABLE late (n)"));
                swallow(tx.execute("INSERT INTO t (n) VALUES (50)", []));
                Ok(())
            },
            BatchRolledBack,
        ),
        (
            "RAISE(ROLLBACK)",
            |tx| {
                swallow(tx.execute("INSERT INTO guarded VALUES (1)", []));
                swallow(tx.prepare_cached("INSERT INTO t (n) VALUES (?1)")?.execute([50]));
                Ok(())
            },
            BatchRolledBack,
        ),
        (
            "a transaction of its own afterwards",
            |tx| {
                swallow(tx.execute("INSERT INTO guarded VALUES (1)", []));
                swallow(tx.execute_batch("SAVEPOINT mine; INSERT INTO t (n) VALUES (50); RELEASE mine"));
                Ok(())
            },
            BatchRolledBack,
        ),
        (
            "a transaction of its own afterwards, left open",
            |tx| {
                swallow(tx.execute("INSERT INTO guarded VALUES (1)", []));
                Ok(tx.execute_batch("SAVEPOINT mine; INSERT INTO t (n) VALUES (50)")?)
            },
            BatchRolledBack,
        ),
        (
            "a blob written afterwards",
            |tx| {
                swallow(tx.execute("INSERT INTO guarded VALUES (1)", []));
                let mut blob = tx.blob_open("main", "t", "who", 100, false)?;
                std::io::Write::write_all(&mut blob, b"s0mebody")
                    .map_err(|e| Error::operation(e.to_string()))?;
                let _ = blob.close();
                Ok(())
            },
            BatchRolledBack,
        ),
        (
            "an error that is handed on",
            |tx| Ok(tx.execute("INSERT INTO guarded VALUES (1)", []).map(drop)?),
            BatchLostBy("with ABORT"),
        ),
        (
            "a panic",
            |tx| {
                swallow(tx.execute("INSERT INTO guarded VALUES (1)", []));
                resume_unwind(Box::new("quietly"))
            },
            BatchLostBy("with ABORT"),
        ),
    ];
    for (name, closure, expected) in cases {
        check(name, *closure, expected);
    }
}

#[test]
fn what_a_closure_leaves_on_the_connection_is_refused_or_undone() {
    let cases: &[(&str, Closure, Expected)] = &[
        ("a limit", |tx| Ok(tx.set_limit(Limit::SQLITE_LIMIT_LENGTH, 10).map(drop)?), Undone),
        (
            "a limit of statements",
            |tx| Ok(tx.set_limit(Limit::SQLITE_LIMIT_SQL_LENGTH, 5).map(drop)?),
            Undone,
        ),
        (
            "configuration",
            |tx| {
                tx.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
                tx.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
                tx.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false)?;
                tx.set_db_config(DbConfig::SQLITE_DBCONFIG_WRITABLE_SCHEMA, true)?;
                tx.set_db_config(DbConfig::SQLITE_DBCONFIG_RESET_DATABASE, true)?;
                tx.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
                Ok(())
            },
            Undone,
        ),
        ("a busy timeout", |tx| Ok(tx.busy_timeout(Duration::ZERO)?), Undone),
        (
            "a temporary table over one of the file",
            |tx| Ok(tx.execute_batch("CREATE TEMP TABLE t (n)")?),
            Refused("temporary"),
        ),
        (
            "a temporary view",
            |tx| Ok(tx.execute_batch("CREATE TEMP VIEW t AS SELECT 7 AS n")?),
            Refused("temporary"),
        ),
        (
            "a temporary trigger",
            |tx| {
                let sql =
                    "CREATE TEMP TRIGGER shadow BEFORE INSERT ON main.t BEGIN SELECT RAISE(IGNORE); END";
                Ok(tx.execute_batch(sql)?)
            },
            Refused("temporary"),
        ),
        (
            "a temporary virtual table",
            |tx| Ok(tx.execute_batch("CREATE VIRTUAL TABLE temp.t USING fts5(n)")?),
            Refused("temporary"),
        ),
        (
            "a temporary table that is dropped again",
            |tx| {
                Ok(tx.execute_batch(
                    "CREATE TEMP TABLE work (n); INSERT INTO work VALUES (1); DROP TABLE work",
                )?)
            },
            Undone,
        ),
        (
            "the engine's mark on the file",
            |tx| Ok(tx.pragma_update(None, "application_id", 0x6662_6179)?),
            Refused("application_id"),
        ),
        (
            "the engine's mark, in other digits",
            |tx| Ok(tx.execute_batch("PRAGMA application_id = '0x66626179'")?),
            Refused("application_id"),
        ),
        ("a mark of its own", |tx| Ok(tx.pragma_update(None, "application_id", 77)?), Undone),
        (
            "the version of the schema",
            |tx| Ok(tx.pragma_update(None, "schema_version", 1)?),
            Refused("schema_version"),
        ),
        (
            "VACUUM when the batch has ended",
            |tx| {
                swallow(tx.execute("INSERT INTO guarded VALUES (1)", []));
                swallow(tx.execute_batch("VACUUM"));
                Ok(())
            },
            BatchRolledBack,
        ),
        (
            "a query that is never finished",
            |tx| {
                let statement = Box::leak(Box::new(tx.prepare("SELECT n FROM t")?));
                let mut rows = statement.query([])?;
                assert!(rows.next()?.is_some());
                std::mem::forget(rows);
                Ok(())
            },
            Undone,
        ),
        (
            "an insert that is never finished",
            |tx| {
                let statement =
                    Box::leak(Box::new(tx.prepare("INSERT INTO guarded SELECT 1 WHERE 0 RETURNING n")?));
                let mut rows = statement.query([])?;
                let _ = rows.next()?;
                std::mem::forget(rows);
                Ok(())
            },
            Undone,
        ),
        (
            "a blob that is never closed",
            |tx| {
                let mut blob = tx.blob_open("main", "t", "who", 2, false)?;
                std::io::Write::write_all(&mut blob, b"someb0dy")
                    .map_err(|e| Error::operation(e.to_string()))?;
                std::mem::forget(blob);
                Ok(())
            },
            Undone,
        ),
        (
            "an interrupt",
            |tx| {
                tx.get_interrupt_handle().interrupt();
                Ok(())
            },
            Undone,
        ),
        (
            "a panic whose payload panics when it is dropped",
            |_tx| {
                struct Payload;
                impl Drop for Payload {
                    fn drop(&mut self) {
                        resume_unwind(Box::new("dropped"));
                    }
                }
                resume_unwind(Box::new(Payload))
            },
            Panicked,
        ),
        ("savepoints left open", |tx| Ok(tx.execute_batch("SAVEPOINT a; SAVEPOINT b")?), Undone),
    ];
    for (name, closure, expected) in cases {
        check(name, *closure, expected);
    }
}

/// What `Connection::authorizer(None)` and its like do, for which a `&Connection` is enough up to rusqlite 0.40.
#[allow(unsafe_code)]
fn remove_hook(tx: &Transaction<'_>, hook: &str) {
    let none = std::ptr::null_mut();
    // SAFETY: the handle is valid while the transaction is borrowed, and no callback is registered.
    unsafe {
        let handle = tx.handle();
        match hook {
            "authorizer" => drop(ffi::sqlite3_set_authorizer(handle, None, none)),
            "commit" => drop(ffi::sqlite3_commit_hook(handle, None, none)),
            _ => drop(ffi::sqlite3_rollback_hook(handle, None, none)),
        }
    }
}

/// No closure can be kept from it there, so the writer says that it does not know, and goes no further.
#[test]
fn a_closure_that_takes_the_guards_away_fails_the_writer() {
    for hooks in [&["authorizer"][..], &["commit"], &["rollback"], &["authorizer", "commit", "rollback"]] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        let writer = Writer::open(&path).unwrap();
        writer.blocking_submit(|tx| tx.execute_batch(TABLE)).wait().unwrap();
        insert(&writer, 100).wait().unwrap();
        let held = hold(&writer);
        let first = insert(&writer, 1);
        let odd = writer.blocking_submit(move |tx| {
            hooks.iter().for_each(|hook| remove_hook(tx, hook));
            // With all of them gone this commits what the first has written.
            let _ = tx.execute_batch("COMMIT; BEGIN IMMEDIATE; SAVEPOINT forebay_operation");
            Ok::<_, Error>(())
        });
        let last = insert(&writer, 3);
        held.release();
        for error in [first.wait().unwrap_err(), odd.wait().unwrap_err(), last.wait().unwrap_err()] {
            assert!(matches!(error, Error::OutcomeUnknown { .. }), "{hooks:?}: {error}");
            assert!(format!("{error:#}").contains("took away the hooks"), "{hooks:?}: {error}");
        }
        assert!(matches!(insert(&writer, 4).wait(), Err(Error::Failed { .. })), "{hooks:?}");
        assert!(matches!(writer.blocking_close(), Err(Error::Failed { .. })), "{hooks:?}");
        let found = rows(&Connection::open(&path).unwrap()).unwrap();
        assert!(found == [100] || (hooks.len() == 3 && found == [1, 100]), "{hooks:?}: {found:?}");
    }
}

/// SQLite tells nobody that a function was added, so it is not taken away: it stays on the writer's connection.
#[test]
fn functions_and_collations_stay_where_they_were_made() {
    let folder = tempfile::tempdir().unwrap();
    let writer = Writer::open(folder.path().join("app.db")).unwrap();
    let made = writer.blocking_submit(|tx| {
        let flags = rusqlite::functions::FunctionFlags::SQLITE_UTF8;
        tx.create_scalar_function("seven", 0, flags, |_context| Ok(7))?;
        tx.create_collation("backwards", |a, b| b.cmp(a))
    });
    made.wait().unwrap();
    let used = writer.blocking_submit(|tx| {
        tx.query_row("SELECT seven() WHERE 'a' > 'b' COLLATE backwards", [], |row| row.get::<_, i64>(0))
    });
    assert_eq!(used.wait().unwrap(), 7);
    writer.blocking_read(|conn| conn.prepare("SELECT seven()").map(drop)).unwrap_err();
}

#[test]
fn pragmas_that_report_and_virtual_tables_are_a_closures_to_use() {
    let folder = tempfile::tempdir().unwrap();
    let writer = Writer::open(folder.path().join("app.db")).unwrap();
    let names = writer.blocking_read(|conn| {
        let mut statement = conn.prepare("SELECT name FROM pragma_pragma_list ORDER BY name")?;
        let names = statement.query_map([], |row| row.get::<_, String>(0))?;
        names.collect::<rusqlite::Result<Vec<_>>>()
    });
    let names = names.unwrap();
    assert!(names.len() > 50, "{names:?}");
    for name in names {
        let does = ["wal_checkpoint", "incremental_vacuum"].contains(&name.as_str());
        let sql = format!("PRAGMA {name}");
        let answer = writer.blocking_submit(move |tx| {
            let mut statement = tx.prepare(&sql)?;
            let mut rows = statement.query([])?;
            while rows.next()?.is_some() {}
            Ok::<_, Error>(())
        });
        let answer = answer.wait();
        assert_eq!(matches!(answer, Err(Error::NotAllowed { .. })), does, "{name}: {answer:?}");
        assert!(does || answer.is_ok(), "{name}: {answer:?}");
    }
    let tables = writer.blocking_submit(|tx| {
        tx.execute_batch(
            "CREATE VIRTUAL TABLE boxes USING rtree(id, low, high);
             INSERT INTO boxes VALUES (1, 0, 10), (2, 20, 30);
             CREATE VIRTUAL TABLE texts USING fts5(body);
             INSERT INTO texts VALUES ('one fish'), ('two birds');
             INSERT INTO texts (texts) VALUES ('optimize');
             CREATE VIRTUAL TABLE older USING fts4(body);
             INSERT INTO older VALUES ('three fish');
             INSERT INTO older (older) VALUES ('rebuild');",
        )
    });
    tables.wait().unwrap();
    // And after a batch of its own, one that fails and one that does not.
    let failed = writer.blocking_submit(|tx| {
        tx.execute_batch(
            "INSERT INTO texts VALUES ('no fish'); INSERT INTO boxes VALUES (3, 0, 1); DROP TABLE older",
        )?;
        Err::<(), _>(Error::operation("changed my mind"))
    });
    failed.wait().unwrap_err();
    let found = writer.blocking_submit(|tx| {
        let sql = "SELECT (SELECT count(*) FROM texts WHERE texts MATCH 'fish')
                        + 10 * (SELECT count(*) FROM older WHERE older MATCH 'fish')
                        + 100 * (SELECT count(*) FROM boxes WHERE low < 25)";
        let found: i64 = tx.query_row(sql, [], |row| row.get(0))?;
        tx.execute_batch("DROP TABLE texts; DROP TABLE boxes; DROP TABLE older")?;
        Ok::<_, Error>(found)
    });
    assert_eq!(found.wait().unwrap(), 211);
    writer.blocking_close().unwrap();
}

#[test]
fn pragmas_that_set_something_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let writer = Writer::open(folder.path().join("app.db")).unwrap();
    for pragma in [
        "synchronous = OFF",
        "foreign_keys = ON",
        "page_size = 512",
        "wal_checkpoint(TRUNCATE)",
        "query_only = 1",
    ] {
        let answer = writer.blocking_submit(move |tx| tx.execute_batch(&format!("PRAGMA {pragma}")));
        let error = answer.wait().unwrap_err();
        assert!(matches!(&error, Error::NotAllowed { .. }), "{pragma}: {error}");
    }
}
