//! What a client can ask of the whole store: lists, details, executions, trees, counts and depths, the same
//! before and after a restart.

use duroxide::runtime::registry::ActivityRegistry;
use duroxide::{Client, EventKind, OrchestrationContext, OrchestrationRegistry};

use crate::support::Place;
use crate::support::host::{Host, Node};
use crate::support::probe::{Gate, Tally, holds, now_ms, until, with};

everywhere!(
    lists_go_by_status,
    an_instance_is_described,
    a_running_one_has_no_output_yet,
    times_are_milliseconds_since_the_epoch,
    counts_cover_everything,
    depths_follow_the_queues,
    statistics_are_of_the_current_execution,
    what_is_not_there_is_not_found,
);
across_a_restart!(a_restart_changes_no_answer);

fn orchestrations() -> OrchestrationRegistry {
    OrchestrationRegistry::builder()
        .register("Finish", async |_: OrchestrationContext, input: String| Ok(input))
        .register("Fail", async |_: OrchestrationContext, input: String| Err(input))
        .register("Wait", async |ctx: OrchestrationContext, _: String| Ok(ctx.schedule_wait("end").await))
        .register("Parent", async |ctx: OrchestrationContext, input: String| {
            ctx.schedule_sub_orchestration_with_id("Finish", "the-child", input).await
        })
        .register("Twice", |ctx: OrchestrationContext, _: String| async move {
            if ctx.execution_id() == 1 {
                return ctx.continue_as_new("again").await;
            }
            ctx.set_kv_value("four", "1234");
            Ok(ctx.dequeue_event("letters").await)
        })
        .register("Two", |ctx: OrchestrationContext, _: String| async move {
            let work = vec![ctx.schedule_activity("Hold", ""), ctx.schedule_activity("Hold", "")];
            Ok(ctx.join(work).await.len().to_string())
        })
        .build()
}

fn node() -> Node {
    Node::new(orchestrations(), ActivityRegistry::builder().build())
}

/// Two complete, one with a child; one fails; one waits; one has continued.
async fn populate(host: &Host) {
    for (instance, orchestration) in [
        ("plain", "Finish"),
        ("the-parent", "Parent"),
        ("unlucky", "Fail"),
        ("patient", "Wait"),
        ("again", "Twice"),
    ] {
        host.start(instance, orchestration, instance).await;
    }
    host.enqueue("again", "letters", "a letter").await;
    host.output("plain").await;
    host.output("the-parent").await;
    host.output("again").await;
    host.failure("unlucky").await;
    host.until_recorded("patient", 1, |kind| matches!(kind, EventKind::ExternalSubscribed { .. })).await;
}

fn sorted(mut list: Vec<String>) -> Vec<String> {
    list.sort();
    list
}

async fn lists_go_by_status(place: Place) {
    let host = Host::new(place, node()).await;
    let client = host.client();
    assert!(client.has_management_capability());
    assert!(client.list_all_instances().await.unwrap().is_empty());

    populate(&host).await;

    let all = sorted(client.list_all_instances().await.unwrap());
    assert_eq!(all, ["again", "patient", "plain", "the-child", "the-parent", "unlucky"]);
    let by_status = async |status| sorted(client.list_instances_by_status(status).await.unwrap());
    assert_eq!(by_status("Completed").await, ["again", "plain", "the-child", "the-parent"]);
    assert_eq!(by_status("Failed").await, ["unlucky"]);
    assert_eq!(by_status("Running").await, ["patient"]);
    assert!(
        by_status("ContinuedAsNew").await.is_empty(),
        "the status of an instance is its current execution's"
    );
    host.end().await;
}

async fn an_instance_is_described(place: Place) {
    let host = Host::new(place, node()).await;
    let client = host.client();
    populate(&host).await;

    let child = client.get_instance_info("the-child").await.unwrap();
    assert_eq!(child.instance_id, "the-child");
    assert_eq!(
        (child.orchestration_name.as_str(), child.orchestration_version.as_str()),
        ("Finish", "1.0.0")
    );
    assert_eq!((child.status.as_str(), child.output.as_deref()), ("Completed", Some("the-parent")));
    assert_eq!((child.current_execution_id, child.parent_instance_id.as_deref()), (1, Some("the-parent")));

    let unlucky = client.get_instance_info("unlucky").await.unwrap();
    assert_eq!((unlucky.status.as_str(), unlucky.output.as_deref()), ("Failed", Some("unlucky")));
    let again = client.get_instance_info("again").await.unwrap();
    assert_eq!((again.current_execution_id, again.output.as_deref()), (2, Some("a letter")));
    assert_eq!(client.list_executions("again").await.unwrap(), [1, 2]);
    let first = client.get_execution_info("again", 1).await.unwrap();
    assert_eq!((first.status.as_str(), first.output.as_deref()), ("ContinuedAsNew", Some("again")));

    let tree = client.get_instance_tree("the-parent").await.unwrap();
    assert_eq!((tree.root_id.as_str(), tree.size()), ("the-parent", 2));
    assert!(client.get_instance_tree("plain").await.unwrap().is_root_only());
    host.end().await;
}

async fn a_running_one_has_no_output_yet(place: Place) {
    let host = Host::new(place, node()).await;
    populate(&host).await;

    let patient = host.client().get_instance_info("patient").await.unwrap();
    assert_eq!(
        (patient.status.as_str(), patient.output, patient.parent_instance_id),
        ("Running", None, None)
    );
    let execution = host.client().get_execution_info("patient", 1).await.unwrap();
    assert_eq!(
        (execution.status.as_str(), execution.output, execution.completed_at),
        ("Running", None, None)
    );
    host.end().await;
}

async fn times_are_milliseconds_since_the_epoch(place: Place) {
    let host = Host::new(place, node()).await;
    let client = host.client();

    let before = now_ms();
    populate(&host).await;
    let after = now_ms();

    let info = client.get_instance_info("plain").await.unwrap();
    assert!((before..=after).contains(&info.created_at), "{before} {} {after}", info.created_at);
    assert!((info.created_at..=after).contains(&info.updated_at));
    let ended = client.get_execution_info("plain", 1).await.unwrap();
    assert!((before..=after).contains(&ended.started_at), "{before} {} {after}", ended.started_at);
    let completed = ended.completed_at.expect("an execution that ended did so at some time");
    assert!((ended.started_at..=after).contains(&completed), "{completed}");
    host.end().await;
}

async fn counts_cover_everything(place: Place) {
    let host = Host::new(place, node()).await;
    let client = host.client();
    populate(&host).await;

    let counts = client.get_system_metrics().await.unwrap();
    assert_eq!((counts.total_instances, counts.total_executions), (6, 7));
    assert_eq!((counts.completed_instances, counts.failed_instances, counts.running_instances), (4, 1, 1));
    let mut events = 0;
    for instance in client.list_all_instances().await.unwrap() {
        for execution in client.list_executions(&instance).await.unwrap() {
            events += client.read_execution_history(&instance, execution).await.unwrap().len() as u64;
        }
    }
    assert_eq!(counts.total_events, events);
    host.end().await;
}

async fn depths_follow_the_queues(place: Place) {
    let (tally, gate) = (Tally::default(), Gate::shut());
    let activities = ActivityRegistry::builder()
        .register(
            "Hold",
            with(&(tally.clone(), gate.clone()), async |(tally, gate), _, _| {
                tally.note("begun");
                gate.pass().await;
                Ok(String::new())
            }),
        )
        .build();
    let mut host = Host::new(place, Node::new(orchestrations(), activities).with_workers(1)).await;
    let depths = async |host: &Host| {
        let depths = host.depths().await;
        (depths.orchestrator_queue, depths.worker_queue)
    };

    assert_eq!(depths(&host).await, (0, 0));
    host.start("two", "Two", "").await;
    holds("one begun", || tally.total() == 1).await;
    until("one held and one queued", async || (depths(&host).await == (0, 1)).then_some(())).await;
    host.kill().await;
    host.start("unseen", "Finish", "").await;
    assert_eq!(depths(&host).await.0, 1);
    gate.open();
    host.end().await;
}

async fn statistics_are_of_the_current_execution(place: Place) {
    let host = Host::new(place, node()).await;
    let client = host.client();
    host.start("again", "Twice", "").await;
    host.enqueue("again", "letters", "a letter").await;
    host.output("again").await;

    let stats = client.get_orchestration_stats("again").await.unwrap().unwrap();
    assert_eq!(stats.history_event_count, host.history("again", 2).await.len() as u64);
    assert!(stats.history_size_bytes > 0);
    assert_eq!((stats.kv_user_key_count, stats.kv_total_value_bytes), (1, 4));
    assert_eq!(client.get_orchestration_stats("no such instance").await.unwrap(), None);
    host.end().await;
}

async fn what_is_not_there_is_not_found(place: Place) {
    let host = Host::new(place, node()).await;
    let client = host.client();
    host.start("plain", "Finish", "").await;
    host.output("plain").await;

    for error in [
        client.get_instance_info("no such instance").await.unwrap_err(),
        client.get_execution_info("no such instance", 1).await.unwrap_err(),
        client.get_execution_info("plain", 2).await.unwrap_err(),
    ] {
        assert!(!error.is_retryable(), "{error}");
        assert!(error.to_string().contains("not found"), "{error}");
    }
    assert!(client.list_executions("no such instance").await.unwrap().is_empty());
    assert_eq!(host.status("no such instance").await, duroxide::OrchestrationStatus::NotFound);
    host.end().await;
}

/// Everything there is to ask, in one text to compare.
async fn everything(client: &Client) -> String {
    let mut answers = Vec::new();
    for instance in sorted(client.list_all_instances().await.unwrap()) {
        answers.push(format!("{:?}", client.get_instance_info(&instance).await.unwrap()));
        answers.push(format!("{:?}", client.get_orchestration_status(&instance).await.unwrap()));
        answers.push(format!("{:?}", client.get_orchestration_stats(&instance).await.unwrap()));
        for execution in client.list_executions(&instance).await.unwrap() {
            answers.push(format!("{:?}", client.get_execution_info(&instance, execution).await.unwrap()));
            answers
                .push(format!("{:#?}", client.read_execution_history(&instance, execution).await.unwrap()));
        }
    }
    answers.push(format!("{:?}", client.get_system_metrics().await.unwrap()));
    answers.push(format!("{:?}", client.get_queue_depths().await.unwrap()));
    answers.join("\n")
}

async fn a_restart_changes_no_answer(place: Place) {
    let mut host = Host::new(place, node()).await;
    populate(&host).await;
    until("the queues drained", async || (host.depths().await.orchestrator_queue == 0).then_some(())).await;

    let before = everything(&host.client()).await;
    host.restart().await;
    assert_eq!(everything(&host.client()).await, before);

    host.raise("patient", "end", "at last").await;
    assert_eq!(host.output("patient").await, "at last");
    host.end().await;
}
