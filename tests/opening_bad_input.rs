//! What cannot be opened is refused with an error that names the path and the way out, and is left byte for
//! byte as it was, files beside it included; no file comes, not even a `-lock`.

#![cfg(feature = "duroxide")]

mod engine_support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use engine_support::{HOUR, Place, Turn, activity, assert_says, begin, enqueue_work};
use forebay::{Error, Forebay, Options, WriterOptions};
use rusqlite::Connection;
use rusqlite::config::DbConfig;

/// Every file in the folder, but for the lock that stays with a database of this crate.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).expect("the folder is there").map(|entry| entry.expect("an entry"));
    let files = entries.filter(|entry| entry.file_type().expect("a type").is_file());
    let named = files.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path()));
    let kept = named.filter(|(name, _)| !name.ends_with("-lock"));
    kept.map(|(name, path)| (name, fs::read(path).expect("a file that can be read"))).collect()
}

/// Opens, expects an error and that nothing has changed in the folder.
fn refused(place: &Place, path: &Path) -> Error {
    let before = contents(place.folder.path());
    let error = Forebay::open(path).expect_err(&format!("{} is refused", path.display()));
    let after = contents(place.folder.path());
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&before), names(&after), "files came or went: {error}");
    for (name, bytes) in &before {
        assert!(after[name] == *bytes, "{name} was changed: {error}");
    }
    error
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// A database of this crate, closed, with something in every table.
fn own_database(place: &Place) {
    own_database_with(place, Options::default());
}

fn own_database_with(place: &Place, options: Options) {
    let forebay = place.open(options);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        begin(&forebay, "order", Turn::first("order")).await;
        for id in 0..200 {
            enqueue_work(&forebay, activity("order", id)).await;
        }
    });
    forebay.close().expect("it closes");
}

#[test]
fn a_missing_folder_is_named() {
    let place = Place::new();
    let path = place.file("missing/app.db");
    let error = refused(&place, &path);
    assert!(
        matches!(&error, Error::MissingFolder { folder, .. } if *folder == place.file("missing")),
        "{error}"
    );
    assert_says(&error, &[&shown(&place.file("missing")), "create it"]);
    assert!(!place.file("missing").exists());
}

#[test]
fn a_file_where_the_folder_should_be() {
    let place = Place::new();
    fs::write(place.file("file"), "not a folder").expect("written");
    for path in ["file/app.db", "file/folder/app.db"] {
        let error = refused(&place, &place.file(path));
        assert!(
            matches!(&error, Error::NotAFolder { folder, .. } if *folder == place.file("file")),
            "{error:?}"
        );
        assert_says(&error, &[&shown(&place.file("file")), "is not a folder", "another path"]);
    }
}

#[test]
fn a_directory() {
    let place = Place::new();
    fs::create_dir(place.path()).expect("made");
    for path in [place.path(), place.path().join(".."), place.file("app.db/"), "/".into()] {
        let error = refused(&place, &path);
        assert!(matches!(&error, Error::NotAFile { kind: "a directory", .. }), "{error:?}");
        assert_says(&error, &[&shown(&path), "is a directory", "give it a file"]);
    }
}

/// What ends as the name of a directory is not taken for that of a file, there or not.
#[test]
fn the_name_of_a_directory() {
    let place = Place::new();
    fs::write(place.file("file"), "").expect("written");
    for path in ["new.db/", "new.db/.", "file/"] {
        let error = refused(&place, &place.file(path));
        assert!(matches!(&error, Error::NotAFile { .. }), "{path}: {error:?}");
        assert_says(&error, &["name of a directory"]);
    }
}

#[test]
fn no_path_at_all() {
    let error = Forebay::open("").expect_err("no path at all");
    assert!(matches!(&error, Error::NotAFile { .. }), "{error:?}");
    assert_says(&error, &["\"\" is an empty path", "give it"]);
}

#[test]
fn files_that_are_no_databases() {
    let place = Place::new();
    let garbage: Vec<u8> = (0..20_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let header_only = b"SQLite format 3\0".to_vec();
    // Not of one byte: SQLite takes that for an empty file.
    let kinds: [(&str, &[u8]); 4] =
        [("garbage", &garbage), ("short", b"hello"), ("zeroes", &[0; 8192]), ("header_only", &header_only)];
    for (name, bytes) in kinds {
        let path = place.file(name);
        fs::write(&path, bytes).expect("written");
        let error = refused(&place, &path);
        assert!(
            matches!(&error, Error::NotADatabase { path: found, .. } if *found == path),
            "{name}: {error}"
        );
        assert_says(&error, &[&shown(&path), "open another path", "restore"]);
    }
}

#[test]
fn a_database_that_was_cut_short() {
    let place = Place::new();
    own_database(&place);
    let whole = fs::read(place.path()).expect("it is there");
    for (name, length) in [("half", whole.len() / 2), ("a_page", 4096), ("torn", 5000), ("header", 60)] {
        let path = place.file(name);
        fs::write(&path, &whole[..length]).expect("written");
        let error = refused(&place, &path);
        assert!(matches!(error, Error::NotADatabase { .. }), "{name}: {error}");
        assert_says(&error, &[&shown(&path), "or it is damaged", "restore"]);
    }
}

/// Damage that only shows when the queues are loaded is still an error of opening.
#[test]
fn a_database_with_a_damaged_page() {
    let place = Place::new();
    own_database(&place);
    damage(&place);
    let error = refused(&place, &place.path());
    assert!(matches!(error, Error::NotADatabase { .. }), "{error:?}");
    assert_says(&error, &[&shown(&place.path()), "restore"]);
}

/// By then a copy that `VACUUM INTO` made, say, has been put into WAL mode: it is put back.
#[test]
fn a_database_with_a_damaged_page_and_a_rollback_journal() {
    let place = Place::new();
    own_database(&place);
    let connection = Connection::open(place.path()).expect("SQLite opens it");
    connection.pragma_update(None, "journal_mode", "DELETE").expect("it takes that");
    drop(connection);
    damage(&place);
    let versions = || fs::read(place.path()).expect("it is read")[18..20].to_vec();
    assert_eq!(versions(), [1, 1]);
    let error = Forebay::open(place.path()).expect_err("it is damaged");
    assert!(matches!(error, Error::NotADatabase { .. }), "{error:?}");
    assert_eq!(versions(), [1, 1], "it is in WAL mode for good");
    assert_eq!(contents(place.folder.path()).keys().collect::<Vec<_>>(), ["app.db"]);
}

/// Overwrites the first page of the queue of activities.
fn damage(place: &Place) {
    let connection = Connection::open(place.path()).expect("SQLite opens it");
    let sql = "SELECT rootpage FROM sqlite_schema WHERE name = 'work'";
    let root: u32 = connection.query_row(sql, [], |row| row.get(0)).expect("the table is there");
    let page: u32 = connection.pragma_query_value(None, "page_size", |row| row.get(0)).expect("it has one");
    let (root, page) = (root as usize, page as usize);
    drop(connection);
    let mut bytes = fs::read(place.path()).expect("it is there");
    bytes[(root - 1) * page..root * page].fill(0xA5);
    fs::write(place.path(), bytes).expect("written");
}

/// What duroxide's own provider makes, as far as it takes to recognise it.
const REFERENCE: &str = "
    CREATE TABLE instances (instance_id TEXT PRIMARY KEY, orchestration_name TEXT NOT NULL);
    CREATE TABLE executions (instance_id TEXT NOT NULL, execution_id INTEGER NOT NULL);
    CREATE TABLE history (instance_id TEXT NOT NULL, event_id INTEGER NOT NULL, event_data TEXT NOT NULL);
    CREATE TABLE orchestrator_queue (id INTEGER PRIMARY KEY AUTOINCREMENT, work_item TEXT NOT NULL);
    CREATE TABLE worker_queue (id INTEGER PRIMARY KEY AUTOINCREMENT, work_item TEXT NOT NULL);
    CREATE TABLE instance_locks (instance_id TEXT PRIMARY KEY, lock_token TEXT NOT NULL);
    CREATE TABLE sessions (session_id TEXT PRIMARY KEY, worker_id TEXT NOT NULL);
    CREATE TABLE kv_store (instance_id TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL);
    CREATE TABLE kv_delta (instance_id TEXT NOT NULL, key TEXT NOT NULL, value TEXT);
    INSERT INTO instances VALUES ('order', 'Orders');";

fn made_by(place: &Place, sql: &str) -> Connection {
    let connection = Connection::open(place.path()).expect("SQLite makes it");
    connection.execute_batch(sql).expect("the tables are made");
    connection
}

#[test]
fn a_database_of_the_reference_provider() {
    for journal in ["DELETE", "WAL"] {
        let place = Place::new();
        drop(made_by(&place, &format!("PRAGMA journal_mode = {journal}; {REFERENCE}")));
        let error = refused(&place, &place.path());
        assert!(matches!(error, Error::ForeignDatabase { .. }), "{error}");
        assert_says(&error, &[&shown(&place.path()), "duroxide's SqliteProvider", "new path"]);
    }
}

#[test]
fn a_database_of_somebody_else() {
    let kinds = [
        ("CREATE TABLE notes (text TEXT)", "another application"),
        ("PRAGMA application_id = 252006674", "0x0f055112"),
        ("CREATE TABLE instances (id TEXT); CREATE TABLE history (id TEXT)", "another application"),
        ("CREATE TABLE worker_queue (id TEXT)", "another application"),
    ];
    for (sql, whose) in kinds {
        let place = Place::new();
        drop(made_by(&place, sql));
        let error = refused(&place, &place.path());
        assert!(matches!(error, Error::ForeignDatabase { .. }), "{sql}: {error}");
        assert_says(&error, &[&shown(&place.path()), whose, "new path"]);
    }
}

/// A crash of its owner left it with a write-ahead log: looking at it must not move that log.
#[test]
fn somebody_elses_write_ahead_log_is_left_alone() {
    let place = Place::new();
    let connection = made_by(&place, &format!("PRAGMA journal_mode = WAL; {REFERENCE}"));
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).expect("it takes that");
    drop(connection);
    fs::remove_file(place.file("app.db-shm")).expect("a crash leaves it, a reboot does not");
    assert!(place.wal_bytes() > 0, "the log is still there");

    let before = contents(place.folder.path());
    let error = Forebay::open(place.path()).expect_err("it is refused");
    assert_says(&error, &["duroxide's SqliteProvider"]);
    let after = contents(place.folder.path());
    for name in ["app.db", "app.db-wal"] {
        assert!(after.get(name) == before.get(name), "{name} was changed or removed");
    }
}

#[test]
fn a_newer_format_is_refused_by_number() {
    let place = Place::new();
    own_database(&place);
    let connection = Connection::open(place.path()).expect("SQLite opens it");
    let format: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).expect("a number");
    connection.pragma_update(None, "user_version", format + 6).expect("it takes that");
    drop(connection);

    let error = refused(&place, &place.path());
    assert!(matches!(error, Error::NewerFormat { found, supported, .. }
        if found == format + 6 && supported == format));
    let numbers = [format!("format {}", format + 6), format!("up to {format}")];
    assert_says(&error, &[&shown(&place.path()), &numbers[0], &numbers[1], "newer forebay"]);
}

#[test]
fn a_file_that_may_not_be_written() {
    let place = Place::new();
    own_database(&place);
    let permissions = |mode| fs::set_permissions(place.path(), fs::Permissions::from_mode(mode));
    permissions(0o444).expect("they can be set");
    let error = refused(&place, &place.path());
    assert!(matches!(&error, Error::ReadOnly { path, .. } if *path == place.path()), "{error}");
    assert_says(&error, &[&shown(&place.path()), "permissions"]);

    permissions(0o644).expect("they can be set");
    Forebay::open(place.path()).expect("the way out works").close().expect("it closes");
}

#[test]
fn options_out_of_their_range_are_refused_with_name_value_and_range() {
    let place = Place::new();
    let kinds = [
        ("batch_ops_max", "0", "1 to 1048576 op", Options::default().batch_ops_max(0)),
        ("batch_ops_max", "18446744073709551615", "1 to", Options::default().batch_ops_max(usize::MAX)),
        ("batch_bytes_max", "0", "1 to 1073741824 bytes", Options::default().batch_bytes_max(0)),
        ("batch_bytes_max", "1073741825", "1 to", Options::default().batch_bytes_max((1 << 30) + 1)),
        ("commit_delay", "86400s", "0ns to 3600s", Options::default().commit_delay(HOUR * 24)),
        ("buffer_ops_max", "0", "1 to 1048576 op", Options::default().buffer_ops_max(0)),
        ("buffer_ops_max", "1048577", "1 to", Options::default().buffer_ops_max((1 << 20) + 1)),
        ("readers", "0", "1 to 256 connections", Options::default().readers(0)),
        ("readers", "5000", "1 to 256 connections", Options::default().readers(5000)),
        ("wal_bytes_max", "1", "16384 to 68719476736 bytes", Options::default().wal_bytes_max(1)),
        ("wal_bytes_max", "18446744073709551615", "16384 to", Options::default().wal_bytes_max(u64::MAX)),
        ("record_bytes_max", "1", "1024 to 268435456 bytes", Options::default().record_bytes_max(1)),
        ("record_bytes_max", "1099511627776", "1024 to", Options::default().record_bytes_max(1 << 40)),
        ("cache_bytes", "0", "1024 to 1099511627776 bytes", Options::default().cache_bytes(0)),
    ];
    for (name, value, range, options) in kinds {
        let in_memory = (name != "readers").then(|| options.clone().in_memory().err());
        for error in [Some(options.open(place.path()).err()), in_memory].into_iter().flatten() {
            let error = error.unwrap_or_else(|| panic!("{name} = {value} is taken"));
            assert!(matches!(error, Error::InvalidOption { option, .. } if option == name), "{error}");
            assert_says(&error, &[&format!("`{name}`"), &format!(" {value} "), range]);
        }
    }
    let writers = [
        ("batch_ops_max", WriterOptions::default().batch_ops_max(0)),
        ("batch_bytes_max", WriterOptions::default().batch_bytes_max(0)),
        ("commit_delay", WriterOptions::default().commit_delay(HOUR * 24)),
        ("buffer_ops_max", WriterOptions::default().buffer_ops_max(0)),
        ("readers", WriterOptions::default().readers(0)),
        ("wal_bytes_max", WriterOptions::default().wal_bytes_max(1)),
        ("cache_bytes", WriterOptions::default().cache_bytes(0)),
    ];
    for (name, options) in writers {
        let error = options.open(place.path()).expect_err(name);
        assert!(matches!(error, Error::InvalidOption { option, .. } if option == name), "{error}");
    }
    assert!(contents(place.folder.path()).is_empty(), "nothing was made");
}

/// The ends of the ranges work, and what is not used is not looked at.
#[test]
fn options_at_the_ends_of_their_ranges_work() {
    let least = Options::default().batch_ops_max(1).batch_bytes_max(1).buffer_ops_max(1).readers(1);
    let least = least.wal_bytes_max(16 << 10).record_bytes_max(1 << 10).cache_bytes(1 << 10);
    let most = Options::default().batch_ops_max(1 << 20).batch_bytes_max(1 << 30).buffer_ops_max(1 << 20);
    let most = most.readers(256).wal_bytes_max(64 << 30).record_bytes_max(256 << 20).cache_bytes(1 << 40);
    // A batch of one is full, and waits for nobody.
    for options in [least.clone(), most.clone(), least.commit_delay(HOUR), most.wait_for_owner(Duration::MAX)]
    {
        let place = Place::new();
        own_database_with(&place, options.clone());
        options.readers(0).in_memory().expect("there are none in memory").close().expect("it closes");
    }
}

/// The largest value of every option either works or is refused; none of them panics.
#[test]
fn options_at_their_largest() {
    let kinds = [
        ("batch_ops_max", Options::default().batch_ops_max(usize::MAX)),
        ("batch_bytes_max", Options::default().batch_bytes_max(usize::MAX)),
        ("commit_delay", Options::default().commit_delay(std::time::Duration::MAX).batch_ops_max(1)),
        ("buffer_ops_max", Options::default().buffer_ops_max(usize::MAX)),
        ("readers", Options::default().readers(usize::MAX)),
        ("wal_bytes_max", Options::default().wal_bytes_max(u64::MAX)),
        ("cache_bytes", Options::default().cache_bytes(usize::MAX)),
    ];
    let mut failed = Vec::new();
    for (name, options) in kinds {
        let place = Place::new();
        let path = place.path();
        let tried = std::thread::spawn(move || match options.open(path) {
            Ok(forebay) => forebay.on_writer_connection(|_| ()).and_then(|()| forebay.close()),
            Err(Error::InvalidOption { option, .. }) if option == name => Ok(()),
            Err(other) => Err(other),
        });
        match tried.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => failed.push(format!("{name}: {error:#}")),
            Err(_panic) => failed.push(format!("{name}: panicked")),
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn an_empty_file_is_fine() {
    let place = Place::new();
    fs::write(place.path(), "").expect("written");
    own_database(&place);
    Forebay::open(place.path()).expect("it opens again");
}

/// A database that was opened and closed by SQLite alone, before anything was put into it.
#[test]
fn a_database_without_tables_is_fine() {
    let place = Place::new();
    drop(made_by(&place, "PRAGMA journal_mode = WAL; CREATE TABLE t (x); DROP TABLE t"));
    Forebay::open(place.path()).expect("nobody made anything in it");
}
