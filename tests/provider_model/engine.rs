//! The engine's side of a step: what it is asked, and what it answers, in the words of `answer.rs`.

use std::time::Duration;

use duroxide::providers::{
    DeleteInstanceResult, DispatcherCapabilityFilter, InstanceFilter, Provider, ProviderAdmin, ProviderError,
    PruneOptions, PruneResult, SemverRange, TagFilter, WorkItem,
};
use forebay::clock::ManualClock;
use forebay::hooks::Maps;
use forebay::{Durability, Forebay, Options};
use semver::Version;

use crate::answer::{Answer, Gone, Offered};
use crate::engine_support::polled::uncollected;
use crate::engine_support::{Granted, Place, START_MS, Turn, bounded, fetched, session, settle};
use crate::model::names;
use crate::op::{IDLE, Keep, LOCK, Op, RANGES, SET_BACK, Set, Tags, Which, members};
use crate::planned::{instance_name, tag_name, worker_name};

/// Where an engine keeps its rows.
enum Home {
    /// In SQLite's memory, where nothing can be opened again.
    Memory,
    File(Place),
    Maps(Maps),
}

impl Home {
    fn open(&self, options: Options) -> Forebay {
        match self {
            Home::Memory => options.in_memory().expect("memory opens"),
            Home::File(place) => place.open(options),
            Home::Maps(maps) => maps.open(options).expect("maps open"),
        }
    }
}

/// An engine under test, and the tokens it gave out.
pub(crate) struct Engine {
    home: Home,
    options: Options,
    clock: ManualClock,
    pub(crate) forebay: Forebay,
    turn_tokens: Vec<String>,
    work_tokens: Vec<String>,
    /// Whether the batch of every call is rolled back first, and the call made again.
    fails_first: bool,
}

pub(crate) fn done<T>(result: Result<T, ProviderError>) -> Answer {
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
        let place = Place::new();
        Self::over(Home::File(place), |options| options.durability(durability))
    }

    pub(crate) fn in_memory() -> Self {
        Self::over(Home::Memory, |options| options)
    }

    /// The same engine without SQLite.
    pub(crate) fn over_maps() -> Self {
        Self::over(Home::Maps(Maps::default()), |options| options)
    }

    fn over(home: Home, set: impl FnOnce(Options) -> Options) -> Self {
        let clock = ManualClock::new(START_MS);
        let options = set(Options::default().clock(clock.clone()));
        let forebay = home.open(options.clone());
        Self {
            home,
            options,
            clock,
            forebay,
            turn_tokens: Vec::new(),
            work_tokens: Vec::new(),
            fails_first: false,
        }
    }

    /// The same engine with no tokens yet.
    pub(crate) fn another_handle(&self) -> Self {
        let (options, clock, forebay) = (self.options.clone(), self.clock.clone(), self.forebay.clone());
        Self {
            home: Home::Memory,
            options,
            clock,
            forebay,
            turn_tokens: Vec::new(),
            work_tokens: Vec::new(),
            fails_first: false,
        }
    }

    pub(crate) fn failing_first(self) -> Self {
        Self { fails_first: true, ..self }
    }

    /// Makes a call. In an engine that fails first, the batch cannot be written the first time: then what needs a
    /// commit is rolled back, and anything else has its own answer.
    async fn tried<T>(&self, call: impl AsyncFn() -> Result<T, ProviderError>) -> Result<T, ProviderError> {
        if !self.fails_first {
            return bounded(call()).await;
        }
        self.set_writable(false);
        let first = bounded(call()).await;
        self.set_writable(true);
        match first {
            Err(error) if error.is_retryable() => bounded(call()).await,
            own => own,
        }
    }

    /// The same for a fetch. One that finds nothing hears so whatever becomes of its batch, and events that nobody
    /// waits for are dropped by the next.
    async fn tried_fetch<T>(&self, call: impl AsyncFn() -> Granted<T>) -> Granted<T> {
        match self.tried(&call).await {
            Ok(None) if self.fails_first => bounded(call()).await,
            found => found,
        }
    }

    fn set_writable(&self, writable: bool) {
        if let Home::Maps(maps) = &self.home {
            return maps.refuse_writes(!writable);
        }
        let set = move |c: &rusqlite::Connection| c.pragma_update(None, "query_only", !writable);
        self.forebay.on_writer_connection(set).expect("the engine runs").expect("it is set");
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
        seconds.map(|seconds| forebay::clock::Clock::wall_ms(&self.clock) - 1000 * u64::from(seconds))
    }

    pub(crate) fn can_reopen(&self) -> bool {
        !matches!(self.home, Home::Memory)
    }

    pub(crate) async fn enqueue(&self, item: WorkItem, delay_s: Option<u8>) -> Answer {
        done(
            self.tried(async || self.forebay.enqueue_for_orchestrator(item.clone(), delay(delay_s)).await)
                .await,
        )
    }

    pub(crate) async fn enqueue_work(&self, item: WorkItem) -> Answer {
        done(self.tried(async || self.forebay.enqueue_for_worker(item.clone()).await).await)
    }

    pub(crate) async fn ack_turn(&self, token: usize, turn: Turn) -> Answer {
        let token = &self.turn_tokens[token];
        done(self.tried(async || turn.clone().ack(&self.forebay, token).await).await)
    }

    pub(crate) async fn ack_work(&self, token: usize, completion: Option<WorkItem>) -> Answer {
        let token = &self.work_tokens[token];
        done(self.tried(async || self.forebay.ack_work_item(token, completion.clone()).await).await)
    }

    pub(crate) async fn append(&self, execution: u64, added: duroxide::Event) -> Answer {
        let id = added.instance_id.clone();
        let append = async || self.forebay.append_with_execution(&id, execution, vec![added.clone()]).await;
        done(self.tried(append).await)
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
                let delay = delay(delay_s);
                let abandon = async || forebay.abandon_orchestration_item(token, delay, ignore_attempt).await;
                done(self.tried(abandon).await)
            }
            Op::AbandonWork { token, delay_s, ignore_attempt } => {
                let Some(token) = self.work_token(token) else { return Answer::Refused };
                let delay = delay(delay_s);
                done(self.tried(async || forebay.abandon_work_item(token, delay, ignore_attempt).await).await)
            }
            Op::RenewTurn { token } => {
                let Some(token) = self.turn_token(token) else { return Answer::Refused };
                done(self.tried(async || forebay.renew_orchestration_item_lock(token, LOCK).await).await)
            }
            Op::RenewWork { token } => {
                let Some(token) = self.work_token(token) else { return Answer::Refused };
                done(self.tried(async || forebay.renew_work_item_lock(token, LOCK).await).await)
            }
            Op::FetchWork { worker, tags } => {
                let session = worker.map(|worker| session(&worker_name(worker), LOCK));
                let tags = filter(tags);
                let session = session.as_ref();
                let fetch = async || forebay.fetch_work_item(LOCK, Duration::ZERO, session, &tags).await;
                let found = self.tried_fetch(fetch).await;
                Answer::Work(fetched(found).map(|work| {
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
                let renewed =
                    self.tried(async || forebay.renew_session_lock(&workers, LOCK, IDLE).await).await;
                Answer::Count(renewed.expect("they are renewed"))
            }
            Op::SweepSessions => {
                let swept = self.tried(async || forebay.cleanup_orphaned_sessions(IDLE).await).await;
                Answer::Count(swept.expect("they are swept"))
            }
            Op::Delete { instance, force } => {
                let id = instance_name(instance);
                answered(self.tried(async || forebay.delete_instance(&id, force).await).await.map(deleted))
            }
            Op::DeleteThese { ids, force } => {
                let ids = names(ids);
                let delete = async || forebay.delete_instances_atomic(&ids, force).await;
                answered(self.tried(delete).await.map(deleted))
            }
            Op::DeleteBulk(which) => {
                let which = self.these(which);
                let delete = async || forebay.delete_instance_bulk(which.clone()).await;
                deleted(self.tried(delete).await.expect("they are deleted"))
            }
            Op::Prune { instance, keep } => {
                let (id, keep) = (instance_name(instance), self.keeping(keep));
                let prune = async || forebay.prune_executions(&id, keep.clone()).await;
                answered(self.tried(prune).await.map(pruned))
            }
            Op::PruneBulk(which, keep) => {
                let (which, keep) = (self.these(which), self.keeping(keep));
                let prune = async || forebay.prune_executions_bulk(which.clone(), keep.clone()).await;
                pruned(self.tried(prune).await.expect("they are pruned"))
            }
            Op::Advance(step) => {
                self.clock.advance(step);
                Answer::Done
            }
            Op::SetBack => {
                let wall_ms = forebay::clock::Clock::wall_ms(&self.clock);
                self.clock.set_wall_ms(wall_ms.saturating_sub(SET_BACK.as_millis() as u64).max(START_MS));
                Answer::Done
            }
            Op::Reopen => {
                self.forebay.close().expect("it closes");
                self.forebay = self.home.open(self.options.clone());
                Answer::Done
            }
            other => panic!("{other:?} has an argument of its own"),
        }
    }

    async fn fetch_turn(&mut self, ranges: Option<Set>) -> Answer {
        let filter = ranges.map(capable);
        let filter = filter.as_ref();
        let fetch = async || self.forebay.fetch_orchestration_item(LOCK, Duration::ZERO, filter).await;
        let found = self.tried_fetch(fetch).await;
        Answer::Turn(fetched(found).map(|turn| {
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
}
