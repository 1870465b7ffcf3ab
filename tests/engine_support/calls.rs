//! Every method of `Provider` and `ProviderAdmin` as one list, for what must hold of all of them.

use std::pin::Pin;
use std::time::Duration;

use duroxide::providers::{
    ExecutionMetadata, InstanceFilter, Provider, ProviderAdmin, ProviderError, PruneOptions, TagFilter,
};
use forebay::Forebay;

use super::{HOUR, LOCK, activity, completed, session, start, started_event};

pub(crate) type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
pub(crate) type Call<'a> = (&'static str, Boxed<'a, Result<(), ProviderError>>);

/// Tokens the calls are made with.
#[derive(Clone)]
pub(crate) struct Tokens {
    pub(crate) turn: String,
    pub(crate) work: String,
}

/// Every method once, about `instance`. The futures are not polled yet; a fetch would wait for an hour.
pub(crate) fn every_call<'a>(forebay: &'a Forebay, instance: &'a str, tokens: &'a Tokens) -> Vec<Call<'a>> {
    macro_rules! calls {
        ($($method:ident($($argument:expr),*);)*) => {
            vec![$((
                stringify!($method),
                Box::pin(async move { forebay.$method($($argument),*).await.map(drop) })
                    as Boxed<'a, Result<(), ProviderError>>,
            )),*]
        };
    }
    let (turn, work) = (tokens.turn.as_str(), tokens.work.as_str());
    calls! {
        fetch_orchestration_item(LOCK, HOUR, None);
        ack_orchestration_item(
            turn, 1, vec![started_event(instance, 1)], vec![activity(instance, 2)], vec![start("other")],
            ExecutionMetadata::default(), vec![]
        );
        abandon_orchestration_item(turn, None, false);
        read(instance);
        read_with_execution(instance, 1);
        append_with_execution(instance, 1, vec![started_event(instance, 1)]);
        enqueue_for_worker(activity(instance, 2));
        fetch_work_item(LOCK, HOUR, None, &TagFilter::Any);
        fetch_work_item(LOCK, HOUR, Some(&session("worker", LOCK)), &TagFilter::tags(["gpu"]));
        ack_work_item(work, Some(completed(instance, 2)));
        renew_work_item_lock(work, LOCK);
        renew_session_lock(&["worker"], LOCK, LOCK);
        cleanup_orphaned_sessions(Duration::ZERO);
        abandon_work_item(work, Some(LOCK), true);
        renew_orchestration_item_lock(turn, LOCK);
        enqueue_for_orchestrator(start(instance), Some(LOCK));
        get_custom_status(instance, 0);
        get_kv_value(instance, "key");
        get_kv_all_values(instance);
        get_instance_stats(instance);
        list_instances();
        list_instances_by_status("Running");
        list_executions(instance);
        read_history_with_execution_id(instance, 1);
        read_history(instance);
        latest_execution_id(instance);
        get_instance_info(instance);
        get_execution_info(instance, 1);
        get_system_metrics();
        get_queue_depths();
        list_children(instance);
        get_parent_id(instance);
        get_instance_tree(instance);
        delete_instances_atomic(&[instance.to_owned()], true);
        delete_instance(instance, true);
        delete_instance_bulk(InstanceFilter::default());
        prune_executions(instance, PruneOptions::default());
        prune_executions_bulk(InstanceFilter::default(), PruneOptions::default());
    }
}
