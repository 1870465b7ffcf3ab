//! What the documentation promises of the writing connection, read back from it.

#![cfg(feature = "duroxide")]

mod engine_support;

use engine_support::Place;
use forebay::{Durability, Error, Forebay, Options};

fn pragma(forebay: &Forebay, name: &'static str) -> String {
    use rusqlite::types::Value;
    let read = move |connection: &rusqlite::Connection| {
        connection.pragma_query_value(None, name, |row| row.get::<_, Value>(0))
    };
    match forebay.on_writer_connection(read).expect("the engine runs").expect("the pragma is read") {
        Value::Integer(number) => number.to_string(),
        Value::Text(text) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_file_is_written_through_a_log_that_only_the_engine_checkpoints() {
    for durability in [Durability::Full, Durability::Normal] {
        let place = Place::new();
        let options = Options::default().durability(durability).cache_bytes(4 << 20).wal_bytes_max(1 << 20);
        let forebay = place.open(options);
        let expected = [
            ("journal_mode", "wal"),
            // Commits wait for the disk at neither; at `Full` those who are told of them do.
            ("synchronous", "1"),
            ("wal_autocheckpoint", "0"),
            ("journal_size_limit", "2097152"),
            ("cache_size", "-4096"),
            ("temp_store", "2"),
            ("trusted_schema", "0"),
            ("query_only", "0"),
            ("application_id", "1717723513"),
            ("user_version", "3"),
        ];
        for (name, value) in expected {
            assert_eq!(pragma(&forebay, name), value, "{name} at {durability:?}");
        }
        forebay.close().expect("it closes");
        assert_eq!(place.wal_bytes(), 0, "the log is cut to nothing");
    }
}

#[test]
fn memory_needs_a_journal_to_roll_back_and_nothing_else() {
    let forebay = Forebay::in_memory().expect("it opens");
    assert_eq!(pragma(&forebay, "journal_mode"), "memory");
    assert_eq!(pragma(&forebay, "synchronous"), "0");
}

#[test]
fn on_open_runs_on_the_engines_connections_and_cannot_take_back_what_is_promised() {
    let place = Place::new();
    let options = Options::default()
        .on_open(|conn| conn.execute_batch("PRAGMA mmap_size = 0; PRAGMA case_sensitive_like = 1"));
    let forebay = place.open(options);
    let like =
        |conn: &rusqlite::Connection| conn.query_row("SELECT 'a' LIKE 'A'", [], |row| row.get::<_, bool>(0));
    assert!(!forebay.on_writer_connection(like).expect("the engine runs").expect("it is asked"));
    assert_eq!(pragma(&forebay, "query_only"), "0");
    forebay.close().expect("it closes");
    let relaxed = Options::default().on_open(|conn| conn.execute_batch("PRAGMA synchronous = OFF"));
    let error = relaxed.open(place.path()).expect_err("nothing is promised any more");
    assert!(matches!(error, Error::InvalidOption { option: "on_open", .. }), "{error}");
}
