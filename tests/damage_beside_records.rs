//! Records are sealed with a checksum; the columns beside them are not. What damage to those would make of an
//! intact record is an error as well, where it can be told. Found by `fuzz/` (mutated_file).

#![cfg(feature = "duroxide")]

mod engine_support;

use std::time::Duration;

use duroxide::EventKind;
use duroxide::providers::{InstanceFilter, Provider, ProviderAdmin, PruneOptions, TagFilter};
use engine_support::{
    LOCK, Place, Turn, activity, begin, bounded, continued, damage, enqueue, enqueue_work, event, fetch,
    heard, raised, routed, session, start, started_event,
};
use forebay::{Durability, Forebay, Options};

/// The first version added and subtracted what it read, and overflowed; with numbers that did not, it gave
/// events under ids that were not asked for.
#[tokio::test]
async fn a_history_row_whose_numbers_are_not_those_of_its_events_is_an_error() {
    for (first, last) in [(1, 1), (1, 3), (2, 3), (-1, 2), (1, i64::MAX), (i64::MIN, i64::MAX)] {
        let place = Place::new();
        let forebay = place.open(Options::default());
        let turn = Turn::of(1, vec![started_event("a", 1), heard("a", 2, "x")]);
        begin(&forebay, "a", Turn { metadata: Turn::first("a").metadata, ..turn }).await;
        enqueue(&forebay, raised("a", "bell")).await;
        forebay.close().expect("it closes");
        damage(&place, &format!("UPDATE history SET first_event = {first}, last_event = {last}"));

        let forebay = place.open(Options::default());
        let error = bounded(forebay.read("a")).await.expect_err("not those events");
        assert!(error.message.contains("instance a"), "{error}");
        let turn = fetch(&forebay).await.expect("the turn comes");
        assert!(turn.item.history_error.is_some(), "{first}..={last}: {:?}", turn.item);
        assert!(turn.item.history.is_empty());
        // What the runtime ends such an instance with, however far the row is said to reach.
        let mut last_word = Turn::of(1, vec![heard("a", 99_999, "it cannot be read")]);
        last_word.metadata.status = Some("Failed".into());
        bounded(last_word.ack(&forebay, &turn.token)).await.expect("it is taken");
        assert!(fetch(&forebay).await.is_none(), "its message is gone");
        forebay.close().expect("it closes");
    }
}

/// Formerly what was moved to another history was served as a part of that.
#[tokio::test]
async fn a_history_row_that_is_found_in_another_history_is_an_error() {
    let moves = [
        ("UPDATE history SET instance = 2 WHERE instance = 1 AND first_event = 2", "b", 1),
        ("UPDATE history SET execution = 2 WHERE instance = 1 AND first_event = 2", "a", 2),
        ("UPDATE instances SET id = 'c' WHERE id = 'a'", "c", 1),
    ];
    for (moved, instance, execution) in moves {
        let place = Place::new();
        let forebay = place.open(Options::default());
        for instance in ["a", "b"] {
            begin(&forebay, instance, Turn::first(instance)).await;
        }
        let more = vec![heard("a", 2, "x"), heard("a", 3, "y")];
        bounded(forebay.append_with_execution("a", 1, more)).await.expect("it is taken");
        forebay.close().expect("it closes");
        damage(&place, moved);

        let forebay = place.open(Options::default());
        let read = bounded(forebay.read_with_execution(instance, execution)).await;
        let error = read.expect_err("that is not its history");
        assert!(error.message.contains("belongs to another row"), "{error}");
        forebay.close().expect("it closes");
    }
}

/// The first version gave the message to the instance that the row named.
#[tokio::test]
async fn a_message_is_not_delivered_to_another_instance_than_it_was_sent_to() {
    let place = Place::new();
    let forebay = place.open(Options::default());
    begin(&forebay, "a", Turn::first("a")).await;
    begin(&forebay, "b", Turn::first("b")).await;
    enqueue(&forebay, raised("a", "bell")).await;
    forebay.close().expect("it closes");
    damage(&place, "UPDATE messages SET instance = 'b'");

    let forebay = place.open(Options::default());
    let turn = fetch(&forebay).await.expect("the turn comes");
    assert_eq!(turn.item.instance, "b");
    assert!(turn.item.messages.is_empty(), "{:?}", turn.item.messages);
    let error = turn.item.history_error.expect("and says why");
    assert!(error.contains("belongs to another row"), "{error}");
    forebay.close().expect("it closes");
}

/// The first version gave whatever decoded to a worker.
#[tokio::test]
async fn a_worker_is_given_activities_and_nothing_else() {
    let place = Place::new();
    let forebay = place.open(Options::default());
    enqueue(&forebay, start("a")).await;
    enqueue_work(&forebay, activity("a", 2)).await;
    forebay.close().expect("it closes");
    damage(&place, "UPDATE work SET record = (SELECT record FROM messages)");

    let forebay = place.open(Options::default());
    let fetched = bounded(forebay.fetch_work_item(LOCK, Duration::ZERO, None, &TagFilter::Any)).await;
    let error = fetched.expect_err("a start is no activity");
    assert!(error.message.contains("work row 1"), "{error}");
    forebay.close().expect("it closes");
}

/// Whether a history that was appended by hand starts its instance is in its records; what does not decode starts
/// nothing, and says so when it is read.
#[tokio::test]
async fn a_damaged_history_appended_by_hand_starts_nothing() {
    let place = Place::new();
    let forebay = place.open(Options::default());
    bounded(forebay.append_with_execution("a", 1, vec![started_event("a", 1)])).await.expect("it is taken");
    enqueue(&forebay, raised("a", "bell")).await;
    assert!(fetch(&forebay).await.is_some(), "it has a start");
    forebay.close().expect("it closes");
    damage(&place, "UPDATE history SET record = CAST(X'01' || record AS BLOB)");

    let forebay = place.open(Options::default());
    assert!(fetch(&forebay).await.is_none());
    bounded(forebay.read("a")).await.expect_err("it is damaged");
    forebay.close().expect("it closes");
}

/// Formerly the columns decided who got an activity, and its record what it was.
#[tokio::test]
async fn an_activity_whose_columns_are_not_its_own_is_an_error() {
    let changes =
        ["instance = 'b'", "execution = 2", "activity = 3", "session = NULL", "session = 't'", "tag = NULL"];
    for change in changes {
        let place = Place::new();
        let forebay = place.open(Options::default());
        enqueue_work(&forebay, routed("a", 2, Some("s"), Some("gpu"))).await;
        forebay.close().expect("it closes");
        damage(&place, &format!("UPDATE work SET {change}"));

        let forebay = place.open(Options::default());
        let session = session("w", LOCK);
        let fetched = forebay.fetch_work_item(LOCK, Duration::ZERO, Some(&session), &TagFilter::Any);
        let error = bounded(fetched).await.expect_err(change);
        assert!(error.message.contains("work row 1"), "{error}");
        forebay.close().expect("it closes");
    }
}

/// Formerly an event could be taken for a start by what its row said it was.
#[tokio::test]
async fn a_message_of_another_kind_than_its_row_says_is_an_error() {
    let place = Place::new();
    let forebay = place.open(Options::default());
    enqueue(&forebay, raised("a", "bell")).await;
    forebay.close().expect("it closes");
    damage(&place, "UPDATE messages SET kind = 0");

    let forebay = place.open(Options::default());
    let turn = fetch(&forebay).await.expect("it starts the instance, says the row");
    let error = turn.item.history_error.expect("it does not");
    assert!(error.contains("belongs to another row"), "{error}");
    forebay.close().expect("it closes");
}

/// The first version counted past the last row id that there is, and panicked on opening (or, without overflow
/// checks, gave the lowest one to the next item).
#[tokio::test]
async fn a_queue_with_the_last_row_id_in_it_goes_on_before_it() {
    for table in ["messages", "work"] {
        let place = Place::new();
        let forebay = place.open(Options::default());
        enqueue(&forebay, start("a")).await;
        enqueue_work(&forebay, activity("a", 2)).await;
        forebay.close().expect("it closes");
        damage(&place, &format!("UPDATE {table} SET id = {}", i64::MAX));
        // It leaves none for what comes behind it, so it cannot have been given out: the row is set aside.
        let forebay = place.open(Options::default());
        assert_eq!(forebay.stats().set_aside, 1, "{table}");
        enqueue(&forebay, start("b")).await;
        enqueue_work(&forebay, activity("b", 2)).await;
        forebay.close().expect("it closes");
        damage(&place, &format!("UPDATE {table} SET id = {} WHERE id = {}", i64::MAX - 9, i64::MAX));
        let forebay = place.open(Options::default());
        assert!(fetch(&forebay).await.is_some());
        forebay.close().expect("it closes");
    }
}

/// The first version stored them as negative numbers, before all others, and read the history in that order.
#[tokio::test]
async fn an_event_id_that_sqlite_would_sort_before_the_first_is_refused() {
    let place = Place::new();
    let forebay = place.open(Options::default());
    let kind = || EventKind::KeyValuesCleared;
    for ids in [&[1 << 63][..], &[1, u64::MAX], &[u64::MAX, u64::MAX]] {
        let events = ids.iter().map(|id| event("a", 1, *id, kind())).collect();
        let error = bounded(forebay.append_with_execution("a", 1, events)).await.expect_err("too high");
        assert!(!error.is_retryable() && error.message.contains("event id"), "{error}");
    }
    let highest = i64::MAX.cast_unsigned();
    let events = [1, highest].map(|id| event("a", 1, id, kind())).into();
    bounded(forebay.append_with_execution("a", 1, events)).await.expect("the highest is taken");
    let read = bounded(forebay.read_with_execution("a", 1)).await.expect("it is read");
    assert_eq!(read.iter().map(|event| event.event_id).collect::<Vec<_>>(), [1, highest]);
    forebay.close().expect("it closes");
}

/// The first version added up what the rows said, and the writer panicked where that overflowed.
#[tokio::test]
async fn instances_with_impossible_numbers_of_events_are_counted_and_deleted() {
    let place = Place::new();
    let forebay = place.open(Options::default());
    let ids = ["a", "b", "c", "d"];
    for id in ids {
        begin(&forebay, id, Turn::first(id)).await;
    }
    forebay.close().expect("it closes");
    let numbers = [(i64::MIN, i64::MAX), (-5, i64::MAX), (1, i64::MAX), (9, -9)];
    for (key, (first, last)) in (1..).zip(numbers) {
        damage(
            &place,
            &format!("UPDATE history SET first_event = {first}, last_event = {last} WHERE instance = {key}"),
        );
    }

    let forebay = place.open(Options::default());
    let admin = forebay.as_management_capability().expect("it has one");
    let metrics = bounded(admin.get_system_metrics()).await.expect("it counts");
    assert_eq!(metrics.total_instances, 4);
    for id in ids {
        bounded(admin.get_execution_info(id, 1)).await.expect("it counts");
        // The one whose first event is needed says that it is not the one that was asked for.
        assert_eq!(bounded(forebay.get_instance_stats(id)).await.is_err(), id == "c");
    }
    let ids = ids.map(str::to_owned);
    let deleted = bounded(admin.delete_instances_atomic(&ids, true)).await.expect("they are deleted");
    assert_eq!(deleted.instances_deleted, 4);
    forebay.close().expect("it closes");
}

/// An instance that has continued as new, and has had two turns since.
async fn begin_twice(forebay: &Forebay, id: &str) {
    let mut first = Turn::first(id).ending("ContinuedAsNew");
    first.messages.push(continued(id, "{}"));
    begin(forebay, id, first).await;
    let next = fetch(forebay).await.expect("the next execution");
    bounded(Turn::starting(id, 2).ack(forebay, &next.token)).await.expect("it is written");
    enqueue(forebay, raised(id, "bell")).await;
    let more = fetch(forebay).await.expect("the bell");
    let heard = event(id, 2, 2, EventKind::ExternalEvent { name: "bell".into(), data: String::new() });
    bounded(Turn::of(2, vec![heard]).ack(forebay, &more.token)).await.expect("it is written");
}

/// Formerly one id that was no text kept everybody from being listed, pruned and deleted.
#[tokio::test]
async fn instances_whose_ids_are_no_text_are_passed_by() {
    let place = Place::new();
    let options = Options::default().durability(Durability::Normal);
    let forebay = place.open(options.clone());
    begin_twice(&forebay, "first").await;
    // More of them than are looked at in one go.
    for n in 0..300 {
        let id = format!("bad {n}");
        begin(&forebay, &id, Turn::first(&id).ending("Completed")).await;
    }
    begin_twice(&forebay, "last").await;
    forebay.close().expect("it closes");
    let connection = rusqlite::Connection::open(place.path()).expect("it opens");
    let sql = "UPDATE instances SET id = CAST(x'ff' || CAST(id AS BLOB) AS TEXT) WHERE id LIKE 'bad%'";
    assert_eq!(connection.execute(sql, []).expect("they are damaged"), 300);
    connection.close().expect("it closes");

    let forebay = place.open(options);
    assert_eq!(bounded(forebay.list_instances()).await.expect("they are listed"), ["last", "first"]);
    let running = bounded(forebay.list_instances_by_status("Running")).await.expect("they are listed");
    assert_eq!(running, ["last", "first"]);
    let keep = PruneOptions { keep_last: Some(1), ..PruneOptions::default() };
    let pruned = bounded(forebay.prune_executions_bulk(InstanceFilter::default(), keep)).await;
    let pruned = pruned.expect("the others are pruned");
    assert_eq!((pruned.instances_processed, pruned.executions_deleted), (2, 2));
    for id in ["first", "last"] {
        enqueue(&forebay, raised(id, "bell")).await;
        let turn = fetch(&forebay).await.expect("the bell");
        bounded(Turn::of(2, vec![]).ending("Completed").ack(&forebay, &turn.token)).await.expect("it ends");
    }
    let deleted = bounded(forebay.delete_instance_bulk(InstanceFilter::default())).await;
    assert_eq!(deleted.expect("the others are deleted").instances_deleted, 2);
    forebay.close().expect("it closes");
}

/// Formerly such a turn came with an empty history, as if nothing had happened yet: the runtime dropped its messages,
/// and the orchestration never ended.
#[tokio::test]
async fn rows_that_contradict_each_other_are_an_error_of_their_instance() {
    let damages = [
        "UPDATE history SET execution = 7 WHERE execution = 2",
        "UPDATE history SET execution = 7 WHERE execution = 2 AND first_event = 1",
        "UPDATE history SET execution = 7 WHERE execution = 2 AND first_event = 2",
        "UPDATE history SET execution = 0 WHERE execution = 2",
        "UPDATE history SET execution = -2 WHERE execution = 2 AND first_event = 2",
        "UPDATE instances SET execution = 7",
        "UPDATE instances SET execution = 1",
        "UPDATE instances SET execution = 0",
        "UPDATE instances SET execution = -1",
        "UPDATE executions SET execution = 7 WHERE execution = 2",
    ];
    for damage in damages {
        let place = Place::new();
        let forebay = place.open(Options::default());
        begin_twice(&forebay, "a").await;
        forebay.close().expect("it closes");
        let connection = rusqlite::Connection::open(place.path()).expect("it opens");
        assert!(connection.execute(damage, []).expect("it is damaged") > 0, "{damage}");
        connection.close().expect("it closes");

        let forebay = place.open(Options::default());
        enqueue(&forebay, raised("a", "bell")).await;
        let turn = fetch(&forebay).await.expect("the turn comes");
        let error = turn.item.history_error.expect(damage);
        assert!(error.contains("instance a") && error.contains("contradict"), "{damage}: {error}");
        assert!(turn.item.history.is_empty(), "{damage}");
        // It says so again, and then the runtime ends the instance as it ends those whose history does not decode.
        bounded(forebay.abandon_orchestration_item(&turn.token, None, false)).await.expect("it goes back");
        let turn = fetch(&forebay).await.expect("the turn comes again");
        assert_eq!(turn.item.history_error.expect(damage), error);
        let execution = turn.item.execution_id;
        let failed = EventKind::ExternalEvent { name: "failed".into(), data: String::new() };
        let last = Turn::of(execution, vec![event("a", execution, 99999, failed)]).ending("Failed");
        bounded(last.ack(&forebay, &turn.token)).await.expect("it ends");
        assert!(fetch(&forebay).await.is_none(), "{damage}");
        let info = bounded(forebay.get_instance_info("a")).await.expect("it is there");
        assert_eq!(info.status, "Failed", "{damage}");
        forebay.close().expect("it closes");
    }
}

/// What nobody but a test does, and everybody may do.
#[tokio::test]
async fn unusual_rows_that_do_not_contradict_each_other_are_no_error() {
    let place = Place::new();
    let forebay = place.open(Options::default());
    // A turn without events, and a second execution without any.
    for id in ["silent", "silent later"] {
        let mut turn = Turn::first(id);
        turn.history.clear();
        begin(&forebay, id, turn).await;
    }
    // Events by hand: of an execution to come, before the first turn and after it; of none; with a gap.
    let by_hand =
        |id: &str, execution, event_id| vec![event(id, execution, event_id, EventKind::KeyValuesCleared)];
    for (id, execution, events) in
        [("before", 5, by_hand("before", 5, 1)), ("nothing", 5, vec![]), ("gap", 1, by_hand("gap", 1, 9))]
    {
        bounded(forebay.append_with_execution(id, execution, events)).await.expect("it is taken");
        begin(&forebay, id, Turn::first(id)).await;
    }
    begin(&forebay, "after", Turn::first("after")).await;
    for (execution, id) in [(7, 1), (1, 5)] {
        let events = by_hand("after", execution, id);
        bounded(forebay.append_with_execution("after", execution, events)).await.expect("it is taken");
    }
    // Executions in another order, one of them left out, and one pruned.
    begin(&forebay, "skips", Turn::first("skips").ending("ContinuedAsNew")).await;
    for execution in [3, 2] {
        enqueue(&forebay, raised("skips", "bell")).await;
        let turn = fetch(&forebay).await.expect("the bell");
        bounded(Turn::starting("skips", execution).ack(&forebay, &turn.token)).await.expect("it is taken");
    }
    enqueue(&forebay, raised("silent later", "bell")).await;
    let turn = fetch(&forebay).await.expect("the bell");
    bounded(Turn::of(2, vec![]).ack(&forebay, &turn.token)).await.expect("it is taken");
    let keep = PruneOptions { keep_last: Some(1), ..PruneOptions::default() };
    let pruned = bounded(forebay.prune_executions("skips", keep)).await.expect("it is pruned");
    assert_eq!(pruned.executions_deleted, 1);

    // From memory, and then from the rows. Nothing is acknowledged: that could put right what is wrong.
    let mut ids = vec!["after", "before", "gap", "nothing", "silent", "silent later", "skips"];
    for id in &ids {
        enqueue(&forebay, raised(id, "bell")).await;
    }
    no_turn_has_an_error(&forebay, &ids).await;
    forebay.close().expect("it closes");
    // An earlier version made a row of nothing that was appended by hand.
    damage(&place, "INSERT INTO instances (id, execution, created_at_ms) VALUES ('older', 1, 0)");
    let forebay = place.open(Options::default());
    enqueue(&forebay, start("older")).await;
    ids.insert(4, "older");
    no_turn_has_an_error(&forebay, &ids).await;
    forebay.close().expect("it closes");
}

/// There is a turn for each of these instances, in the order of their names, and for nobody else.
async fn no_turn_has_an_error(forebay: &Forebay, ids: &[&str]) {
    let mut found = Vec::new();
    while let Some(turn) = fetch(forebay).await {
        assert_eq!(turn.item.history_error, None, "{}", turn.item.instance);
        found.push(turn.item.instance);
    }
    found.sort();
    assert_eq!(found, ids);
}

/// Formerly a file of the first format with such an instance in it could not be brought up to date, and did not open.
#[tokio::test]
async fn an_instance_whose_id_is_no_text_keeps_no_older_file_from_opening() {
    let place = Place::new();
    let connection = rusqlite::Connection::open(place.path()).expect("it opens");
    connection.execute_batch(include_str!("golden/format_1.sql")).expect("it is SQL");
    connection.pragma_update(None, "application_id", 0x6662_6179).expect("it is set");
    connection.pragma_update(None, "user_version", 1).expect("it is set");
    connection.close().expect("it closes");
    damage(&place, "UPDATE instances SET id = CAST(x'ff00fe' AS TEXT) WHERE id = 'done'");
    let forebay = place.open(Options::default());
    assert_eq!(bounded(forebay.list_instances()).await.expect("they are listed"), ["runs"]);
    let turn = fetch(&forebay).await.expect("the message waits");
    assert_eq!((turn.item.instance.as_str(), turn.item.history_error), ("runs", None));
    assert_eq!(turn.item.history.len(), 5);
    forebay.close().expect("it closes");
}
