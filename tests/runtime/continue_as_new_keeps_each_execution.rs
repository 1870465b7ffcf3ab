//! Continue-as-new ends one execution and begins the next exactly once, with its input and the events not
//! yet taken; every execution's history stays readable, and nothing of an old one leaks into the new.

use duroxide::runtime::registry::ActivityRegistry;
use duroxide::{Event, EventKind, OrchestrationContext, OrchestrationRegistry};

use crate::support::Place;
use crate::support::host::{Host, Node};
use crate::support::probe::{Gate, Tally, holds, until, with};

everywhere!(
    each_execution_has_its_own_history,
    events_not_taken_are_carried_over,
    a_child_that_continues_still_answers,
    work_of_an_old_execution_is_not_heard,
);
across_a_restart!(between_two_executions, in_the_middle_of_the_second_execution);

fn counting() -> OrchestrationRegistry {
    OrchestrationRegistry::builder()
        .register("Count", |ctx: OrchestrationContext, n: String| async move {
            let done = ctx.schedule_activity("Work", n.clone()).await?;
            match n.parse::<u32>().unwrap() {
                4 => Ok(format!("counted to {n}, {done}")),
                n => ctx.continue_as_new((n + 1).to_string()).await,
            }
        })
        .register("Spell", |ctx: OrchestrationContext, spelt: String| async move {
            let spelt = spelt + &ctx.dequeue_event("letters").await;
            if spelt.len() == 4 { Ok(spelt) } else { ctx.continue_as_new(spelt).await }
        })
        .register("Parent", |ctx: OrchestrationContext, n: String| async move {
            ctx.schedule_sub_orchestration("Count", n).await
        })
        .register("Forsake", |ctx: OrchestrationContext, which: String| async move {
            let work = ctx.schedule_activity("Work", which.clone());
            if which == "old" {
                ctx.schedule_wait("go on").await;
                return ctx.continue_as_new("new").await;
            }
            work.await
        })
        .build()
}

fn counted(tally: &Tally) -> ActivityRegistry {
    ActivityRegistry::builder()
        .register("Work", with(tally, async |tally, _, what| Ok(format!("run {}", tally.note(&what)))))
        .build()
}

fn input_of(history: &[Event]) -> &str {
    match &history[0].kind {
        EventKind::OrchestrationStarted { input, .. } => input,
        other => panic!("a history begins with its start, not {other:?}"),
    }
}

fn continues(kind: &EventKind) -> bool {
    matches!(kind, EventKind::OrchestrationContinuedAsNew { .. })
}

async fn each_execution_has_its_own_history(place: Place) {
    let tally = Tally::default();
    let host = Host::new(place, Node::new(counting(), counted(&tally))).await;

    host.start("counter", "Count", "1").await;

    assert_eq!(host.output("counter").await, "counted to 4, run 1");
    assert_eq!(tally.total(), 4);
    assert_eq!(host.client().list_executions("counter").await.unwrap(), [1, 2, 3, 4]);
    for execution in 1..=4 {
        let history = host.history("counter", execution).await;
        assert_eq!(input_of(&history), execution.to_string());
        assert!(history.iter().all(|event| event.execution_id == execution), "{history:#?}");
        assert_eq!(host.recorded("counter", execution, continues).await, usize::from(execution < 4));
        let info = host.client().get_execution_info("counter", execution).await.unwrap();
        assert_eq!(info.status, if execution < 4 { "ContinuedAsNew" } else { "Completed" });
        assert_eq!(info.event_count, history.len());
    }
    host.end().await;
}

async fn events_not_taken_are_carried_over(place: Place) {
    let host = Host::new(place, Node::new(counting(), ActivityRegistry::builder().build())).await;

    host.start("speller", "Spell", "").await;
    for letter in ["f", "l", "o", "w"] {
        host.enqueue("speller", "letters", letter).await;
    }

    assert_eq!(host.output("speller").await, "flow");
    assert_eq!(host.client().list_executions("speller").await.unwrap(), [1, 2, 3, 4]);
    host.end().await;
}

async fn a_child_that_continues_still_answers(place: Place) {
    let host = Host::new(place, Node::new(counting(), counted(&Tally::default()))).await;

    host.start("the-parent", "Parent", "2").await;

    assert_eq!(host.output("the-parent").await, "counted to 4, run 1");
    assert_eq!(host.client().list_executions("the-parent::sub::2").await.unwrap(), [1, 2, 3]);
    host.end().await;
}

/// Both executions schedule the same activity at the same place in their histories, and the old one answers
/// while the new one is still waited for.
async fn work_of_an_old_execution_is_not_heard(place: Place) {
    let (tally, old, new) = (Tally::default(), Gate::shut(), Gate::shut());
    let activities = ActivityRegistry::builder()
        .register(
            "Work",
            with(&(tally.clone(), old.clone(), new.clone()), async |(tally, old, new), _, which| {
                tally.note(&format!("{which} begun"));
                if which == "old" {
                    old.pass().await
                } else {
                    new.pass().await
                }
                tally.note(&format!("{which} done"));
                Ok(which)
            }),
        )
        .build();
    let host = Host::new(place, Node::new(counting(), activities).with_workers(2)).await;

    host.start("fickle", "Forsake", "old").await;
    holds("the old work begun", || tally.of("old begun") == 1).await;
    host.raise("fickle", "go on", "").await;
    holds("the new work begun", || tally.of("new begun") == 1).await;
    old.open();
    holds("the old work done", || tally.of("old done") == 1).await;
    new.open();

    assert_eq!(host.output("fickle").await, "new");
    let answers = |kind: &EventKind| matches!(kind, EventKind::ActivityCompleted { .. });
    assert_eq!(host.recorded("fickle", 1, answers).await, 0);
    assert_eq!(host.recorded("fickle", 2, answers).await, 1);
    assert_eq!(tally.total(), 4, "nothing was tried again");
    host.end().await;
}

/// The second execution needs code that is deployed only after the restart, so the restart falls between
/// the two, with an event on its way and the values of the first in place.
async fn between_two_executions(place: Place) {
    let tally = Tally::default();
    let first = OrchestrationRegistry::builder().register_versioned(
        "Step",
        "1.0.0",
        |ctx: OrchestrationContext, input: String| async move {
            ctx.schedule_activity("Work", "first").await?;
            ctx.set_kv_value("left by", "the first");
            ctx.set_custom_status("on my way");
            ctx.schedule_wait("go on").await;
            ctx.continue_as_new_versioned("2.0.0", format!("{input} and on")).await
        },
    );
    let node = Node::new(first.build(), counted(&tally)).awaiting_deployment();
    let both = OrchestrationRegistry::builder().register_versioned(
        "Step",
        "2.0.0",
        |ctx: OrchestrationContext, input: String| async move {
            let letters = [ctx.dequeue_event("letters").await, ctx.dequeue_event("letters").await].concat();
            Ok(format!("{input} {letters} {:?} {:?}", ctx.get_kv_value("left by"), ctx.get_custom_status()))
        },
    );
    let later = Node::new(both.build(), counted(&tally)).awaiting_deployment();
    let mut host = Host::new(place, node).await;

    host.start("stepper", "Step", "on").await;
    host.enqueue("stepper", "letters", "a").await;
    host.until_recorded("stepper", 1, |kind| matches!(kind, EventKind::ExternalSubscribed { .. })).await;
    host.raise("stepper", "go on", "").await;
    host.until_recorded("stepper", 1, continues).await;
    host.crash().await;
    host.reopen().await;
    assert!(host.is_running("stepper").await);
    assert_eq!(host.client().get_kv_value("stepper", "left by").await.unwrap().as_deref(), Some("the first"));
    host.enqueue("stepper", "letters", "b").await;
    host.restart_as(vec![later]).await;

    assert_eq!(host.output("stepper").await, r#"on and on ab Some("the first") Some("on my way")"#);
    assert_eq!(host.client().list_executions("stepper").await.unwrap(), [1, 2]);
    assert_eq!(tally.total(), 1, "the first execution is over and not repeated");
    host.end().await;
}

async fn in_the_middle_of_the_second_execution(place: Place) {
    let (tally, gate) = (Tally::default(), Gate::shut());
    let activities = ActivityRegistry::builder()
        .register(
            "Work",
            with(&(tally.clone(), gate.clone()), async |(tally, gate), _, n| {
                let run = tally.note(&n);
                if n == "2" {
                    gate.pass().await;
                }
                Ok(format!("run {run}"))
            }),
        )
        .build();
    let mut host = Host::new(place, Node::new(counting(), activities)).await;

    host.start("counter", "Count", "1").await;
    holds("the second execution at work", || tally.of("2") == 1).await;
    host.restart().await;
    until("the second execution to be the current one", async || {
        (host.client().list_executions("counter").await.unwrap() == [1, 2]).then_some(())
    })
    .await;
    gate.open();

    assert_eq!(host.output("counter").await, "counted to 4, run 1");
    assert_eq!(tally.counts().into_values().collect::<Vec<_>>(), [1, 2, 1, 1]);
    assert_eq!(host.client().list_executions("counter").await.unwrap(), [1, 2, 3, 4]);
    host.end().await;
}
