//! The engine's side of a step: what it is asked, and what it answers, in the words of `answer.rs`.

use std::collections::BTreeMap;
use std::time::Duration;

use duroxide::providers::{
    DispatcherCapabilityFilter, InstanceFilter, Provider, ProviderAdmin, ProviderError, PruneOptions,
    SemverRange, TagFilter, WorkItem,
};
use forebay::{Forebay, ManualClock, Options};
use semver::Version;

use crate::answer::{Answer, Execution, Instance, Look, Offered};
use crate::engine_support::polled::uncollected;
use crate::engine_support::{Place, START_MS, Turn, bounded, depths, fetched, session, settle};
use crate::op::{IDLE, LOCK, Op, SET_BACK, Tags};
use crate::planned::{instance_name, tag_name, worker_name};

/// An engine under test, and the tokens it gave out.
pub(crate) struct Engine {
    /// `None` in memory, where nothing can be opened again.
    place: Option<Place>,
    clock: ManualClock,
    forebay: Forebay,
    turn_tokens: Vec<String>,
    work_tokens: Vec<String>,
}

fn options(clock: &ManualClock) -> Options {
    Options::default().clock(clock.clone())
}

fn done<T>(result: Result<T, ProviderError>) -> Answer {
    match result {
        Ok(_) => Answer::Done,
        Err(error) => {
            assert!(!error.is_retryable(), "nothing fails here but what is wrong: {error}");
            Answer::Refused
        }
    }
}

fn delay(seconds: Option<u8>) -> Option<Duration> {
    seconds.map(|seconds| Duration::from_secs(seconds.into()))
}

fn filter(tags: Tags) -> TagFilter {
    match tags {
        Tags::DefaultOnly => TagFilter::DefaultOnly,
        Tags::Only(tag) => TagFilter::tags([tag_name(tag)]),
        Tags::DefaultAnd(tag) => TagFilter::default_and([tag_name(tag)]),
        Tags::Any => TagFilter::Any,
        Tags::None => TagFilter::None,
    }
}

fn these(instances: u8) -> InstanceFilter {
    let instance_ids = Some((0..instances).map(instance_name).collect());
    InstanceFilter { instance_ids, completed_before: None, limit: None }
}

fn keeping(last: u8) -> PruneOptions {
    PruneOptions { keep_last: (last > 0).then_some(last.into()), completed_before: None }
}

impl Engine {
    pub(crate) fn on_a_file() -> Self {
        let (place, clock) = (Place::new(), ManualClock::new(START_MS));
        let forebay = place.open(options(&clock));
        Self { place: Some(place), clock, forebay, turn_tokens: Vec::new(), work_tokens: Vec::new() }
    }

    pub(crate) fn in_memory() -> Self {
        let clock = ManualClock::new(START_MS);
        let forebay = options(&clock).in_memory().expect("memory opens");
        Self { place: None, clock, forebay, turn_tokens: Vec::new(), work_tokens: Vec::new() }
    }

    /// The same engine with no tokens yet.
    pub(crate) fn another_handle(&self) -> Self {
        let (clock, forebay) = (self.clock.clone(), self.forebay.clone());
        Self { place: None, clock, forebay, turn_tokens: Vec::new(), work_tokens: Vec::new() }
    }

    /// Deletes an instance with all it has, if there is one.
    pub(crate) async fn delete_whatever(&self, id: &str) -> Answer {
        let ids = [id.to_owned()];
        let deleted = bounded(self.forebay.delete_instances_atomic(&ids, true)).await.expect("it is forced");
        Answer::Deleted {
            executions: deleted.executions_deleted,
            events: deleted.events_deleted,
            queued: deleted.queue_messages_deleted,
        }
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
            Op::FetchTurn { major } => self.fetch_turn(major).await,
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
            Op::RenewSessions { worker } => {
                let worker = worker_name(worker);
                let renewed = bounded(forebay.renew_session_lock(&[&worker], LOCK, IDLE)).await;
                Answer::Count(renewed.expect("they are renewed"))
            }
            Op::SweepSessions => {
                let swept = bounded(forebay.cleanup_orphaned_sessions(IDLE)).await;
                Answer::Count(swept.expect("they are swept"))
            }
            Op::Delete { instance, force } => {
                match bounded(forebay.delete_instance(&instance_name(instance), force)).await {
                    Ok(result) => Answer::Deleted {
                        executions: result.executions_deleted,
                        events: result.events_deleted,
                        queued: result.queue_messages_deleted,
                    },
                    Err(_refused) => Answer::Refused,
                }
            }
            Op::Prune { instance, keep_last } => {
                match bounded(forebay.prune_executions(&instance_name(instance), keeping(keep_last))).await {
                    Ok(result) => Answer::Deleted {
                        executions: result.executions_deleted,
                        events: result.events_deleted,
                        queued: 0,
                    },
                    Err(_refused) => Answer::Refused,
                }
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
            Op::DeleteBulk { instances } => {
                let deleted = bounded(forebay.delete_instance_bulk(these(instances))).await;
                let deleted = deleted.expect("they are deleted");
                Answer::Deleted {
                    executions: deleted.executions_deleted,
                    events: deleted.events_deleted,
                    queued: deleted.queue_messages_deleted,
                }
            }
            Op::PruneBulk { instances, keep_last } => {
                let pruned = forebay.prune_executions_bulk(these(instances), keeping(keep_last));
                let pruned = bounded(pruned).await.expect("they are pruned");
                Answer::Deleted {
                    executions: pruned.executions_deleted,
                    events: pruned.events_deleted,
                    queued: 0,
                }
            }
            Op::Reopen => {
                self.forebay.close().expect("it closes");
                let place = self.place.as_ref().expect("it is on a file");
                self.forebay = place.open(options(&self.clock));
                Answer::Done
            }
            other => panic!("{other:?} has an argument of its own"),
        }
    }

    async fn fetch_turn(&mut self, major: Option<u8>) -> Answer {
        let filter = major.map(|major| DispatcherCapabilityFilter {
            supported_duroxide_versions: vec![SemverRange::new(
                Version::new(major.into(), 0, 0),
                Version::new(major.into(), 99, 99),
            )],
        });
        let fetch = self.forebay.fetch_orchestration_item(LOCK, Duration::ZERO, filter.as_ref());
        Answer::Turn(fetched(bounded(fetch).await).map(|turn| {
            self.turn_tokens.push(turn.token);
            assert_eq!(turn.item.history_error, None);
            let values = turn.item.kv_snapshot.into_iter().map(|(key, entry)| (key, entry.value));
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

    /// Everything that can be read, of everything.
    pub(crate) async fn look(&self) -> Look {
        let mut instances = BTreeMap::new();
        for id in bounded(self.forebay.list_instances()).await.expect("they are listed") {
            let instance = self.instance(&id).await;
            instances.insert(id, instance);
        }
        let (messages, work) = depths(&self.forebay).await;
        let metrics = bounded(self.forebay.get_system_metrics()).await.expect("they are read");
        assert_eq!(metrics.total_instances, instances.len() as u64);
        let mut running =
            bounded(self.forebay.list_instances_by_status("Running")).await.expect("they are listed");
        running.sort();
        assert_eq!(metrics.running_instances, running.len() as u64);
        let (completed, failed) = (metrics.completed_instances, metrics.failed_instances);
        Look { messages, work, running, completed, failed, instances }
    }

    async fn instance(&self, id: &str) -> Instance {
        let forebay = &self.forebay;
        let values = bounded(forebay.get_kv_all_values(id)).await.expect("they are read");
        let status = bounded(forebay.get_custom_status(id, 0)).await.expect("it is read");
        let mut executions = BTreeMap::new();
        for number in bounded(forebay.list_executions(id)).await.expect("they are listed") {
            let info = bounded(forebay.get_execution_info(id, number)).await.expect("it is there");
            let events = bounded(forebay.read_with_execution(id, number)).await.expect("it decodes");
            assert_eq!(info.event_count, events.len());
            let again = bounded(forebay.read_history_with_execution_id(id, number)).await;
            assert_eq!(again.expect("it decodes"), events);
            let (status, output) = (info.status, info.output);
            executions.insert(number, Execution { pinned: None, status, output, events });
        }
        let (latest, _) = executions.last_key_value().expect("an instance has an execution");
        let info = bounded(forebay.get_instance_info(id)).await.expect("it is there");
        assert_eq!(info.current_execution_id, *latest);
        assert_eq!(bounded(forebay.latest_execution_id(id)).await.expect("it is read"), *latest);
        assert_eq!(bounded(forebay.read(id)).await.expect("it decodes"), executions[latest].events);
        assert_eq!(bounded(forebay.read_history(id)).await.expect("it decodes"), executions[latest].events);
        let value = bounded(forebay.get_kv_value(id, "value")).await.expect("it is read");
        assert_eq!(value.as_ref(), values.get("value"));
        let stats = bounded(forebay.get_instance_stats(id)).await.expect("it is read").expect("it is there");
        assert_eq!(stats.history_event_count, executions[latest].events.len() as u64);
        assert_eq!(stats.kv_user_key_count, values.len() as u64);
        assert_eq!(bounded(forebay.get_parent_id(id)).await.expect("it is there"), None);
        let tree = bounded(forebay.get_instance_tree(id)).await.expect("it is there");
        assert_eq!(tree.all_ids, [id]);
        Instance { executions, values: values.into_iter().collect(), status }
    }
}
