//! Many callers, one transaction: each hears of its own operation, a refused one harms nobody, and the log
//! that all of it goes through stays small.
//!
//! A batch is forced by a delay that nobody lives to see the end of and a `batch_ops_max` that ends it: the
//! batch is exactly the operations that were made at the same time.

#![cfg(feature = "duroxide")]

mod engine_support;

use std::pin::Pin;
use std::time::Duration;

use duroxide::providers::{OrchestrationItem, Provider, ProviderAdmin, ProviderError, TagFilter, WorkItem};
use engine_support::calls::Boxed;
use engine_support::polled::Polled;
use engine_support::{
    Granted, HOUR, LOCK, PATIENCE, Place, Turn, activity, begin, bounded, completed, depths, enqueue,
    enqueue_work, event, fetch, fetch_work, heard, id_of, raised, start, started, started_event,
};
use forebay::{Forebay, Options, Stats};

/// Longer than a test may take: a batch ends when it is full, or the test fails.
const NEVER: Duration = Duration::from_secs(3600);

/// What was done since `before`.
fn since(forebay: &Forebay, before: Stats) -> (u64, u64, u64) {
    let now = forebay.stats();
    (now.batches - before.batches, now.operations - before.operations, now.commits - before.commits)
}

/// Makes all of the calls at once, in order, and waits for all the answers.
async fn at_once<T>(calls: Vec<Boxed<'_, T>>) -> Vec<T> {
    let mut calls: Vec<(Boxed<'_, T>, Option<T>)> = calls.into_iter().map(|call| (call, None)).collect();
    let all = std::future::poll_fn(|context| {
        for (call, answer) in &mut calls {
            if answer.is_none()
                && let std::task::Poll::Ready(found) = Pin::new(call).poll(context)
            {
                *answer = Some(found);
            }
        }
        match calls.iter().all(|(_, answer)| answer.is_some()) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    });
    bounded(all).await;
    calls.into_iter().filter_map(|(_, answer)| answer).collect()
}

/// `count` instances that run, each with a message and an activity.
async fn prepared(place: &Place, count: u64) {
    let forebay = place.open(Options::default());
    for n in 0..count {
        let name = format!("order-{n}");
        begin(&forebay, &name, Turn::first(&name)).await;
    }
    for n in 0..count {
        let name = format!("order-{n}");
        enqueue(&forebay, raised(&name, "bell")).await;
        enqueue_work(&forebay, activity(&name, n)).await;
    }
    forebay.close().expect("it closes");
}

type Answer = Result<(), ProviderError>;

#[tokio::test]
async fn a_refused_operation_fails_alone() {
    const COUNT: usize = 9;
    let place = Place::new();
    prepared(&place, 3).await;
    let forebay = place.open(Options::default().batch_ops_max(COUNT).commit_delay(NEVER));
    // Leases for all of them, and as many fetches as it takes to fill a batch.
    let before = forebay.stats();
    let turns: Vec<Boxed<'_, Granted<OrchestrationItem>>> = (0..COUNT)
        .map(|_| Box::pin(forebay.fetch_orchestration_item(LOCK, Duration::ZERO, None)) as Boxed<'_, _>)
        .collect();
    let turns: Vec<_> = at_once(turns).await.into_iter().filter_map(|turn| turn.expect("it works")).collect();
    assert_eq!(turns.len(), 3);
    assert_eq!(since(&forebay, before), (1, 9, 1));

    let token = |n: usize| turns[n].1.as_str();
    let good = |n: usize| Turn::of(1, vec![heard(&format!("order-{n}"), 2, "ring")]).ack(&forebay, token(n));
    let before = forebay.stats();
    let calls: Vec<Boxed<'_, Answer>> = vec![
        Box::pin(good(0)),
        // The same token again, in the same batch.
        Box::pin(Turn::of(1, vec![heard("order-0", 3, "ring")]).ack(&forebay, token(0))),
        Box::pin(Turn::of(1, vec![heard("order-1", 1, "duplicate")]).ack(&forebay, token(1))),
        Box::pin(forebay.append_with_execution("order-2", 1, vec![heard("order-2", 2, "by hand")])),
        // Collides with what is not committed yet.
        Box::pin(good(2)),
        Box::pin(forebay.ack_work_item(token(1), None)),
        Box::pin(good(1)),
        Box::pin(forebay.enqueue_for_orchestrator(raised("order-0", "after"), None)),
        Box::pin(async { forebay.delete_instances_atomic(&["order-1".into()], false).await.map(drop) }),
    ];
    let answers = at_once(calls).await;
    assert_eq!(since(&forebay, before), (2, 9, 1), "one batch and the deletion alone, one commit");
    let refusals = [1, 2, 4, 5, 8];
    for (n, answer) in answers.iter().enumerate() {
        assert_eq!(answer.is_err(), refusals.contains(&n), "operation {n}: {answer:?}");
    }
    let text = |n: usize| answers[n].as_ref().expect_err("it was refused").message.clone();
    assert!(text(1).contains("Invalid lock token"), "{}", text(1));
    assert!(text(2).contains("duplicate event") && text(4).contains("duplicate event"), "{}", text(4));
    assert!(text(5).contains("Invalid lock token") && text(8).contains("still running"));
    forebay.close().expect("it closes");

    let forebay = place.open(Options::default());
    for n in 0..3 {
        let events = bounded(forebay.read(&format!("order-{n}"))).await.expect("it is read");
        let ids: Vec<_> = events.iter().map(duroxide::Event::event_id).collect();
        assert_eq!(ids, [1, 2], "order-{n}");
    }
    // The turn that was refused is delivered again, the others are done.
    let mut waiting = Vec::new();
    while let Some(turn) = fetch(&forebay).await {
        waiting.push((turn.item.instance, turn.attempt));
    }
    assert_eq!(waiting, [("order-2".to_owned(), 2), ("order-0".to_owned(), 1)]);
}

/// What can be refused without looking at the database never reaches the writer.
#[tokio::test]
async fn what_is_wrong_in_itself_costs_no_batch() {
    let place = Place::new();
    prepared(&place, 1).await;
    let forebay = place.open(Options::default());
    let turn = fetch(&forebay).await.expect("it is there");
    let work = fetch_work(&forebay).await.expect("it is there");
    let before = forebay.stats();
    let zero = vec![heard("order-0", 0, "zero")];
    let twice = vec![heard("order-0", 2, "one"), heard("order-0", 2, "another")];
    let calls: Vec<Boxed<'_, Answer>> = vec![
        Box::pin(Turn::of(1, zero.clone()).ack(&forebay, &turn.token)),
        Box::pin(forebay.append_with_execution("order-0", 1, zero)),
        Box::pin(Turn::of(1, twice.clone()).ack(&forebay, &turn.token)),
        Box::pin(forebay.append_with_execution("order-0", 1, twice)),
        Box::pin(forebay.ack_work_item("no token at all", None)),
        Box::pin(forebay.ack_work_item(&work.token, Some(start("order-0")))),
        Box::pin(forebay.enqueue_for_worker(start("order-0"))),
        Box::pin(forebay.enqueue_for_orchestrator(activity("order-0", 2), None)),
    ];
    let expected = ["event id 0", "event id 0", "duplicate event", "duplicate event", "Invalid lock token"];
    let expected = expected.into_iter().chain(["invalid completion"]).chain(["invalid work item"; 2]);
    for (answer, expected) in at_once(calls).await.into_iter().zip(expected) {
        let error = answer.expect_err(expected);
        assert!(error.message.contains(expected) && !error.is_retryable(), "{error}");
    }
    assert_eq!(since(&forebay, before), (0, 0, 0));
    bounded(Turn::of(1, vec![]).ack(&forebay, &turn.token)).await.expect("the token is still good");
    let completion = Some(completed("order-0", 0));
    bounded(forebay.ack_work_item(&work.token, completion)).await.expect("and so is this one");
}

/// A hundred callers with a question each: everybody gets the answer to their own.
#[tokio::test]
async fn results_come_back_to_their_callers() {
    const COUNT: u64 = 100;
    let place = Place::new();
    prepared(&place, COUNT).await;
    let options = Options::default().batch_ops_max(COUNT as usize).commit_delay(NEVER);
    let forebay = place.open(options);
    let before = forebay.stats();
    let fetches: Vec<Boxed<'_, Granted<WorkItem>>> = (0..COUNT)
        .map(|_| Box::pin(forebay.fetch_work_item(LOCK, HOUR, None, &TagFilter::Any)) as Boxed<'_, _>)
        .collect();
    let granted = at_once(fetches).await;
    let granted: Vec<_> = granted.into_iter().map(|work| work.expect("it works").expect("an item")).collect();
    for (n, (item, ..)) in granted.iter().enumerate() {
        assert_eq!(id_of(item), n as u64, "in the order in which they asked");
    }
    assert_eq!(since(&forebay, before), (1, COUNT, 1));
    // Odd ones are told that they may go on, even ones that they may not.
    let renewals: Vec<Boxed<'_, Answer>> = granted
        .iter()
        .enumerate()
        .map(|(n, (_, token, _))| {
            let token = if n % 2 == 0 { format!("{token}fff") } else { token.clone() };
            let forebay = &forebay;
            Box::pin(async move { forebay.renew_work_item_lock(&token, HOUR).await }) as Boxed<'_, _>
        })
        .collect();
    for (n, answer) in at_once(renewals).await.into_iter().enumerate() {
        assert_eq!(answer.is_ok(), n % 2 == 1, "caller {n}");
    }
    // Their completions become the messages of the right instances.
    let acks: Vec<Boxed<'_, Answer>> = granted
        .iter()
        .map(|(item, token, _)| {
            let name = format!("order-{}", id_of(item));
            Box::pin(forebay.ack_work_item(token, Some(completed(&name, id_of(item))))) as Boxed<'_, _>
        })
        .collect();
    assert!(at_once(acks).await.iter().all(Result::is_ok));
    forebay.close().expect("it closes");
    let forebay = place.open(Options::default());
    for n in 0..COUNT {
        let turn = fetch(&forebay).await.expect("it is there");
        let name = format!("order-{n}");
        assert_eq!(turn.item.messages, [raised(&name, "bell"), completed(&name, n)]);
    }
}

/// A batch of attempts alone is a commit; renewing, and putting back as it was, write nothing.
#[tokio::test]
async fn batches_of_attempts_alone() {
    let place = Place::new();
    prepared(&place, 1).await;
    let forebay = place.open(Options::default());
    for attempt in 1..=3 {
        let before = forebay.stats();
        let turn = fetch(&forebay).await.expect("it is there");
        let work = fetch_work(&forebay).await.expect("it is there");
        assert_eq!((turn.attempt, work.attempt), (attempt, attempt));
        assert_eq!(since(&forebay, before), (2, 2, 2), "the attempts are written");
        let before = forebay.stats();
        bounded(forebay.renew_orchestration_item_lock(&turn.token, HOUR)).await.expect("renewed");
        bounded(forebay.renew_work_item_lock(&work.token, HOUR)).await.expect("renewed");
        bounded(forebay.abandon_orchestration_item(&turn.token, None, false)).await.expect("put back");
        bounded(forebay.abandon_work_item(&work.token, None, false)).await.expect("put back");
        assert_eq!(depths(&forebay).await, (1, 1));
        assert_eq!(since(&forebay, before), (5, 5, 0));
    }
    // They are in the file, although nobody waited for the disk.
    forebay.close().expect("it closes");
    let forebay = place.open(Options::default());
    assert_eq!(fetch(&forebay).await.map(|turn| turn.attempt), Some(4));
    assert_eq!(fetch_work(&forebay).await.map(|work| work.attempt), Some(4));
}

/// A message enqueued while somebody waits for it is one row, written once, with its attempt.
#[tokio::test]
async fn a_message_that_is_waited_for_is_written_once() {
    let place = Place::new();
    let forebay = place.open(Options::default());
    let mut waiting = Polled::submitted(forebay.fetch_orchestration_item(LOCK, HOUR, None));
    depths(&forebay).await;
    let before = forebay.stats();
    enqueue(&forebay, start("order")).await;
    waiting.wait_for_wake(1);
    let (_, token, attempt) = waiting.poll().expect("an answer").expect("it works").expect("an item");
    assert_eq!((attempt, since(&forebay, before)), (1, (1, 1, 1)));
    // In and out within one batch: nothing of it but the turn.
    let work = Polled::submitted(forebay.fetch_work_item(LOCK, HOUR, None, &TagFilter::Any));
    let mut ack = Turn::first("order");
    ack.work.push(activity("order", 2));
    bounded(ack.ack(&forebay, &token)).await.expect("it is acknowledged");
    work.wait_for_wake(1);
    let attempt = forebay.on_writer_connection(|c| {
        c.query_row("SELECT attempt FROM work", [], |row| row.get::<_, i64>(0)).expect("one row")
    });
    assert_eq!(attempt.expect("the engine runs"), 1);
}

/// Callers from many threads, nothing forced: everybody is served, and the numbers add up.
#[test]
fn many_threads_share_their_commits() {
    const THREADS: u64 = 8;
    const EACH: u64 = 100;
    let place = Place::new();
    let forebay = place.open(Options::default());
    let before = forebay.stats();
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let forebay = forebay.clone();
            started(move || {
                for n in 0..EACH {
                    let name = format!("order-{thread}-{n}");
                    let execution = n % 3 + 1;
                    let events = vec![started_event(&name, execution)];
                    Polled::new(forebay.append_with_execution(&name, execution, events))
                        .finish()
                        .expect("appended");
                    let kind = duroxide::EventKind::OrchestrationCompleted { output: name.clone() };
                    let again = vec![event(&name, execution, 1, kind)];
                    let refused =
                        Polled::new(forebay.append_with_execution(&name, execution, again)).finish();
                    let error = refused.expect_err("it is a duplicate");
                    assert!(error.message.contains("duplicate event"), "{error}");
                }
            })
        })
        .collect();
    for thread in threads {
        thread.recv_timeout(PATIENCE).expect("everybody is served");
    }
    let (batches, operations, commits) = since(&forebay, before);
    assert_eq!(operations, THREADS * EACH * 2);
    assert!(commits <= batches && batches <= operations, "{:?}", forebay.stats());
    assert!(commits < THREADS * EACH, "commits are shared: {:?}", forebay.stats());
    assert!(forebay.stats().bytes_written > commits * 4096, "{:?}", forebay.stats());
}

/// The log is started over long before everything that went through it would fit, and is gone at the end.
#[test]
fn the_log_does_not_grow_under_load() {
    const LIMIT: u64 = 512 << 10;
    let place = Place::new();
    let forebay = place.open(Options::default().wal_bytes_max(LIMIT).batch_ops_max(16));
    let load = |thread: u64, forebay: Forebay| {
        move || {
            for n in 0..300 {
                let item = WorkItem::ExternalRaised {
                    instance: format!("order-{thread}"),
                    name: n.to_string(),
                    data: "x".repeat(4000),
                };
                Polled::new(forebay.enqueue_for_orchestrator(item, None)).finish().expect("it is taken");
            }
        }
    };
    let threads: Vec<_> = (0..4).map(|thread| started(load(thread, forebay.clone()))).collect();
    let mut longest = 0;
    for thread in threads {
        while thread.recv_timeout(Duration::from_millis(1)).is_err() {
            longest = longest.max(place.wal_bytes());
        }
    }
    longest = longest.max(place.wal_bytes());
    let stats = forebay.stats();
    assert!(stats.bytes_written > 8 * LIMIT, "enough to see it: {stats:?}");
    // What one batch adds at most to a log that has just not reached its limit.
    let batch = 256 << 10;
    assert!(longest <= LIMIT + batch, "the log had {longest} bytes: {stats:?}");
    assert!(stats.checkpoints >= stats.bytes_written / (LIMIT + batch), "{stats:?}");
    forebay.close().expect("it closes");
    assert_eq!(place.wal_bytes(), 0, "the log is cut at close");
    let count = rusqlite::Connection::open(place.path()).expect("SQLite opens it");
    let count: i64 =
        count.query_row("SELECT count(*) FROM messages", [], |row| row.get(0)).expect("a number");
    assert_eq!(count, 1200);
}

/// What nobody takes for a while is put right in its row.
#[tokio::test]
async fn a_first_attempt_that_is_not_made_is_not_counted_for_long() {
    let place = Place::new();
    let forebay = place.open(Options::default());
    enqueue(&forebay, start("order")).await;
    enqueue_work(&forebay, activity("order", 2)).await;
    let attempts = || {
        let sql = "SELECT (SELECT attempt FROM messages), (SELECT attempt FROM work)";
        let read = |c: &rusqlite::Connection| c.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)));
        forebay.on_writer_connection(read).expect("the engine runs").expect("two rows")
    };
    let began = std::time::Instant::now();
    while attempts() != (0_i64, 0_i64) {
        assert!(began.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(fetch(&forebay).await.map(|turn| turn.attempt), Some(1));
    assert_eq!(fetch_work(&forebay).await.map(|work| work.attempt), Some(1));
}

/// The first attempt is in the row from the start: to be given what waits is no commit. A clean close leaves in the
/// rows what was tried, and a crash one attempt more at most.
#[tokio::test]
async fn a_first_attempt_is_no_commit() {
    let place = Place::new();
    let forebay = place.open(Options::default());
    for name in ["given", "waits"] {
        enqueue(&forebay, start(name)).await;
        enqueue_work(&forebay, activity(name, 2)).await;
    }
    let before = forebay.stats();
    assert_eq!(fetch(&forebay).await.map(|turn| turn.attempt), Some(1));
    assert_eq!(fetch_work(&forebay).await.map(|work| work.attempt), Some(1));
    assert_eq!(since(&forebay, before), (2, 2, 0));
    // As a process that is killed leaves it.
    let crashed = place.path().with_file_name("crashed.db");
    let copy = crashed.display().to_string();
    let copied = forebay.on_writer_connection(move |c| c.execute("VACUUM INTO ?1", [copy]));
    copied.expect("the engine runs").expect("it is copied");
    forebay.close().expect("it closes");

    let attempts = async |forebay: &Forebay| {
        let mut attempts = Vec::new();
        while let Some(turn) = fetch(forebay).await {
            attempts.push((turn.item.instance, turn.attempt));
        }
        while let Some(work) = fetch_work(forebay).await {
            attempts.push((format!("{:?}", id_of(&work.item)), work.attempt));
        }
        attempts
    };
    let forebay = place.open(Options::default());
    let was = [("given", 2), ("waits", 1), ("2", 2), ("2", 1)].map(|(of, attempt)| (of.to_owned(), attempt));
    assert_eq!(attempts(&forebay).await, was);
    let forebay = Options::default().open(crashed).expect("it opens");
    let was = [("given", 2), ("waits", 2), ("2", 2), ("2", 2)].map(|(of, attempt)| (of.to_owned(), attempt));
    assert_eq!(attempts(&forebay).await, was);
}
