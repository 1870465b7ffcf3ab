//! A future dropped at any of its awaits: a write that was submitted is done, once and whole; one that was
//! not has left no trace. Fetches are in `dropping_fetches.rs`.
//!
//! Every method is polled k times and dropped, for k from nothing to its end, with the writer idle, with the
//! answer lying ready, and with a buffer so full that the permit is one of the awaits.

#![cfg(feature = "duroxide")]

mod engine_support;

use std::time::Duration;

use duroxide::providers::{InstanceFilter, Provider, ProviderAdmin, ProviderError, PruneOptions, WorkItem};
use engine_support::calls::{Boxed, Tokens, every_call};
use engine_support::polled::{Hold, Polled};
use engine_support::{
    HOUR, LOCK, MILLISECOND, PATIENCE, Place, START_MS, Turn, activity, begin, bounded, completed, depths,
    enqueue, enqueue_work, fetch, fetch_work, fetch_work_as, heard, raised, routed, session, settle, start,
    started,
};
use forebay::clock::ManualClock;
use forebay::{Forebay, Options};

/// Something for every method to work on.
struct Scene {
    forebay: Forebay,
    clock: ManualClock,
    tokens: Tokens,
}

impl Scene {
    /// A leased turn of `order`; a leased activity of the session `cart` and another one that waits; a session
    /// that has run out and has no items; `done`, which has ended after two executions.
    async fn new() -> Self {
        let clock = ManualClock::new(START_MS);
        let options = Options::default().buffer_ops_max(1).clock(clock.clone());
        let forebay = options.in_memory().expect("it opens");

        begin(&forebay, "done", Turn::first("done").ending("ContinuedAsNew")).await;
        enqueue(&forebay, raised("done", "bell")).await;
        let turn = fetch(&forebay).await.expect("it is there");
        let end = Turn::starting("done", 2).ending("Completed").ack(&forebay, &turn.token);
        bounded(end).await.expect("it is acknowledged");

        enqueue_work(&forebay, routed("order", 1, Some("gone"), None)).await;
        let soon_over = session("nobody", MILLISECOND);
        let filter = duroxide::providers::TagFilter::Any;
        let gone = bounded(forebay.fetch_work_item(LOCK, Duration::ZERO, Some(&soon_over), &filter)).await;
        let (_, token, _) = gone.expect("it works").expect("it is there");
        bounded(forebay.ack_work_item(&token, None)).await.expect("it is acknowledged");
        clock.advance(2 * MILLISECOND);

        enqueue(&forebay, start("order")).await;
        let turn = fetch(&forebay).await.expect("it is there").token;
        enqueue_work(&forebay, routed("order", 5, Some("cart"), None)).await;
        enqueue_work(&forebay, routed("order", 6, Some("cart"), None)).await;
        let work = fetch_work_as(&forebay, "owner").await.expect("it is there").token;
        Self { forebay, clock, tokens: Tokens { turn, work } }
    }
}

type Write = for<'a> fn(&'a Scene) -> Boxed<'a, Result<(), ProviderError>>;
type Happened = for<'a> fn(&'a Scene) -> Boxed<'a, bool>;

/// A method that writes, and how to tell afterwards whether it did. `happened` fails on anything in between
/// and on anything done twice.
const WRITES: &[(&str, Write, Happened)] = &[
    ("ack_orchestration_item", |s| Box::pin(acknowledge(s)), |s| Box::pin(acknowledged(s))),
    (
        "abandon_orchestration_item",
        |s| Box::pin(s.forebay.abandon_orchestration_item(&s.tokens.turn, None, false)),
        |s| Box::pin(async { fetch(&s.forebay).await.inspect(|turn| assert_eq!(turn.attempt, 2)).is_some() }),
    ),
    (
        "renew_orchestration_item_lock",
        |s| Box::pin(s.forebay.renew_orchestration_item_lock(&s.tokens.turn, HOUR)),
        |s| {
            Box::pin(async {
                s.clock.advance(LOCK);
                fetch(&s.forebay).await.is_none()
            })
        },
    ),
    (
        "append_with_execution",
        |s| {
            Box::pin(s.forebay.append_with_execution(
                "new",
                1,
                vec![heard("new", 1, "a"), heard("new", 2, "b")],
            ))
        },
        |s| Box::pin(async { one_of(bounded(s.forebay.read("new")).await.expect("it is read").len(), 0, 2) }),
    ),
    (
        "enqueue_for_orchestrator",
        |s| Box::pin(s.forebay.enqueue_for_orchestrator(start("new"), None)),
        |s| Box::pin(async { one_of(depths(&s.forebay).await.0, 0, 1) }),
    ),
    (
        "enqueue_for_worker",
        |s| Box::pin(s.forebay.enqueue_for_worker(activity("order", 7))),
        |s| Box::pin(async { one_of(depths(&s.forebay).await.1, 1, 2) }),
    ),
    (
        "ack_work_item",
        |s| Box::pin(s.forebay.ack_work_item(&s.tokens.work, Some(completed("order", 5)))),
        |s| {
            Box::pin(async {
                let held = bounded(s.forebay.renew_work_item_lock(&s.tokens.work, LOCK)).await.is_ok();
                let answered = one_of(depths(&s.forebay).await.0, 0, 1);
                assert_ne!(held, answered, "the activity ends when its completion is there");
                answered
            })
        },
    ),
    (
        "abandon_work_item",
        |s| Box::pin(s.forebay.abandon_work_item(&s.tokens.work, None, true)),
        |s| Box::pin(async { one_of(depths(&s.forebay).await.1, 1, 2) }),
    ),
    (
        "renew_work_item_lock",
        |s| Box::pin(s.forebay.renew_work_item_lock(&s.tokens.work, HOUR)),
        |s| {
            Box::pin(async {
                s.clock.advance(LOCK);
                one_of(depths(&s.forebay).await.1, 2, 1)
            })
        },
    ),
    (
        "renew_session_lock",
        |s| Box::pin(async { s.forebay.renew_session_lock(&["owner"], HOUR, HOUR).await.map(drop) }),
        |s| {
            Box::pin(async {
                s.clock.advance(LOCK);
                fetch_work_as(&s.forebay, "other").await.is_none()
            })
        },
    ),
    (
        "cleanup_orphaned_sessions",
        |s| Box::pin(async { s.forebay.cleanup_orphaned_sessions(HOUR).await.map(drop) }),
        |s| {
            Box::pin(async {
                let left = bounded(s.forebay.cleanup_orphaned_sessions(HOUR)).await.expect("it is swept");
                one_of(left, 1, 0)
            })
        },
    ),
    (
        "delete_instances_atomic",
        |s| Box::pin(async { s.forebay.delete_instances_atomic(&["done".into()], false).await.map(drop) }),
        |s| Box::pin(gone(s)),
    ),
    (
        "delete_instance_bulk",
        |s| Box::pin(async { s.forebay.delete_instance_bulk(InstanceFilter::default()).await.map(drop) }),
        |s| Box::pin(gone(s)),
    ),
    (
        "prune_executions",
        |s| Box::pin(async { s.forebay.prune_executions("done", PruneOptions::default()).await.map(drop) }),
        |s| Box::pin(pruned(s)),
    ),
    (
        "prune_executions_bulk",
        |s| {
            Box::pin(async {
                let (filter, options) = (InstanceFilter::default(), PruneOptions::default());
                s.forebay.prune_executions_bulk(filter, options).await.map(drop)
            })
        },
        |s| Box::pin(pruned(s)),
    ),
];

fn one_of<T: PartialEq + std::fmt::Debug>(found: T, before: T, after: T) -> bool {
    assert!(found == before || found == after, "{found:?} is neither {before:?} nor {after:?}");
    found == after
}

async fn acknowledge(scene: &Scene) -> Result<(), ProviderError> {
    let mut turn = Turn::first("order");
    turn.history.push(heard("order", 2, "ring"));
    turn.work.push(activity("order", 7));
    turn.messages.push(start("child"));
    turn.ack(&scene.forebay, &scene.tokens.turn).await
}

/// Everything the turn wrote, or nothing of it.
async fn acknowledged(scene: &Scene) -> bool {
    let forebay = &scene.forebay;
    let events = bounded(forebay.read("order")).await.expect("it is read").len();
    let known = bounded(forebay.get_instance_info("order")).await.is_ok();
    let held = bounded(forebay.renew_orchestration_item_lock(&scene.tokens.turn, LOCK)).await.is_ok();
    one_of((events, known, held, depths(forebay).await), (0, false, true, (0, 1)), (2, true, false, (1, 2)))
}

async fn gone(scene: &Scene) -> bool {
    let events = bounded(scene.forebay.read("done")).await.expect("it is read").len();
    let executions = bounded(scene.forebay.list_executions("done")).await.expect("they are read");
    one_of((events, executions), (1, vec![1, 2]), (0, vec![]))
}

async fn pruned(scene: &Scene) -> bool {
    let events = bounded(scene.forebay.read_with_execution("done", 1)).await.expect("it is read").len();
    let executions = bounded(scene.forebay.list_executions("done")).await.expect("they are read");
    one_of((events, executions), (1, vec![1, 2]), (0, vec![2]))
}

/// Submitted at its first poll, dropped before or after it is answered.
#[tokio::test]
async fn a_submitted_write_is_done_whole_and_once() {
    for (method, write, happened) in WRITES {
        for polls in 0..=2 {
            for answer_awaited in [false, true] {
                let scene = Scene::new().await;
                let mut future = Polled::new(write(&scene));
                for _ in 0..polls {
                    if future.poll().is_some() {
                        break;
                    }
                    if answer_awaited {
                        future.wait_for_wake(1);
                    }
                }
                drop(future);
                settle(&scene.forebay).await;
                let expected = polls > 0;
                assert_eq!(happened(&scene).await, expected, "{method} after {polls} polls");
            }
        }
    }
}

/// With room for one operation and the writer held up, the first await is the one for a permit.
#[tokio::test]
async fn a_write_that_waits_for_room_is_not_submitted() {
    for (method, write, happened) in WRITES {
        // Never polled; waiting for room; room made but not taken; submitted; answered.
        for stage in 0..=4 {
            let scene = Scene::new().await;
            let hold = Hold::on(&scene.forebay);
            let mut filler =
                Polled::submitted(scene.forebay.enqueue_for_orchestrator(start("filler"), Some(HOUR)));
            let mut future = Polled::new(write(&scene));
            if stage >= 1 {
                assert!(future.poll().is_none(), "{method}: there was room");
                assert_eq!(future.wakes(), 0);
            }
            let mut hold = Some(hold);
            if stage >= 2 {
                hold.take().expect("it is held").release();
                future.wait_for_wake(1);
            }
            if stage >= 3 {
                let done = future.poll().is_some();
                if stage == 4 && !done {
                    future.wait_for_wake(2);
                    future.poll().expect("it was woken for its answer").expect("it works");
                }
            }
            drop(future);
            if let Some(hold) = hold {
                hold.release();
            }
            filler.wait_for_wake(1);
            filler.poll().expect("it was woken for its answer").expect("it works");
            // The filler is in the queue too; it is delayed, so that nobody gets it.
            drop(filler);
            remove_filler(&scene).await;
            assert_eq!(happened(&scene).await, stage >= 3, "{method} at stage {stage}");
        }
    }
}

async fn remove_filler(scene: &Scene) {
    let ids = ["filler".to_owned()];
    let deleted = bounded(scene.forebay.delete_instances_atomic(&ids, true)).await.expect("it is deleted");
    assert_eq!(deleted.queue_messages_deleted, 1);
}

/// Dropped reads give back what they read with: with one reading connection, the next read still works, and
/// so does the close.
#[tokio::test]
async fn every_method_can_be_dropped_at_every_await() {
    let place = Place::new();
    let forebay = place.open(Options::default().readers(1).buffer_ops_max(1));
    begin(&forebay, "order", Turn::first("order")).await;
    let tokens = Tokens { turn: "none".into(), work: "none".into() };
    for polls in 0..=3 {
        for at_once in [true, false] {
            for (method, call) in every_call(&forebay, "order", &tokens) {
                let mut call = Polled::new(call);
                let waits = !method.starts_with("fetch");
                for poll in 1..=polls {
                    if call.poll().is_some() {
                        break;
                    }
                    if !at_once && waits {
                        call.wait_for_wake(poll);
                    }
                }
            }
        }
        settle(&forebay).await;
        bounded(forebay.read("order")).await.expect("there is still a connection to read with");
    }
    forebay.close().expect("nothing is left to wait for");
}

/// Writes cut off at random from many threads: what was enqueued is there once, in whole.
#[test]
fn many_threads_that_lose_interest() {
    const THREADS: u64 = 6;
    const WRITES_EACH: u64 = 300;
    let place = Place::new();
    let forebay = place.open(Options::default().buffer_ops_max(4));
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let forebay = forebay.clone();
            started(move || {
                let mut submitted = Vec::new();
                for n in 0..WRITES_EACH {
                    let id = thread * WRITES_EACH + n;
                    let mut write = Polled::new(forebay.enqueue_for_worker(activity("order", id)));
                    let mut answered = false;
                    for _ in 0..=(id * 7919 % 5) {
                        answered = answered || write.poll().is_some();
                        for _ in 0..(id * 104_729 % 400) {
                            std::hint::spin_loop();
                        }
                        if answered {
                            break;
                        }
                    }
                    if answered {
                        submitted.push(id);
                    }
                }
                submitted
            })
        })
        .collect();
    let answered: Vec<Vec<u64>> =
        threads.iter().map(|thread| thread.recv_timeout(PATIENCE).expect("nobody hangs")).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let mut found: Vec<u64> = runtime.block_on(async {
        let mut found = Vec::new();
        while let Some(work) = fetch_work(&forebay).await {
            let WorkItem::ActivityExecute { id, .. } = work.item else { panic!("another item") };
            found.push(id);
        }
        found
    });
    found.sort_unstable();
    let count = found.len();
    found.dedup();
    assert_eq!(found.len(), count, "something was written twice");
    for id in answered.into_iter().flatten() {
        assert!(found.binary_search(&id).is_ok(), "{id} was acknowledged and is not there");
    }
}
