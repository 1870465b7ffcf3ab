//! Histories that the engine keeps in memory are never anything but what the file says. `on_writer_connection`
//! makes it forget them, so an engine that is asked through it each time is the one to compare with.

#![cfg(feature = "duroxide")]

mod engine_support;

use duroxide::Event;
use duroxide::providers::{Provider, ProviderAdmin, PruneOptions};
use engine_support::{
    Place, Turn, begin, bounded, bounded_thread, enqueue, fetch, heard, on_manual_clock, raised, start,
    started_event,
};
use forebay::{Forebay, Options};
use proptest::prelude::*;
use proptest::test_runner::Config;

fn ids(events: &[Event]) -> Vec<u64> {
    events.iter().map(Event::event_id).collect()
}

/// What is read of the latest execution and of the first three: from memory where it is kept there, and from
/// the file.
async fn read_everything(forebay: &Forebay, instance: &str) -> Vec<Vec<u64>> {
    let mut found = vec![ids(&bounded(forebay.read(instance)).await.expect("it is read"))];
    for execution in 1..=3 {
        let events = bounded(forebay.read_with_execution(instance, execution)).await.expect("it is read");
        found.push(ids(&events));
    }
    found
}

async fn assert_as_in_the_file(forebay: &Forebay, instance: &str) -> Vec<Vec<u64>> {
    let from_memory = read_everything(forebay, instance).await;
    forebay.on_writer_connection(|_| ()).expect("the engine runs");
    assert_eq!(
        from_memory,
        read_everything(forebay, instance).await,
        "latest, first, second, third execution"
    );
    from_memory
}

async fn next_turn(forebay: &Forebay, turn: Turn) {
    enqueue(forebay, raised("order", "bell")).await;
    let fetched = fetch(forebay).await.expect("it is there");
    bounded(turn.ack(forebay, &fetched.token)).await.expect("it is acknowledged");
}

/// One instance is deleted and made again while others stay, and then the others go.
#[test]
fn an_instance_may_come_and_go_for_ever() {
    bounded_thread(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(async {
            let (forebay, _clock) = on_manual_clock();
            let others: Vec<_> = (0..40).map(|n| format!("other-{n}")).collect();
            for other in &others {
                begin(&forebay, other, Turn::first(other)).await;
            }
            for _ in 0..60 {
                begin(&forebay, "order", Turn::first("order")).await;
                bounded(forebay.delete_instance("order", true)).await.expect("it is deleted");
            }
            begin(&forebay, "order", Turn::first("order")).await;
            for other in &others {
                bounded(forebay.delete_instance(other, true)).await.expect("it is deleted");
            }
            assert_eq!(bounded(forebay.read("order")).await.expect("it is read").len(), 1);
        });
    });
}

/// A new execution without events of its own is the latest all the same.
#[tokio::test]
async fn an_execution_that_begins_without_events() {
    let (forebay, _clock) = on_manual_clock();
    begin(&forebay, "order", Turn::first("order").ending("ContinuedAsNew")).await;
    next_turn(&forebay, Turn::of(2, vec![])).await;
    let read = read_everything(&forebay, "order").await;
    assert_eq!(read, [vec![], vec![1], vec![], vec![]], "latest, first, second, third execution");
    // And what is pruned is gone.
    bounded(forebay.prune_executions("order", PruneOptions::default())).await.expect("it is pruned");
    assert_as_in_the_file(&forebay, "order").await;
}

/// A history can come before the turn that names its instance; the parent is known from that turn on.
#[tokio::test]
async fn an_instance_that_is_named_after_its_history() {
    let (forebay, _clock) = on_manual_clock();
    begin(&forebay, "parent", Turn::first("parent")).await;
    bounded(forebay.append_with_execution("child", 1, vec![started_event("child", 1)])).await.expect("taken");
    bounded(forebay.get_instance_info("child")).await.expect_err("it has no name yet");
    enqueue(&forebay, raised("child", "bell")).await;
    let turn = fetch(&forebay).await.expect("it has a start");
    let mut named = Turn::first("child");
    named.history = vec![heard("child", 2, "ring")];
    named.metadata.parent_instance_id = Some("parent".into());
    bounded(named.ack(&forebay, &turn.token)).await.expect("it is taken");
    assert_eq!(
        bounded(forebay.get_parent_id("child")).await.expect("it is known").as_deref(),
        Some("parent")
    );
    assert_eq!(bounded(forebay.list_children("parent")).await.expect("they are listed"), ["child"]);
    assert_eq!(assert_as_in_the_file(&forebay, "child").await[0], [1, 2]);
}

/// Events are read in their order, whatever the order in which they were written.
#[tokio::test]
async fn a_gap_that_is_filled_later() {
    let (forebay, _clock) = on_manual_clock();
    let mut first = Turn::first("order");
    first.history.push(heard("order", 5, "early"));
    begin(&forebay, "order", first).await;
    next_turn(&forebay, Turn::of(1, vec![heard("order", 3, "late"), heard("order", 2, "later")])).await;
    let read = read_everything(&forebay, "order").await;
    assert_eq!(read[0], [1, 2, 3, 5]);
    enqueue(&forebay, raised("order", "bell")).await;
    let turn = fetch(&forebay).await.expect("it is there");
    assert_eq!(ids(&turn.item.history), [1, 2, 3, 5], "a turn sees them in their order too");
    assert_as_in_the_file(&forebay, "order").await;
}

/// A turn for an execution that is no longer the latest.
#[tokio::test]
async fn a_late_turn_of_an_earlier_execution() {
    let (forebay, _clock) = on_manual_clock();
    begin(&forebay, "order", Turn::first("order").ending("ContinuedAsNew")).await;
    next_turn(&forebay, Turn::starting("order", 2)).await;
    next_turn(&forebay, Turn::of(1, vec![heard("order", 2, "late")])).await;
    let read = assert_as_in_the_file(&forebay, "order").await;
    assert_eq!(read, [vec![1], vec![1, 2], vec![1], vec![]]);
}

/// More than is ever kept: what does not fit is read from the file.
#[tokio::test]
async fn more_histories_than_are_kept() {
    let place = Place::new();
    let forebay = place.open(Options::default());
    // 48 MiB of records.
    for n in 0..24 {
        let name = format!("order-{n}");
        let mut turn = Turn::first(&name);
        turn.history.extend((2..10).map(|id| heard(&name, id, &"x".repeat(256 << 10))));
        begin(&forebay, &name, turn).await;
    }
    for n in 0..24 {
        let name = format!("order-{n}");
        assert_eq!(
            ids(&bounded(forebay.read(&name)).await.expect("it is read")),
            (1..10).collect::<Vec<_>>()
        );
    }
}

/// One thing that is done to the one instance.
#[derive(Debug, Clone)]
enum Step {
    /// A turn that writes so many events after those it saw, in the current execution or a new one.
    Turn {
        events: u64,
        continues_as_new: bool,
    },
    Append {
        events: u64,
    },
    Prune,
    Delete,
    /// What is kept in memory is forgotten.
    Forget,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_u64..4, any::<bool>(), any::<bool>())
            .prop_map(|(events, one, two)| Step::Turn { events, continues_as_new: one && two }),
        2 => (1_u64..3).prop_map(|events| Step::Append { events }),
        1 => Just(Step::Prune),
        1 => Just(Step::Delete),
        1 => Just(Step::Forget),
    ]
}

async fn take(forebay: &Forebay, step: &Step) {
    match step {
        Step::Turn { events, continues_as_new } => {
            enqueue(forebay, start("order")).await;
            let turn = fetch(forebay).await.expect("it is there");
            let history = &turn.item.history;
            // An instance that so far was only appended to has nothing to continue.
            let again = *continues_as_new && bounded(forebay.get_instance_info("order")).await.is_ok();
            let execution = turn.item.execution_id + u64::from(again);
            let last = if again { None } else { history.last() };
            let next = last.map_or(1, |last| last.event_id() + 1);
            let mut ack = Turn::starting("order", execution);
            ack.history = (next..next + events).map(|id| heard("order", id, "ring")).collect();
            bounded(ack.ack(forebay, &turn.token)).await.expect("it is acknowledged");
        }
        Step::Append { events } => {
            let latest = bounded(forebay.latest_execution_id("order")).await.expect("it is read");
            let seen = bounded(forebay.read_with_execution("order", latest)).await.expect("it is read");
            let next = seen.last().map_or(1, |last| last.event_id() + 1);
            let events = (next..next + events).map(|id| heard("order", id, "by hand")).collect();
            bounded(forebay.append_with_execution("order", latest, events)).await.expect("it is appended");
        }
        Step::Prune => {
            // There may be nothing to prune, and nothing at all.
            let _ = bounded(forebay.prune_executions("order", PruneOptions::default())).await;
        }
        Step::Delete => {
            let ids = ["order".to_owned()];
            bounded(forebay.delete_instances_atomic(&ids, true)).await.expect("it is deleted");
        }
        Step::Forget => forebay.on_writer_connection(|_| ()).expect("the engine runs"),
    }
}

proptest! {
    #![proptest_config(Config { cases: 48, failure_persistence: None, ..Config::default() })]

    /// Two engines are told the same; one of them forgets before each read.
    #[test]
    fn memory_says_what_the_file_says(steps in prop::collection::vec(step(), 1..30)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let (kept, read) = runtime.block_on(async {
            let (remembers, _clock) = on_manual_clock();
            let (forgets, _clock) = on_manual_clock();
            let (mut kept, mut read) = (Vec::new(), Vec::new());
            for step in &steps {
                take(&remembers, step).await;
                forgets.on_writer_connection(|_| ()).expect("the engine runs");
                take(&forgets, step).await;
                kept.push(read_everything(&remembers, "order").await);
                forgets.on_writer_connection(|_| ()).expect("the engine runs");
                read.push(read_everything(&forgets, "order").await);
            }
            (kept, read)
        });
        prop_assert_eq!(kept, read);
    }
}
