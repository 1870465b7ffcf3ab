//! Files that earlier builds wrote open, are brought up to date in one transaction, and lose nothing.

#![cfg(feature = "duroxide")]

mod engine_support;

use std::path::Path;

use duroxide::EventKind;
use duroxide::providers::{Provider, ProviderAdmin};
use engine_support::{
    Place, START_MS, Turn, begin, bounded, continued, enqueue, event, fetch, fetch_work, fetch_work_as,
    heard, raised, routed, started_event,
};
use forebay::clock::ManualClock;
use forebay::{Error, Forebay, Options};
use rusqlite::Connection;

/// What the file holds: an instance that has ended in its second execution, one that runs and waits for two
/// activities and a message, and a history that was appended by hand.
async fn write(forebay: &Forebay) {
    let mut first = Turn::starting("done", 1).ending("ContinuedAsNew");
    first.history.push(heard("done", 2, "x"));
    first.messages.push(continued("done", "{}"));
    begin(forebay, "done", first).await;
    let second = fetch(forebay).await.expect("it continues");
    let turn = Turn::starting("done", 2).ending("Completed");
    bounded(turn.ack(forebay, &second.token)).await.expect("it is taken");

    let mut first = Turn::first("runs");
    first.history.push(event("runs", 1, 2, EventKind::CustomStatusUpdated { status: Some("half".into()) }));
    let set = EventKind::KeyValueSet { key: "k".into(), value: "v".into(), last_updated_at_ms: START_MS };
    first.history.push(event("runs", 1, 3, set));
    first.work.extend([routed("runs", 4, None, None), routed("runs", 5, Some("s"), None)]);
    begin(forebay, "runs", first).await;
    enqueue(forebay, raised("runs", "bell")).await;
    let rest = Turn::of(1, vec![heard("runs", 6, "y"), heard("runs", 7, "z")]);
    let turn = fetch(forebay).await.expect("it was rung");
    bounded(rest.ack(forebay, &turn.token)).await.expect("it is taken");
    enqueue(forebay, raised("runs", "bell")).await;

    let by_hand = vec![started_event("by hand", 1)];
    bounded(forebay.append_with_execution("by hand", 1, by_hand)).await.expect("it is taken");
}

/// `tests/golden/format_*.sql` is what the last build of each format made of [`write`].
fn old_file(place: &Place, format: i64) {
    let sql = match format {
        1 => include_str!("golden/format_1.sql"),
        _ => include_str!("golden/format_2.sql"),
    };
    let connection = Connection::open(place.path()).expect("it opens");
    connection.execute_batch(sql).expect("it is SQL");
    connection.pragma_update(None, "application_id", 0x6662_6179).expect("it is set");
    connection.pragma_update(None, "user_version", format).expect("it is set");
}

/// The tables of a file as SQLite was told to make them.
fn tables(path: &Path) -> Vec<String> {
    let connection = Connection::open(path).expect("it opens");
    let sql = "SELECT replace(sql, char(34), '') FROM sqlite_schema WHERE type = 'table' ORDER BY name";
    let mut statement = connection.prepare(sql).expect("a query");
    statement.query_map([], |row| row.get(0)).expect("rows").collect::<Result<_, _>>().expect("rows")
}

fn format_of(path: &Path) -> i64 {
    let connection = Connection::open(path).expect("it opens");
    connection.pragma_query_value(None, "user_version", |row| row.get(0)).expect("it has a format")
}

/// Everything that `write` wrote, but for the times of events, which are those of the machine that wrote them.
async fn content(forebay: &Forebay) -> Vec<String> {
    let mut content = Vec::new();
    for instance in ["done", "runs", "by hand"] {
        for execution in [1, 2] {
            let events = bounded(forebay.read_with_execution(instance, execution)).await.expect("it decodes");
            content.extend(
                events.iter().map(|it| format!("{instance} {execution} {} {:?}", it.event_id, it.kind)),
            );
        }
        let values = bounded(forebay.get_kv_all_values(instance)).await.expect("they are read");
        let status = bounded(forebay.get_custom_status(instance, 0)).await.expect("it is read");
        content.push(format!("{values:?} {status:?}"));
    }
    for instance in bounded(forebay.list_instances()).await.expect("they are listed") {
        let info = bounded(forebay.get_instance_info(&instance)).await.expect("it is there");
        content.push(format!("{instance} {} {} {:?}", info.current_execution_id, info.status, info.output));
    }
    content
}

#[tokio::test]
async fn a_file_of_an_older_format_is_brought_up_to_date_and_goes_on() {
    for format in [1, 2] {
        is_brought_up_to_date_and_goes_on(format).await;
    }
}

async fn is_brought_up_to_date_and_goes_on(format: i64) {
    let (old, new) = (Place::new(), Place::new());
    old_file(&old, format);
    let options = || Options::default().clock(ManualClock::new(START_MS));
    let (upgraded, fresh) = (old.open(options()), new.open(options()));
    write(&fresh).await;
    let expected = content(&fresh).await;
    assert!(expected.len() > 12, "{expected:?}");
    assert_eq!(content(&upgraded).await, expected);

    let turn = fetch(&upgraded).await.expect("the message waits");
    assert_eq!((turn.item.instance.as_str(), turn.item.history_error), ("runs", None));
    assert_eq!(turn.item.history.len(), 5);
    assert_eq!(turn.item.messages, [raised("runs", "bell")]);
    let more = Turn::of(1, vec![heard("runs", 8, "w")]).ending("Completed");
    bounded(more.ack(&upgraded, &turn.token)).await.expect("it is taken");
    let plain = fetch_work(&upgraded).await.expect("an activity waits");
    let of_session = fetch_work_as(&upgraded, "w").await.expect("and another");
    assert_eq!(
        [plain.item, of_session.item],
        [routed("runs", 4, None, None), routed("runs", 5, Some("s"), None)]
    );
    upgraded.close().expect("it closes");
    fresh.close().expect("it closes");

    assert_eq!([format_of(&old.path()), format_of(&new.path())], [3, 3]);
    assert_eq!(tables(&old.path()), tables(&new.path()));
    let again = old.open(options());
    assert_eq!(bounded(again.read("runs")).await.expect("it decodes").len(), 6);
    again.close().expect("it closes");
}

/// What is damaged is no reason to refuse the rest, and stays as it was found. A file that only says that it is of
/// format 1 is not made worse.
#[tokio::test]
async fn only_what_is_intact_and_of_the_older_format_is_changed() {
    let place = Place::new();
    old_file(&place, 1);
    let connection = Connection::open(place.path()).expect("it opens");
    let damage = "UPDATE history SET record = X'0100000000AA' WHERE instance = 2 AND first_event = 6";
    assert_eq!(connection.execute(damage, []).expect("it is damaged"), 1);
    drop(connection);
    let forebay = place.open(Options::default());
    let error = bounded(forebay.read("runs")).await.expect_err("a row is damaged");
    assert!(error.message.contains("instance runs, execution 1, events 6..=7"), "{error}");
    assert_eq!(bounded(forebay.read("done")).await.expect("it decodes").len(), 1);
    forebay.close().expect("it closes");

    let history = |connection: &Connection| -> Vec<Vec<u8>> {
        let mut statement = connection.prepare("SELECT record FROM history").expect("a query");
        statement.query_map([], |row| row.get(0)).expect("rows").collect::<Result<_, _>>().expect("rows")
    };
    let connection = Connection::open(place.path()).expect("it opens");
    connection.pragma_update(None, "user_version", 1).expect("it is set");
    let before = history(&connection);
    drop(connection);
    let forebay = place.open(Options::default());
    assert_eq!(bounded(forebay.read("done")).await.expect("it decodes").len(), 1);
    forebay.close().expect("it closes");
    assert_eq!(history(&Connection::open(place.path()).expect("it opens")), before);
    assert_eq!(format_of(&place.path()), 3);
}

/// A build that does not know a format leaves the file alone. (So does a build of format 1 with one of format 2 or 3.)
#[tokio::test]
async fn a_newer_format_is_refused_by_its_number() {
    let place = Place::new();
    old_file(&place, 2);
    let connection = Connection::open(place.path()).expect("it opens");
    connection.pragma_update(None, "user_version", 4).expect("it is set");
    drop(connection);
    let before = std::fs::read(place.path()).expect("it is read");
    let error = Options::default().open(place.path()).expect_err("nobody knows format 4");
    assert!(matches!(error, Error::NewerFormat { found: 4, supported: 3, .. }), "{error:?}");
    assert_eq!(std::fs::read(place.path()).expect("it is read"), before);
}

/// A table that cannot be read to its end is no reason to refuse the others, nor what can be read of it.
#[tokio::test]
async fn a_damaged_table_of_an_older_format_stays_as_it_was_found() {
    let place = Place::new();
    old_file(&place, 2);
    let connection = Connection::open(place.path()).expect("it opens");
    let sql = "INSERT INTO history VALUES (2, 1, 90, 90, 0, zeroblob(100000))";
    assert_eq!(connection.execute(sql, []).expect("it is added"), 1);
    drop(connection);
    engine_support::break_chain(&place, "history");
    let forebay = place.open(Options::default());
    bounded(forebay.read("runs")).await.expect_err("a row of it is damaged");
    assert_eq!(bounded(forebay.list_instances()).await.expect("they are listed").len(), 2);
    assert_eq!(bounded(forebay.get_kv_all_values("runs")).await.expect("they are read").len(), 1);
    forebay.close().expect("it closes");
    assert_eq!(format_of(&place.path()), 3);
    let tables = tables(&place.path());
    let is_older =
        |table: &str| tables.iter().any(|sql| sql.contains(table) && sql.contains("WITHOUT ROWID"));
    assert!(
        is_older("TABLE history") && !is_older("TABLE kv") && !is_older("TABLE executions"),
        "{tables:?}"
    );
}
