//! A value over `record_bytes_max` is refused with its size and the limit, alone, and ends what produced it; what is
//! only too large together is stored in parts.

#![cfg(feature = "duroxide")]

mod engine_support;

use duroxide::providers::ProviderAdmin as _;
use duroxide::providers::{Provider, TagFilter, WorkItem};
use duroxide::{AppErrorKind, ErrorDetails, Event, EventKind, PoisonMessageType};
use engine_support::polled::Polled;
use engine_support::{
    HOUR, LOCK, Place, Turn, activity, begin, bounded, completed, depths, enqueue, enqueue_work, fetch,
    fetch_work, heard, raised, settle, start,
};
use forebay::Options;

const LIMIT: usize = 4096;

fn large(bytes: usize) -> String {
    // Not compressible, in case a codec ever tries.
    (0..bytes).map(|n| char::from(b'a' + ((n * n + n / 7) % 26) as u8)).collect()
}

fn assert_too_large(result: Result<(), duroxide::providers::ProviderError>, what: &str) {
    let error = result.expect_err("it is too large");
    assert!(error.message.contains("4096") && error.message.contains("record_bytes_max"), "{error}");
    assert!(error.message.contains(what), "{error} should name {what}");
    assert!(!error.is_retryable(), "the same record will be as large again");
}

fn raised_with(instance: &str, bytes: usize) -> WorkItem {
    WorkItem::ExternalRaised { instance: instance.into(), name: "bell".into(), data: large(bytes) }
}

fn activity_with(instance: &str, id: u64, bytes: usize) -> WorkItem {
    let WorkItem::ActivityExecute { instance, execution_id, id, name, session_id, tag, .. } =
        activity(instance, id)
    else {
        unreachable!("activity() makes activities")
    };
    WorkItem::ActivityExecute { instance, execution_id, id, name, input: large(bytes), session_id, tag }
}

#[tokio::test]
async fn an_item_over_the_limit_is_refused_alone() {
    let place = Place::new();
    let forebay = place.open(Options::default().record_bytes_max(LIMIT));
    begin(&forebay, "order", Turn::first("order")).await;

    let (too_large, fits) = bounded(async {
        tokio::join!(
            forebay.enqueue_for_orchestrator(raised_with("order", LIMIT), None),
            forebay.enqueue_for_orchestrator(raised_with("order", LIMIT - 200), None)
        )
    })
    .await;
    assert_too_large(too_large, "instance order");
    fits.expect("its neighbour is fine");
    let (too_large, fits) = bounded(async {
        tokio::join!(
            forebay.enqueue_for_worker(activity_with("order", 2, LIMIT)),
            forebay.enqueue_for_worker(activity_with("order", 3, LIMIT - 200))
        )
    })
    .await;
    assert_too_large(too_large, "instance order");
    fits.expect("its neighbour is fine");
    assert_eq!(depths(&forebay).await, (1, 1), "nothing but the neighbours");
}

/// The worker is told, and the orchestration gets a failure in place of the result: there is nothing to try again.
#[tokio::test]
async fn an_activity_whose_result_is_too_large_has_failed() {
    let place = Place::new();
    let forebay = place.open(Options::default().record_bytes_max(LIMIT));
    let mut turn = Turn::first("order");
    let (name, input) = ("Charge".into(), String::new());
    let kind = EventKind::ActivityScheduled { name, input, session_id: None, tag: None };
    turn.history.push(engine_support::event("order", 1, 2, kind));
    turn.work.push(activity("order", 2));
    begin(&forebay, "order", turn).await;
    let work = fetch_work(&forebay).await.expect("it is there");
    let too_large = WorkItem::ActivityCompleted {
        instance: "order".into(),
        execution_id: 1,
        id: 2,
        result: large(LIMIT),
    };
    let what = "the result of activity Charge (2) of instance order";
    assert_too_large(bounded(forebay.ack_work_item(&work.token, Some(too_large))).await, what);
    let again = bounded(forebay.ack_work_item(&work.token, Some(completed("order", 2)))).await;
    assert!(again.expect_err("it is done with").message.contains("Invalid lock token"));

    let turn = fetch(&forebay).await.expect("the failure is there");
    let [WorkItem::ActivityFailed { instance, execution_id: 1, id: 2, details }] = &turn.item.messages[..]
    else {
        panic!("{:?}", turn.item.messages)
    };
    assert_eq!(instance, "order");
    let ErrorDetails::Application { kind: AppErrorKind::ActivityFailed, message, retryable: false } = details
    else {
        panic!("{details:?}")
    };
    assert!(message.contains(what) && message.contains("the limit is 4096"), "{message}");
    assert_eq!(depths(&forebay).await, (0, 0));
}

/// An error that is too large keeps its kind and its beginning: duroxide's own, of a poisoned item, holds the item.
#[tokio::test]
async fn an_error_that_is_too_large_keeps_its_kind() {
    let place = Place::new();
    let forebay = place.open(Options::default().record_bytes_max(LIMIT));
    begin(&forebay, "order", Turn::first("order")).await;
    enqueue_work(&forebay, activity("order", 2)).await;
    let work = fetch_work(&forebay).await.expect("it is there");
    let message_type = PoisonMessageType::Activity {
        instance: "order".into(),
        execution_id: 1,
        activity_name: "Charge".into(),
        activity_id: 2,
    };
    let (attempt_count, max_attempts) = (11, 10);
    let message = format!("\u{e9}{}", large(LIMIT));
    let details = ErrorDetails::Poison {
        attempt_count,
        max_attempts,
        message_type: message_type.clone(),
        message: message.clone(),
    };
    let failed = WorkItem::ActivityFailed { instance: "order".into(), execution_id: 1, id: 2, details };
    let what = "the error of activity 2 of instance order";
    assert_too_large(bounded(forebay.ack_work_item(&work.token, Some(failed))).await, what);

    let turn = fetch(&forebay).await.expect("the failure is there");
    let [WorkItem::ActivityFailed { details, .. }] = &turn.item.messages[..] else {
        panic!("{:?}", turn.item.messages)
    };
    let ErrorDetails::Poison { attempt_count: 11, max_attempts: 10, message_type: kept, message: said } =
        details
    else {
        panic!("{details:?}")
    };
    assert!(*kept == message_type && said.contains(what) && said.contains(&message[..1024]), "{said}");
    assert!(said.len() < 2048);
}

/// A turn with one event, one item, one message or an output over the limit ends its instance, and leaves nothing
/// else behind.
#[tokio::test]
async fn a_turn_with_something_too_large_has_failed() {
    let whole = || {
        let mut ack = Turn::of(1, vec![heard("order", 2, "small")]);
        ack.work.push(activity("order", 3));
        ack.messages.push(start("child"));
        ack
    };
    let mut event = whole();
    event.history.push(heard("order", 3, &large(2 * LIMIT)));
    event.history.push(heard("order", 4, "after it"));
    let mut work = whole();
    work.work.push(activity_with("order", 4, LIMIT));
    let mut message = whole();
    message.messages.push(raised_with("other", LIMIT));
    let mut output = whole();
    output.metadata.status = Some("Completed".into());
    output.metadata.output = Some(large(2 * LIMIT));
    let turns = [
        (event, "event 3 of instance order"),
        (work, "instance order"),
        (message, "instance other"),
        (output, "the output of execution 1"),
    ];
    for (ack, what) in turns {
        let place = Place::new();
        let forebay = place.open(Options::default().record_bytes_max(LIMIT));
        begin(&forebay, "order", Turn::first("order")).await;
        enqueue(&forebay, raised("order", "bell")).await;
        let turn = fetch(&forebay).await.expect("it is there");
        assert_too_large(bounded(ack.ack(&forebay, &turn.token)).await, what);

        assert_eq!(depths(&forebay).await, (0, 0), "{what}");
        let history = bounded(forebay.read("order")).await.expect("it is read");
        let [_, second, third] = &history[..] else { panic!("{history:?}") };
        assert_eq!(second.kind, heard("order", 2, "small").kind);
        let EventKind::OrchestrationFailed { details } = &third.kind else { panic!("{third:?}") };
        assert!(details.display_message().contains(what), "{details:?}");
        let info = bounded(forebay.get_instance_info("order")).await.expect("it is there");
        assert_eq!((info.status.as_str(), info.output), ("Failed", Some(details.display_message())));
        let again = bounded(whole().ack(&forebay, &turn.token)).await.expect_err("the turn is over");
        assert!(again.message.contains("Invalid lock token"), "{again}");
    }
}

/// Without an event nobody can tell whose turn it is: it is refused, and stays with its worker.
#[tokio::test]
async fn a_turn_without_events_is_refused_whole() {
    let place = Place::new();
    let forebay = place.open(Options::default().record_bytes_max(LIMIT));
    begin(&forebay, "order", Turn::first("order")).await;
    enqueue(&forebay, raised("order", "bell")).await;
    let turn = fetch(&forebay).await.expect("it is there");
    let mut ack = Turn::of(1, vec![]);
    ack.work.push(activity("order", 3));
    ack.messages.push(raised_with("other", LIMIT));
    assert_too_large(bounded(ack.ack(&forebay, &turn.token)).await, "instance other");
    assert_eq!(depths(&forebay).await, (0, 0));
    bounded(Turn::of(1, vec![]).ack(&forebay, &turn.token)).await.expect("the token is still good");
}

/// Each event fits, all of them together are 200 times too large.
#[tokio::test]
async fn a_turn_that_is_only_too_large_together_is_stored() {
    let place = Place::new();
    let options = || Options::default().record_bytes_max(LIMIT);
    let forebay = place.open(options());
    let mut turn = Turn::first("order");
    let sizes = (0..400).map(|n| if n % 50 == 7 { LIMIT - 300 } else { 1000 + n });
    turn.history.extend((2..).zip(sizes).map(|(id, bytes)| heard("order", id, &large(bytes))));
    let written: Vec<Event> = turn.history.clone();
    begin(&forebay, "order", turn).await;

    let rows = forebay.on_writer_connection(|connection| {
        let sql = "SELECT count(*), max(length(record)) FROM history";
        connection.query_row(sql, [], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))
    });
    let (rows, longest) = rows.expect("the engine runs").expect("there are rows");
    assert!(rows > 100 && longest <= LIMIT as i64, "{rows} rows, the longest of {longest} bytes");

    // A duplicate anywhere in the parts is still seen.
    for id in [1, 57, 401] {
        let kind = EventKind::ExternalEvent { name: "again".into(), data: String::new() };
        let again = vec![engine_support::event("order", 1, id, kind)];
        let error = bounded(forebay.append_with_execution("order", 1, again)).await.expect_err("a duplicate");
        assert!(error.message.contains("duplicate event"), "{error}");
    }
    forebay.close().expect("it closes");
    let reopened = place.open(options());
    assert_eq!(bounded(reopened.read("order")).await.expect("it is read"), written);
}

/// The codec has a ceiling of its own, which no record may pass and every turn may. Read back, it is whole.
#[tokio::test]
async fn a_turn_over_the_codecs_ceiling_is_stored() {
    const MIB: usize = 1 << 20;
    let place = Place::new();
    let options = || Options::default().buffer_ops_max(16);
    let forebay = place.open(options());
    let text = large(MIB);
    let turn = Turn::first("order");
    let mut ack = Turn::of(1, (2..=261).map(|id| heard("order", id, &text)).collect());
    ack.messages.push(raised("order", "again"));
    begin(&forebay, "order", turn).await;
    enqueue(&forebay, raised("order", "bell")).await;
    let turn = fetch(&forebay).await.expect("it is there");
    bounded(ack.ack(&forebay, &turn.token)).await.expect("no turn is too large");
    forebay.close().expect("it closes");
    let reopened = place.open(options());
    let turn = fetch(&reopened).await.expect("there was another message");
    assert_eq!((turn.item.history.len(), turn.item.history_error), (261, None));
    let is_whole =
        |event: &Event| matches!(&event.kind, EventKind::ExternalEvent { data, .. } if *data == text);
    assert!(turn.item.history[1..].iter().all(is_whole));
    reopened.close().expect("it closes");
}

/// Memory has room for so many items only. What it has none for is read back from its row, or, where it is handed
/// out in the batch it came in, from what is about to be written.
#[tokio::test]
async fn items_for_which_memory_has_no_room() {
    const ROOM: usize = 32 << 20;
    const LARGE: usize = 2 << 20;
    let place = Place::new();
    let forebay = place.open(Options::default());
    begin(&forebay, "order", Turn::first("order")).await;
    for _ in 0..ROOM / LARGE {
        enqueue(&forebay, raised_with("waits", LARGE)).await;
    }
    let mut large_start = start("large");
    let WorkItem::StartOrchestration { input, .. } = &mut large_start else {
        unreachable!("start() makes starts")
    };
    *input = large(LARGE);
    let mut turn = Polled::submitted(forebay.fetch_orchestration_item(LOCK, HOUR, None));
    let mut work = Polled::submitted(forebay.fetch_work_item(LOCK, HOUR, None, &TagFilter::Any));
    settle(&forebay).await;
    enqueue(&forebay, large_start.clone()).await;
    enqueue_work(&forebay, activity_with("order", 2, LARGE)).await;
    turn.wait_for_wake(1);
    work.wait_for_wake(1);
    let (item, ..) = turn.poll().expect("an answer").expect("it works").expect("a turn");
    assert_eq!(item.messages, [large_start]);
    let (item, ..) = work.poll().expect("an answer").expect("it works").expect("an activity");
    assert_eq!(item, activity_with("order", 2, LARGE));

    enqueue(&forebay, start("waits")).await;
    let waited = fetch(&forebay).await.expect("it can start now").item.messages;
    assert_eq!(waited.len(), ROOM / LARGE + 1);
    assert!(waited[..ROOM / LARGE].iter().all(|item| *item == raised_with("waits", LARGE)));
    forebay.close().expect("it closes");
}

/// A record that is larger than the whole buffer and a whole batch still goes through, alone.
#[tokio::test]
async fn a_record_larger_than_buffer_and_batch() {
    let place = Place::new();
    let options = || Options::default().buffer_ops_max(2).batch_bytes_max(1000).readers(1);
    let forebay = place.open(options());
    begin(&forebay, "order", Turn::first("order")).await;
    let huge = large(3 << 20);
    let item = |n: usize| WorkItem::ExternalRaised {
        instance: "order".into(),
        name: format!("bell-{n}"),
        data: if n == 2 { huge.clone() } else { "small".into() },
    };
    let enqueues: Vec<_> = (0..5).map(|n| forebay.enqueue_for_orchestrator(item(n), None)).collect();
    for enqueued in enqueues {
        bounded(enqueued).await.expect("it is taken");
    }
    forebay.close().expect("it closes");
    let turn = fetch(&place.open(options())).await.expect("it is there");
    assert_eq!(turn.item.messages, (0..5).map(item).collect::<Vec<_>>());
}
