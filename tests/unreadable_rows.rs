//! A row that cannot be read stops nobody but those that need it: a history is told to its instance, a message or an
//! activity is set aside and counted, and everything else goes on, whatever waits behind it.

#![cfg(feature = "duroxide")]

mod engine_support;

use std::time::Duration;

use duroxide::EventKind;
use duroxide::providers::{
    InstanceFilter, Provider, ProviderAdmin, ProviderError, PruneOptions, TagFilter, WorkItem,
};
use engine_support::polled::{Hold, Polled};
use engine_support::{
    HOUR, LOCK, Place, Turn, activity, begin, bounded, break_chain, completed, depths, enqueue, enqueue_work,
    event, fetch, fetch_work, heard, raised, start,
};
use forebay::{Durability, Forebay, Options};

/// So long that a row does not fit on its page.
fn long() -> String {
    "long ".repeat(4096)
}

fn long_event(instance: &str) -> WorkItem {
    WorkItem::ExternalRaised { instance: instance.into(), name: "bell".into(), data: long() }
}

fn long_activity(instance: &str, id: u64) -> WorkItem {
    let mut item = activity(instance, id);
    if let WorkItem::ActivityExecute { input, .. } = &mut item {
        *input = long();
    }
    item
}

/// Five instances that run and have a message each; what `add` does stands before all of that.
async fn damaged(table: &str, add: impl AsyncFnOnce(&Forebay)) -> (Place, Forebay) {
    let place = Place::new();
    let forebay = place.open(Options::default());
    begin(&forebay, "bad", Turn::first("bad")).await;
    add(&forebay).await;
    for n in 0..5 {
        enqueue(&forebay, start(&format!("good {n}"))).await;
        enqueue_work(&forebay, activity("bad", 10 + n)).await;
    }
    forebay.close().expect("it closes");
    break_chain(&place, table);
    let forebay = place.open(Options::default());
    (place, forebay)
}

async fn the_others_run(forebay: &Forebay) {
    for n in 0..5 {
        let turn = fetch(forebay).await.expect("a turn");
        assert_eq!((turn.item.instance.as_str(), turn.attempt), (format!("good {n}").as_str(), 1));
        bounded(Turn::first(&turn.item.instance).ack(forebay, &turn.token)).await.expect("it is taken");
        let work = fetch_work(forebay).await.expect("an activity");
        assert_eq!(work.attempt, 1);
        let done = Some(completed("good 0", engine_support::id_of(&work.item)));
        bounded(forebay.ack_work_item(&work.token, done)).await.expect("it is taken");
    }
}

#[tokio::test]
async fn an_unreadable_message_is_set_aside_and_everything_else_goes_on() {
    let (place, forebay) = damaged("messages", async |forebay: &Forebay| {
        enqueue(forebay, long_event("bad")).await;
        enqueue(forebay, raised("bad", "second")).await;
    })
    .await;
    // The same instance has another message, which it is given.
    let turn = fetch(&forebay).await.expect("a turn");
    assert_eq!((turn.item.instance.as_str(), turn.item.history_error), ("bad", None));
    assert_eq!(turn.item.messages, [raised("bad", "second")]);
    assert_eq!(forebay.stats().set_aside, 1);
    bounded(Turn::of(1, vec![heard("bad", 2, "second")]).ack(&forebay, &turn.token)).await.expect("taken");
    the_others_run(&forebay).await;
    forebay.close().expect("it closes");
    // It is where it was.
    let connection = rusqlite::Connection::open(place.path()).expect("it opens");
    let sql = "SELECT count(*), sum(attempt) FROM messages WHERE instance = 'bad'";
    let found = connection.query_row(sql, [], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)));
    assert_eq!(found.expect("it is counted"), (1, 0));
}

#[tokio::test]
async fn an_instance_that_has_nothing_but_an_unreadable_message_waits_for_another() {
    let (_place, forebay) = damaged("messages", async |forebay: &Forebay| {
        enqueue(forebay, long_event("bad")).await;
    })
    .await;
    the_others_run(&forebay).await;
    enqueue(&forebay, raised("bad", "second")).await;
    // Completions of its activities came to "good 0" in this test.
    let turns = [fetch(&forebay).await, fetch(&forebay).await];
    let bad = turns.into_iter().flatten().find(|turn| turn.item.instance == "bad").expect("it goes on");
    assert_eq!(bad.item.messages, [raised("bad", "second")]);
}

#[tokio::test]
async fn an_unreadable_activity_is_set_aside_and_everything_else_goes_on() {
    let (place, forebay) = damaged("work", async |forebay: &Forebay| {
        enqueue_work(forebay, long_activity("bad", 2)).await;
    })
    .await;
    assert_eq!(depths(&forebay).await.1, 6);
    the_others_run(&forebay).await;
    assert_eq!(forebay.stats().set_aside, 1);
    assert!(fetch_work(&forebay).await.is_none());
    forebay.close().expect("it closes");
    let connection = rusqlite::Connection::open(place.path()).expect("it opens");
    let found: i64 =
        connection.query_row("SELECT count(*) FROM work", [], |row| row.get(0)).expect("counted");
    assert_eq!(found, 1, "it is where it was");
}

#[tokio::test]
async fn an_unreadable_history_is_an_error_of_its_instance() {
    let (_place, forebay) = damaged("history", async |forebay: &Forebay| {
        let long = vec![heard("bad", 2, &long())];
        bounded(forebay.append_with_execution("bad", 1, long)).await.expect("it is taken");
        enqueue(forebay, raised("bad", "bell")).await;
    })
    .await;
    let turn = fetch(&forebay).await.expect("a turn");
    assert_eq!((turn.item.instance.as_str(), turn.attempt), ("bad", 1));
    let error = turn.item.history_error.expect("it cannot be read");
    assert!(error.contains("history of instance bad, execution 1"), "{error}");
    assert!(turn.item.history.is_empty());
    bounded(forebay.read("bad")).await.expect_err("nor by anybody else");
    // The runtime ends it, and that can be written.
    let failed = Turn::of(1, vec![heard("bad", 3, "failed")]).ending("Failed");
    bounded(failed.ack(&forebay, &turn.token)).await.expect("it is taken");
    the_others_run(&forebay).await;
}

/// Writers beside a fetch that meets a damaged row: formerly they were rolled back with it.
#[tokio::test]
async fn writes_beside_an_unreadable_row_are_not_concerned() {
    for table in ["messages", "work"] {
        let (_place, forebay) = damaged(table, async |forebay: &Forebay| {
            enqueue(forebay, long_event("bad")).await;
            enqueue_work(forebay, long_activity("bad", 2)).await;
        })
        .await;
        for n in 0..20 {
            let instance = format!("more {n}");
            let (enqueued, turn, work) = bounded(async {
                tokio::join!(
                    forebay.enqueue_for_orchestrator(start(&instance), None),
                    forebay.fetch_orchestration_item(LOCK, HOUR, None),
                    forebay.fetch_work_item(LOCK, Duration::ZERO, None, &TagFilter::Any),
                )
            })
            .await;
            enqueued.expect("it is taken");
            turn.expect("no error").expect("there is one");
            work.expect("no error");
        }
        assert_eq!(forebay.stats().set_aside, 1);
    }
}

/// SQLite writes nothing more in a transaction in which it has met damage: what a grant needs is read before there is one, so
/// nobody is told to try again for what a stranger's rows are like.
#[tokio::test]
async fn damage_that_is_met_beside_a_batch_costs_it_nothing() {
    for table in ["messages", "work", "history"] {
        let (place, forebay) = damaged(table, async |forebay: &Forebay| {
            enqueue(forebay, start("first")).await;
            enqueue(forebay, long_event("bad")).await;
            enqueue_work(forebay, long_activity("bad", 2)).await;
            let long = vec![heard("bad", 2, &long())];
            bounded(forebay.append_with_execution("bad", 1, long)).await.expect("it is taken");
        })
        .await;
        forebay.close().expect("it closes");
        // At `Normal` a fetch shares the batch of what came with it.
        let forebay = place.open(Options::default().durability(Durability::Normal));
        let first = fetch(&forebay).await.expect("a turn");
        assert_eq!(first.item.instance, "first");
        let mut acked = false;
        for _ in 0..10 {
            let hold = Hold::on(&forebay);
            let ack = Polled::submitted(Turn::first("first").ack(&forebay, &first.token));
            let turn = Polled::submitted(forebay.fetch_orchestration_item(LOCK, Duration::ZERO, None));
            let work =
                Polled::submitted(forebay.fetch_work_item(LOCK, Duration::ZERO, None, &TagFilter::Any));
            hold.release();
            assert_eq!((turn.finish().err(), work.finish().err()), (None, None), "{table}");
            let own = ack.finish();
            assert_eq!(own.is_ok(), !acked, "{table}: {own:?}");
            acked = true;
        }
    }
}

/// Whoever changes what is damaged hears that it is, once and for good, so that nobody tries it again and again at
/// the price of its neighbours.
#[tokio::test]
async fn a_write_to_what_is_damaged_is_a_permanent_error() {
    let (_place, forebay) = damaged("history", async |forebay: &Forebay| {
        let long = vec![heard("bad", 2, &long())];
        bounded(forebay.append_with_execution("bad", 1, long)).await.expect("it is taken");
    })
    .await;
    let admin = forebay.as_management_capability().expect("it has one");
    let error = bounded(admin.delete_instance("bad", true)).await.expect_err("its pages cannot be freed");
    assert!(!error.is_retryable(), "{error}");
    // What it is, and the way out; the second time as the first.
    let again = bounded(admin.delete_instance("bad", true)).await.expect_err("nor later");
    for error in [error, again] {
        assert!(error.message.contains("a row of history of instance bad"), "{error}");
        assert!(error.message.contains(".recover"), "{error}");
    }
    the_others_run(&forebay).await;
}

/// Columns, not pages: what SQLite reads and nobody wrote. The database opens, the row is set aside, the others run.
#[tokio::test]
async fn a_damaged_column_of_one_queued_row_keeps_no_database_from_opening() {
    let damages = [
        "UPDATE messages SET attempt = -1 WHERE instance = 'bad'",
        "UPDATE messages SET attempt = 9223372036854775807 WHERE instance = 'bad'",
        "UPDATE messages SET instance = CAST(x'ff00fe' AS TEXT) WHERE instance = 'bad'",
        "UPDATE messages SET id = 9223372036854775807 WHERE instance = 'bad'",
        "UPDATE messages SET id = 9223372036854775806 WHERE instance = 'bad'",
        "UPDATE work SET attempt = -1 WHERE activity = 99",
        "UPDATE work SET tag = CAST(x'ff00fe' AS TEXT) WHERE activity = 99",
        "UPDATE work SET id = 9223372036854775807 WHERE activity = 99",
        "UPDATE work SET id = 9223372036854775806 WHERE activity = 99",
    ];
    for damage in damages {
        let place = Place::new();
        let forebay = place.open(Options::default());
        for n in 0..5 {
            enqueue(&forebay, start(&format!("good {n}"))).await;
            enqueue_work(&forebay, activity("other", 10 + n)).await;
        }
        // The last of both queues: what comes next must not take its place.
        enqueue(&forebay, raised("bad", "bell")).await;
        enqueue_work(&forebay, activity("bad", 99)).await;
        forebay.close().expect("it closes");
        engine_support::damage(&place, damage);
        let forebay = place.open(Options::default());
        assert_eq!(forebay.stats().set_aside, 1, "{damage}");
        the_others_run(&forebay).await;
        enqueue(&forebay, start("next")).await;
        enqueue_work(&forebay, activity("next", 1)).await;
        assert_eq!(fetch(&forebay).await.expect("a turn").item.instance, "good 0", "{damage}");
        forebay.close().expect("it closes");
        // It stays where it is.
        let forebay = place.open(Options::default());
        assert_eq!(forebay.stats().set_aside, 1, "{damage}");
        forebay.close().expect("it closes");
    }
}

/// Deleting in bulk leaves what is damaged where it is, and takes the others; nobody else is rolled back for it again.
#[tokio::test]
async fn deleting_in_bulk_goes_past_what_is_damaged() {
    for table in ["messages", "history", "executions", "kv", "instances"] {
        let place = Place::new();
        let forebay = place.open(Options::default());
        for instance in ["bad", "good 1", "good 2"] {
            let mut turn = Turn::first(instance).ending("Completed");
            if instance == "bad" {
                let set = |key: &str, value| EventKind::KeyValueSet {
                    key: key.into(),
                    value,
                    last_updated_at_ms: 1,
                };
                match table {
                    "history" => turn.history.push(heard("bad", 2, &long())),
                    "executions" => turn.metadata.output = Some(long()),
                    "kv" => turn.history.push(event("bad", 1, 2, set("k", long()))),
                    "instances" => {
                        let kind = EventKind::CustomStatusUpdated { status: Some(long()) };
                        turn.history.push(event("bad", 1, 2, kind));
                    }
                    _ => {}
                }
            }
            begin(&forebay, instance, turn).await;
        }
        if table == "messages" {
            enqueue(&forebay, long_event("bad")).await;
        }
        forebay.close().expect("it closes");
        break_chain(&place, table);
        let forebay = place.open(Options::default());
        let all = InstanceFilter::default;
        // The first one may find it, and then nothing of its batch has happened.
        let (mut deleted, mut rolled_back) = (0, 0);
        for n in 0..5 {
            let (bulk, beside) = with_a_neighbour(&forebay, n, forebay.delete_instance_bulk(all()));
            match bulk {
                Ok(result) => deleted += result.instances_deleted,
                Err(error) => assert!(n < 2 && error.is_retryable(), "{table}: {error}"),
            }
            rolled_back += u32::from(beside.is_err());
        }
        assert_eq!(rolled_back, 0, "{table}: neighbours were rolled back");
        let expected = if table == "messages" { 3 } else { 2 };
        assert_eq!(deleted, expected, "{table}");
        if table != "messages" {
            let error = forebay.delete_instance("bad", true).await.expect_err("it cannot be deleted");
            assert!(!error.is_retryable() && error.message.contains(".recover"), "{table}: {error}");
            assert!(error.message.contains(&format!("of {table} of instance bad")), "{table}: {error}");
        }
        // A queued row that stays because it cannot be deleted is one that is set aside.
        assert_eq!(forebay.stats().set_aside, u64::from(table == "messages"), "{table}");
        forebay.close().expect("it closes");
    }
}

/// An operation in one batch with a start, and what both hear.
fn with_a_neighbour<'a, T>(
    forebay: &'a Forebay,
    n: usize,
    operation: impl Future<Output = Result<T, ProviderError>> + Send + 'a,
) -> (Result<T, ProviderError>, Result<(), ProviderError>) {
    let hold = Hold::on(forebay);
    let operation = Polled::submitted(operation);
    let beside = Polled::submitted(forebay.enqueue_for_orchestrator(start(&format!("other {n}")), None));
    hold.release();
    (operation.finish(), beside.finish())
}

/// And so does pruning in bulk.
#[tokio::test]
async fn pruning_in_bulk_goes_past_what_is_damaged() {
    for table in ["history", "executions"] {
        let place = Place::new();
        let forebay = place.open(Options::default());
        for instance in ["bad", "good"] {
            let mut first = Turn::first(instance).ending("ContinuedAsNew");
            match (instance, table) {
                ("bad", "history") => first.history.push(heard("bad", 2, &long())),
                ("bad", _) => first.metadata.output = Some(long()),
                _ => {}
            }
            first.messages.push(engine_support::continued(instance, "{}"));
            begin(&forebay, instance, first).await;
            let next = fetch(&forebay).await.expect("the next execution");
            bounded(Turn::starting(instance, 2).ack(&forebay, &next.token)).await.expect("it is taken");
        }
        forebay.close().expect("it closes");
        break_chain(&place, table);
        let forebay = place.open(Options::default());
        let (mut pruned, mut rolled_back) = (0, 0);
        for n in 0..5 {
            let keep = PruneOptions { keep_last: Some(1), ..PruneOptions::default() };
            let bulk = forebay.prune_executions_bulk(InstanceFilter::default(), keep);
            let (bulk, beside) = with_a_neighbour(&forebay, n, bulk);
            match bulk {
                Ok(result) => pruned += result.executions_deleted,
                Err(error) => assert!(n < 1 && error.is_retryable(), "{table}: {error}"),
            }
            rolled_back += u32::from(beside.is_err());
        }
        assert_eq!((pruned, rolled_back), (1, 0), "{table}");
        let keep = PruneOptions { keep_last: Some(1), ..PruneOptions::default() };
        let error = bounded(forebay.prune_executions("bad", keep)).await.expect_err("it cannot be pruned");
        assert!(!error.is_retryable() && error.message.contains(".recover"), "{table}: {error}");
        forebay.close().expect("it closes");
    }
}

/// A row that could neither be deleted nor read is one row.
#[tokio::test]
async fn a_row_that_is_met_twice_is_counted_once() {
    for table in ["messages", "work"] {
        let place = Place::new();
        let forebay = place.open(Options::default());
        begin(&forebay, "bad", Turn::first("bad").ending("Completed")).await;
        match table {
            "messages" => enqueue(&forebay, long_event("bad")).await,
            _ => enqueue_work(&forebay, long_activity("bad", 2)).await,
        }
        forebay.close().expect("it closes");
        break_chain(&place, table);
        let forebay = place.open(Options::default());
        let error =
            bounded(forebay.delete_instance("bad", true)).await.expect_err("its batch is rolled back");
        assert!(error.is_retryable(), "{table}: {error}");
        assert_eq!(forebay.stats().set_aside, 1, "{table}");
        assert!(fetch(&forebay).await.is_none(), "{table}");
        assert!(fetch_work(&forebay).await.is_none(), "{table}");
        assert_eq!(forebay.stats().set_aside, 1, "{table}");
        forebay.close().expect("it closes");
    }
}
