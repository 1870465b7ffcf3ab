//! The engine's side of a step: what it is asked, and what it answers, in the words of `answer.rs`.

use std::collections::BTreeMap;
use std::time::Duration;

use duroxide::providers::{
    DeleteInstanceResult, DispatcherCapabilityFilter, InstanceFilter, Provider, ProviderAdmin, ProviderError,
    PruneOptions, PruneResult, SemverRange, TagFilter, WorkItem,
};
use forebay::{Durability, Forebay, ManualClock, Options};
use semver::Version;

use crate::answer::{Answer, Execution, Family, Gone, Instance, Look, Offered, STATUSES};
use crate::engine_support::polled::uncollected;
use crate::engine_support::{Place, START_MS, Turn, bounded, depths, fetched, session, settle};
use crate::model::names;
use crate::op::{IDLE, INSTANCES, KEYS, Keep, LOCK, Op, RANGES, SET_BACK, Set, Tags, Which, members};
use crate::planned::{instance_name, key_name, tag_name, worker_name};

/// An engine under test, and the tokens it gave out.
pub(crate) struct Engine {
    /// `None` in memory, where nothing can be opened again.
    place: Option<Place>,
    options: Options,
    clock: ManualClock,
    forebay: Forebay,
    turn_tokens: Vec<String>,
    work_tokens: Vec<String>,
}

fn done<T>(result: Result<T, ProviderError>) -> Answer {
    answered(result.map(|_| Answer::Done))
}

fn answered(result: Result<Answer, ProviderError>) -> Answer {
    result.unwrap_or_else(|error| {
        assert!(!error.is_retryable(), "nothing fails here but what is wrong: {error}");
        Answer::Refused
    })
}

fn deleted(result: DeleteInstanceResult) -> Answer {
    Answer::Gone(Gone {
        instances: result.instances_deleted,
        executions: result.executions_deleted,
        events: result.events_deleted,
        queued: result.queue_messages_deleted,
    })
}

fn pruned(result: PruneResult) -> Answer {
    Answer::Gone(Gone {
        instances: result.instances_processed,
        executions: result.executions_deleted,
        events: result.events_deleted,
        queued: 0,
    })
}

fn delay(seconds: Option<u8>) -> Option<Duration> {
    seconds.map(|seconds| Duration::from_secs(seconds.into()))
}

fn filter(tags: Tags) -> TagFilter {
    let named = |tags: Set| members(tags).map(tag_name).collect();
    match tags {
        Tags::DefaultOnly => TagFilter::DefaultOnly,
        Tags::Only(tags) => TagFilter::Tags(named(tags)),
        Tags::DefaultAnd(tags) => TagFilter::DefaultAnd(named(tags)),
        Tags::Any => TagFilter::Any,
        Tags::None => TagFilter::None,
    }
}

fn capable(ranges: Set) -> DispatcherCapabilityFilter {
    let range = |no| {
        let (min, max) = RANGES[usize::from(no)];
        SemverRange::new(Version::new(min.0, min.1, min.2), Version::new(max.0, max.1, max.2))
    };
    DispatcherCapabilityFilter { supported_duroxide_versions: members(ranges).map(range).collect() }
}

impl Engine {
    pub(crate) fn on_a_file(durability: Durability) -> Self {
        let (place, clock) = (Place::new(), ManualClock::new(START_MS));
        let options = Options::default().clock(clock.clone()).durability(durability);
        let forebay = place.open(options.clone());
        Self { place: Some(place), options, clock, forebay, turn_tokens: Vec::new(), work_tokens: Vec::new() }
    }

    pub(crate) fn in_memory() -> Self {
        let clock = ManualClock::new(START_MS);
        let options = Options::default().clock(clock.clone());
        let forebay = options.clone().in_memory().expect("memory opens");
        Self { place: None, options, clock, forebay, turn_tokens: Vec::new(), work_tokens: Vec::new() }
    }

    /// The same engine with no tokens yet.
    pub(crate) fn another_handle(&self) -> Self {
        let (options, clock, forebay) = (self.options.clone(), self.clock.clone(), self.forebay.clone());
        Self { place: None, options, clock, forebay, turn_tokens: Vec::new(), work_tokens: Vec::new() }
    }

    fn these(&self, which: Which) -> InstanceFilter {
        InstanceFilter {
            instance_ids: which.ids.map(names),
            completed_before: self.ago_ms(which.before_s),
            limit: which.limit.map(Into::into),
        }
    }

    fn keeping(&self, keep: Keep) -> PruneOptions {
        let (keep_last, completed_before) = (keep.last.map(Into::into), self.ago_ms(keep.before_s));
        PruneOptions { keep_last, completed_before }
    }

    fn ago_ms(&self, seconds: Option<u8>) -> Option<u64> {
        seconds.map(|seconds| forebay::Clock::wall_ms(&self.clock) - 1000 * u64::from(seconds))
    }

    pub(crate) async fn depths(&self) -> Answer {
        let (messages, work) = depths(&self.forebay).await;
        Answer::Depths(messages, work)
    }

    pub(crate) fn can_reopen(&self) -> bool {
        self.place.is_some()
    }

    pub(crate) async fn enqueue(&self, item: WorkItem, delay_s: Option<u8>) -> Answer {
        done(bounded(self.forebay.enqueue_for_orchestrator(item, delay(delay_s))).await)
    }

    pub(crate) async fn enqueue_work(&self, item: WorkItem) -> Answer {
        done(bounded(self.forebay.enqueue_for_worker(item)).await)
    }

    pub(crate) async fn ack_turn(&self, token: usize, turn: Turn) -> Answer {
        done(bounded(turn.ack(&self.forebay, &self.turn_tokens[token])).await)
    }

    pub(crate) async fn ack_work(&self, token: usize, completion: Option<WorkItem>) -> Answer {
        done(bounded(self.forebay.ack_work_item(&self.work_tokens[token], completion)).await)
    }

    pub(crate) async fn append(&self, execution: u64, added: duroxide::Event) -> Answer {
        let id = added.instance_id.clone();
        done(bounded(self.forebay.append_with_execution(&id, execution, vec![added])).await)
    }

    fn turn_token(&self, back: u8) -> Option<&str> {
        let place = self.turn_tokens.len().checked_sub(1 + usize::from(back))?;
        Some(&self.turn_tokens[place])
    }

    fn work_token(&self, back: u8) -> Option<&str> {
        let place = self.work_tokens.len().checked_sub(1 + usize::from(back))?;
        Some(&self.work_tokens[place])
    }

    pub(crate) async fn apply(&mut self, op: Op) -> Answer {
        let forebay = self.forebay.clone();
        match op {
            Op::FetchTurn { ranges } => self.fetch_turn(ranges).await,
            Op::DropTurn => {
                let fetch = forebay.fetch_orchestration_item(LOCK, Duration::ZERO, None);
                drop(uncollected(&forebay, fetch).await);
                settle(&forebay).await;
                Answer::Done
            }
            Op::AbandonTurn { token, delay_s, ignore_attempt } => {
                let Some(token) = self.turn_token(token) else { return Answer::Refused };
                let abandon = forebay.abandon_orchestration_item(token, delay(delay_s), ignore_attempt);
                done(bounded(abandon).await)
            }
            Op::AbandonWork { token, delay_s, ignore_attempt } => {
                let Some(token) = self.work_token(token) else { return Answer::Refused };
                done(bounded(forebay.abandon_work_item(token, delay(delay_s), ignore_attempt)).await)
            }
            Op::RenewTurn { token } => {
                let Some(token) = self.turn_token(token) else { return Answer::Refused };
                done(bounded(forebay.renew_orchestration_item_lock(token, LOCK)).await)
            }
            Op::RenewWork { token } => {
                let Some(token) = self.work_token(token) else { return Answer::Refused };
                done(bounded(forebay.renew_work_item_lock(token, LOCK)).await)
            }
            Op::FetchWork { worker, tags } => {
                let session = worker.map(|worker| session(&worker_name(worker), LOCK));
                let tags = filter(tags);
                let fetch = forebay.fetch_work_item(LOCK, Duration::ZERO, session.as_ref(), &tags);
                Answer::Work(fetched(bounded(fetch).await).map(|work| {
                    self.work_tokens.push(work.token);
                    (work.item, work.attempt)
                }))
            }
            Op::DropWork { worker } => {
                let session = worker.map(|worker| session(&worker_name(worker), LOCK));
                let fetch = forebay.fetch_work_item(LOCK, Duration::ZERO, session.as_ref(), &TagFilter::Any);
                drop(uncollected(&forebay, fetch).await);
                settle(&forebay).await;
                Answer::Done
            }
            Op::RenewSessions { workers } => {
                let workers: Vec<String> = members(workers).map(worker_name).collect();
                let workers: Vec<&str> = workers.iter().map(String::as_str).collect();
                let renewed = bounded(forebay.renew_session_lock(&workers, LOCK, IDLE)).await;
                Answer::Count(renewed.expect("they are renewed"))
            }
            Op::SweepSessions => {
                let swept = bounded(forebay.cleanup_orphaned_sessions(IDLE)).await;
                Answer::Count(swept.expect("they are swept"))
            }
            Op::Delete { instance, force } => {
                let id = instance_name(instance);
                answered(bounded(forebay.delete_instance(&id, force)).await.map(deleted))
            }
            Op::DeleteThese { ids, force } => {
                answered(bounded(forebay.delete_instances_atomic(&names(ids), force)).await.map(deleted))
            }
            Op::DeleteBulk(which) => {
                let which = self.these(which);
                deleted(bounded(forebay.delete_instance_bulk(which)).await.expect("they are deleted"))
            }
            Op::Prune { instance, keep } => {
                let (id, keep) = (instance_name(instance), self.keeping(keep));
                answered(bounded(forebay.prune_executions(&id, keep)).await.map(pruned))
            }
            Op::PruneBulk(which, keep) => {
                let (which, keep) = (self.these(which), self.keeping(keep));
                pruned(bounded(forebay.prune_executions_bulk(which, keep)).await.expect("they are pruned"))
            }
            Op::Advance(step) => {
                self.clock.advance(step);
                Answer::Done
            }
            Op::SetBack => {
                let wall_ms = forebay::Clock::wall_ms(&self.clock);
                self.clock.set_wall_ms(wall_ms.saturating_sub(SET_BACK.as_millis() as u64).max(START_MS));
                Answer::Done
            }
            Op::Reopen => {
                self.forebay.close().expect("it closes");
                let place = self.place.as_ref().expect("it is on a file");
                self.forebay = place.open(self.options.clone());
                Answer::Done
            }
            other => panic!("{other:?} has an argument of its own"),
        }
    }

    async fn fetch_turn(&mut self, ranges: Option<Set>) -> Answer {
        let filter = ranges.map(capable);
        let fetch = self.forebay.fetch_orchestration_item(LOCK, Duration::ZERO, filter.as_ref());
        Answer::Turn(fetched(bounded(fetch).await).map(|turn| {
            self.turn_tokens.push(turn.token);
            assert_eq!(turn.item.history_error, None);
            let values = turn.item.kv_snapshot.into_iter();
            let values = values.map(|(key, entry)| (key, (entry.value, entry.last_updated_at_ms)));
            Box::new(Offered {
                instance: turn.item.instance,
                execution: turn.item.execution_id,
                messages: turn.item.messages,
                attempt: turn.attempt,
                history: turn.item.history,
                values: values.collect(),
            })
        }))
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

    /// Everything that can be read, of everything.
    pub(crate) async fn look(&self) -> Look {
        let forebay = &self.forebay;
        let newest_first = bounded(forebay.list_instances()).await.expect("they are listed");
        let (mut instances, mut families) = (BTreeMap::new(), BTreeMap::new());
        for id in (0..=INSTANCES).map(instance_name) {
            families.insert(id.clone(), self.family(&id).await);
            if newest_first.contains(&id) {
                let instance = self.instance(&id).await;
                instances.insert(id, instance);
            } else {
                self.assert_absent(&id).await;
            }
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
            executions.insert(number, self.execution(id, number).await);
        }
        let (latest, execution) = executions.last_key_value().expect("an instance has an execution");
        self.assert_no_execution(id, latest + 1).await;
        let info = bounded(forebay.get_instance_info(id)).await.expect("it is there");
        assert_eq!((info.instance_id.as_str(), info.current_execution_id), (id, *latest));
        assert_eq!((&info.status, &info.output), (&execution.status, &execution.output));
        assert_eq!(
            (info.orchestration_name.as_str(), info.orchestration_version.as_str()),
            ("Orders", "1.0.0")
        );
        assert_eq!(bounded(forebay.latest_execution_id(id)).await.expect("it is read"), *latest);
        assert_eq!(bounded(forebay.read(id)).await.expect("it decodes"), execution.events);
        assert_eq!(bounded(forebay.read_history(id)).await.expect("it decodes"), execution.events);
        let parent = bounded(forebay.get_parent_id(id)).await.expect("it is there");
        assert_eq!(info.parent_instance_id, parent);
        let values = bounded(forebay.get_kv_all_values(id)).await.expect("they are read");
        for key in (0..=KEYS).map(key_name) {
            let value = bounded(forebay.get_kv_value(id, &key)).await.expect("it is read");
            assert_eq!(value.as_ref(), values.get(&key));
        }
        let stats = bounded(forebay.get_instance_stats(id)).await.expect("it is read").expect("it is there");
        assert_eq!(stats.history_event_count, execution.events.len() as u64);
        assert_eq!(stats.history_size_bytes > 0, !execution.events.is_empty());
        assert_eq!(stats.kv_user_key_count, values.len() as u64);
        let bytes: usize = values.values().map(String::len).sum();
        assert_eq!(stats.kv_total_value_bytes, bytes as u64);
        assert_eq!(stats.queue_pending_count, 0);
        Instance {
            parent,
            created_ms: info.created_at,
            updated_ms: info.updated_at,
            status: self.custom_status(id).await,
            values: values.into_iter().collect(),
            executions,
        }
    }

    async fn execution(&self, id: &str, number: u64) -> Execution {
        let forebay = &self.forebay;
        let info = bounded(forebay.get_execution_info(id, number)).await.expect("it is there");
        let events = bounded(forebay.read_with_execution(id, number)).await.expect("it decodes");
        assert_eq!((info.execution_id, info.event_count), (number, events.len()));
        let again = bounded(forebay.read_history_with_execution_id(id, number)).await;
        assert_eq!(again.expect("it decodes"), events);
        let (started_ms, completed_ms) = (info.started_at, info.completed_at);
        Execution { status: info.status, output: info.output, started_ms, completed_ms, events }
    }

    /// The custom status with its version, which is told to whoever has seen less and to nobody else.
    async fn custom_status(&self, id: &str) -> Option<(Option<String>, u64)> {
        let since =
            async |version| bounded(self.forebay.get_custom_status(id, version)).await.expect("it is read");
        let status = since(0).await;
        let version = status.as_ref().map_or(0, |(_, version)| *version);
        if let Some(seen_before) = version.checked_sub(1) {
            assert_eq!(since(seen_before).await, status);
        }
        for version in [version, version + 1, u64::MAX] {
            assert_eq!(since(version).await, None);
        }
        status
    }
}
