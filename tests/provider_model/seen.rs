//! What can be read of the engine, in the words of `answer.rs`.

use std::collections::BTreeMap;

use duroxide::providers::{Provider, ProviderAdmin};

use crate::answer::{Answer, Execution, Family, Instance, Look, STATUSES};
use crate::engine::{Engine, done};
use crate::engine_support::{bounded, depths};
use crate::op::{INSTANCES, KEYS};
use crate::planned::{instance_name, key_name};

impl Engine {
    pub(crate) async fn depths(&self) -> Answer {
        let (messages, work) = depths(&self.forebay).await;
        Answer::Depths(messages, work)
    }

    pub(crate) async fn history(&self, id: &str) -> Answer {
        Answer::History(bounded(self.forebay.read(id)).await.expect("it decodes"))
    }

    pub(crate) async fn tree(&self, id: &str) -> Answer {
        Answer::Tree(self.tree_of(id).await)
    }

    async fn tree_of(&self, id: &str) -> Vec<String> {
        let tree = bounded(self.forebay.get_instance_tree(id)).await.expect("it is read");
        assert_eq!((tree.root_id.as_str(), tree.all_ids[0].as_str()), (id, id));
        let mut ids = tree.all_ids;
        ids.sort();
        ids
    }

    async fn family(&self, id: &str) -> Family {
        let mut children = bounded(self.forebay.list_children(id)).await.expect("they are listed");
        children.sort();
        Family { children, tree: self.tree_of(id).await }
    }

    /// Everything that can be read, of everything. What other methods say again is asked about one instance a
    /// step, in turn.
    pub(crate) async fn look(&self, step: usize) -> Look {
        let forebay = &self.forebay;
        let newest_first = bounded(forebay.list_instances()).await.expect("they are listed");
        let (mut instances, mut families) = (BTreeMap::new(), BTreeMap::new());
        for id in (0..=INSTANCES).map(instance_name) {
            let family = self.family(&id).await;
            families.insert(id.clone(), family);
            if newest_first.contains(&id) {
                let instance = self.instance(&id).await;
                instances.insert(id, instance);
            }
        }
        let asked = instance_name((step % usize::from(INSTANCES + 1)) as u8);
        match instances.get(&asked) {
            Some(instance) => self.assert_confirmed(&asked, instance).await,
            None => self.assert_absent(&asked).await,
        }
        let (messages, work) = depths(forebay).await;
        let mut by_status = BTreeMap::new();
        for status in STATUSES {
            let ids = bounded(forebay.list_instances_by_status(status)).await.expect("they are listed");
            by_status.insert(status, ids);
        }
        let metrics = bounded(forebay.get_system_metrics()).await.expect("they are read");
        let executions = || instances.values().flat_map(|instance: &Instance| instance.executions.values());
        assert_eq!(metrics.total_instances, instances.len() as u64);
        assert_eq!(metrics.running_instances, by_status["Running"].len() as u64);
        assert_eq!(metrics.completed_instances, by_status["Completed"].len() as u64);
        assert_eq!(metrics.failed_instances, by_status["Failed"].len() as u64);
        assert_eq!(metrics.total_executions, executions().count() as u64);
        let events: usize = executions().map(|execution| execution.events.len()).sum();
        assert_eq!(metrics.total_events, events as u64);
        Look { messages, work, newest_first, by_status, instances, families }
    }

    async fn assert_absent(&self, id: &str) {
        let forebay = &self.forebay;
        assert_eq!(bounded(forebay.read(id)).await.expect("it is read"), []);
        assert_eq!(bounded(forebay.read_history(id)).await.expect("it is read"), []);
        assert!(bounded(forebay.list_executions(id)).await.expect("they are listed").is_empty());
        assert_eq!(bounded(forebay.latest_execution_id(id)).await.expect("it is read"), 1);
        assert_eq!(bounded(forebay.get_custom_status(id, 0)).await.expect("it is read"), None);
        assert_eq!(bounded(forebay.get_kv_all_values(id)).await.expect("they are read").len(), 0);
        assert_eq!(bounded(forebay.get_instance_stats(id)).await.expect("it is read"), None);
        assert_eq!(done(bounded(forebay.get_parent_id(id)).await), Answer::Refused);
        assert_eq!(done(bounded(forebay.get_instance_info(id)).await), Answer::Refused);
        self.assert_no_execution(id, 1).await;
    }

    async fn assert_no_execution(&self, id: &str, number: u64) {
        let events = bounded(self.forebay.read_with_execution(id, number)).await;
        assert_eq!(events.expect("it is read"), []);
        assert_eq!(done(bounded(self.forebay.get_execution_info(id, number)).await), Answer::Refused);
    }

    async fn instance(&self, id: &str) -> Instance {
        let forebay = &self.forebay;
        let mut executions = BTreeMap::new();
        for number in bounded(forebay.list_executions(id)).await.expect("they are listed") {
            let info = bounded(forebay.get_execution_info(id, number)).await.expect("it is there");
            let events = bounded(forebay.read_with_execution(id, number)).await.expect("it decodes");
            assert_eq!((info.execution_id, info.event_count), (number, events.len()));
            let (started_ms, completed_ms) = (info.started_at, info.completed_at);
            let (status, output) = (info.status, info.output);
            executions.insert(number, Execution { status, output, started_ms, completed_ms, events });
        }
        let info = bounded(forebay.get_instance_info(id)).await.expect("it is there");
        Instance {
            parent: info.parent_instance_id,
            created_ms: info.created_at,
            updated_ms: info.updated_at,
            status: bounded(forebay.get_custom_status(id, 0)).await.expect("it is read"),
            values: bounded(forebay.get_kv_all_values(id))
                .await
                .expect("they are read")
                .into_iter()
                .collect(),
            executions,
        }
    }

    /// The methods that say again what is known by others agree with them.
    async fn assert_confirmed(&self, id: &str, known: &Instance) {
        let forebay = &self.forebay;
        let (latest, execution) = known.executions.last_key_value().expect("an instance has an execution");
        let info = bounded(forebay.get_instance_info(id)).await.expect("it is there");
        assert_eq!((info.instance_id.as_str(), info.current_execution_id), (id, *latest));
        assert_eq!((&info.status, &info.output), (&execution.status, &execution.output));
        let called = (info.orchestration_name.as_str(), info.orchestration_version.as_str());
        assert_eq!(called, ("Orders", "1.0.0"));
        assert_eq!(bounded(forebay.get_parent_id(id)).await.expect("it is there"), known.parent);
        assert_eq!(bounded(forebay.latest_execution_id(id)).await.expect("it is read"), *latest);
        assert_eq!(bounded(forebay.read(id)).await.expect("it decodes"), execution.events);
        assert_eq!(bounded(forebay.read_history(id)).await.expect("it decodes"), execution.events);
        for (number, execution) in &known.executions {
            let events = bounded(forebay.read_history_with_execution_id(id, *number)).await;
            assert_eq!(events.expect("it decodes"), execution.events);
        }
        self.assert_no_execution(id, latest + 1).await;
        for key in (0..=KEYS).map(key_name) {
            let value = bounded(forebay.get_kv_value(id, &key)).await.expect("it is read");
            assert_eq!(value.as_ref(), known.values.get(&key));
        }
        let stats = bounded(forebay.get_instance_stats(id)).await.expect("it is read").expect("it is there");
        assert_eq!(stats.history_event_count, execution.events.len() as u64);
        assert_eq!(stats.history_size_bytes > 0, !execution.events.is_empty());
        assert_eq!(stats.kv_user_key_count, known.values.len() as u64);
        let bytes: usize = known.values.values().map(String::len).sum();
        assert_eq!(stats.kv_total_value_bytes, bytes as u64);
        assert_eq!(stats.queue_pending_count, 0);
        // The custom status is told to whoever has seen less, and to nobody else.
        let version = known.status.as_ref().map_or(0, |(_, version)| *version);
        for seen in [version.saturating_sub(1), version, version + 1, u64::MAX] {
            let news = bounded(forebay.get_custom_status(id, seen)).await.expect("it is read");
            assert_eq!(news, known.status.clone().filter(|_| seen < version));
        }
    }
}
