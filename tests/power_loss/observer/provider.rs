//! The load through the provider: clients, the loop of a runtime, activities and readers, all at once.

use duroxide::Event;
use duroxide::providers::{Provider, ProviderAdmin, ProviderError, PruneOptions, TagFilter, WorkItem};
use forebay::clock::ManualClock;
use tokio::task::JoinSet;

use super::facts::{Fact, Observer};
use super::readers::{Outside, Over};
use super::turns::{by_hand, input_of, turn_of};
use super::{APPENDED, PATIENCE, on_one_thread, options};
use crate::disk::Disk;
use crate::engine_support::{HOUR, LOCK, START_MS, completed, raised, start};

/// What a fetch of an activity gives.
type Fetched = Result<Option<(WorkItem, String, u32)>, ProviderError>;

/// An instance no orchestration belongs to.
const NOBODY: &str = "nobody";

/// What readers look at.
const READ: [&str; 8] = ["a1", "a2", "d1", "d2", "l1", "p1", "p1/child", APPENDED];

/// Long enough that checkpoints happen now and then.
const DATA_BYTES: usize = 1500;

/// Runs until everything is done, or the power goes.
pub(crate) fn run(disk: &Disk, observer: &Observer) {
    let clock = ManualClock::new(START_MS);
    let Ok(forebay) = options().clock(clock).open(disk.path()) else { return };
    let outside = Outside::new(forebay, observer, disk);
    on_one_thread(async {
        tokio::time::timeout(PATIENCE, everybody(&outside)).await.expect("the load comes to an end");
    });
    // After a loss of power it says so.
    let _ = outside.forebay.close();
}

async fn everybody(outside: &Outside<'_>) {
    let clients = async {
        let _ = tokio::join!(
            outside.client(&["a1", "d1"]),
            outside.client(&["l1", "d2"]),
            outside.client(&["p1", "a2"]),
            outside.append(),
            outside.odd_jobs(),
        );
        outside.end();
    };
    tokio::join!(
        clients,
        outside.keep_on(async || outside.turn().await),
        outside.keep_on(async || outside.turn().await),
        outside.keep_on(async || outside.activity().await),
        outside.keep_on(async || outside.activity().await),
        outside.keep_on(async || outside.activity().await),
        outside.read_all(&READ),
    );
}

impl Outside<'_> {
    /// One instance after the other, from its start to its end.
    async fn client(&self, ids: &[&str]) -> Result<(), Over> {
        for id in ids {
            self.start(id).await?;
            tokio::try_join!(self.raise(id, "bell", 1), self.raise(id, "bell", 2))?;
            self.raise(id, "cancel", 3).await?;
            if id.starts_with('l') {
                self.raise(id, "next", 4).await?;
                self.until(id, |execution, _| execution == 2).await?;
                tokio::try_join!(self.raise(id, "bell", 5), self.prune(id))?;
            }
            self.raise(id, "end", 6).await?;
            self.until(id, |_, status| status == "Completed").await?;
        }
        // Late, so that much is seen before anything is excused.
        for id in ids.iter().filter(|id| id.starts_with(['d', 'p'])) {
            self.delete(id).await?;
        }
        Ok(())
    }

    async fn start(&self, id: &str) -> Result<(), Over> {
        let taken = self.answered(self.forebay.enqueue_for_orchestrator(start(id), None).await)?;
        if taken.is_some() {
            self.observer.note(Fact::StartTaken { instance: id.into() });
        }
        Ok(())
    }

    async fn raise(&self, id: &str, name: &str, no: u64) -> Result<(), Over> {
        let data = format!("{id} {no} {}", "x".repeat(DATA_BYTES));
        let mut item = raised(id, name);
        if let WorkItem::ExternalRaised { data: of, .. } = &mut item {
            of.clone_from(&data);
        }
        if self.answered(self.forebay.enqueue_for_orchestrator(item, None).await)?.is_some() {
            self.observer.note(Fact::RaiseTaken { instance: id.into(), data });
        }
        Ok(())
    }

    async fn delete(&self, id: &str) -> Result<(), Over> {
        self.observer.deletes(id);
        let answer = self.answered(self.forebay.delete_instance(id, true).await)?;
        if answer.is_some_and(|result| result.instances_deleted > 0) {
            self.observer.note(Fact::Gone { instance: id.into() });
        }
        Ok(())
    }

    async fn prune(&self, id: &str) -> Result<(), Over> {
        self.observer.prunes(id);
        let answer = self.answered(self.forebay.prune_executions(id, PruneOptions::default()).await)?;
        if answer.is_some_and(|result| result.executions_deleted > 0) {
            self.observer.note(Fact::Pruned { instance: id.into(), below: 2 });
        }
        Ok(())
    }

    /// A history written by hand.
    async fn append(&self) -> Result<(), Over> {
        let mut events = Vec::new();
        for id in 1..=6 {
            let event = by_hand(APPENDED, id);
            events.push(event.clone());
            let answer = self.forebay.append_with_execution(APPENDED, 1, vec![event]).await;
            if self.answered(answer)?.is_some() {
                let (instance, execution, events) = (APPENDED.into(), 1, events.clone());
                self.observer.note(Fact::History { instance, execution, events });
            }
        }
        Ok(())
    }

    /// Activities of no orchestration, and a start that is due much later.
    async fn odd_jobs(&self) -> Result<(), Over> {
        for id in 1..=4 {
            let item = WorkItem::ActivityExecute {
                instance: NOBODY.into(),
                execution_id: 1,
                id,
                name: "Charge".into(),
                input: input_of(NOBODY, 1, id),
                session_id: None,
                tag: None,
            };
            if self.answered(self.forebay.enqueue_for_worker(item.clone()).await)?.is_some() {
                self.observer.note(Fact::WorkTaken(item));
            }
        }
        let later = self.forebay.enqueue_for_orchestrator(start("later"), Some(HOUR)).await;
        if self.answered(later)?.is_some() {
            self.observer.note(Fact::StartTaken { instance: "later".into() });
        }
        Ok(())
    }

    /// The loop of a runtime. Nothing it hears is seen outside.
    async fn turn(&self) -> Result<(), Over> {
        let fetched = self.forebay.fetch_orchestration_item(LOCK, HOUR, None).await;
        let Some(Some((item, token, _))) = self.answered(fetched)? else { return Ok(()) };
        // An instance that was deleted meanwhile refuses it.
        self.answered(turn_of(&item).ack(&self.forebay, &token).await)?;
        Ok(())
    }

    /// What the runtime's worker does first, in a task of its own: it fetches, and reads the history of the instance.
    async fn fetch_and_read(&self) -> (Fetched, Option<Result<Vec<Event>, ProviderError>>) {
        let forebay = self.forebay.clone();
        let work = async move {
            let fetched = forebay.fetch_work_item(LOCK, HOUR, None, &TagFilter::Any).await;
            let history = match &fetched {
                Ok(Some((WorkItem::ActivityExecute { instance, .. }, ..))) if instance != NOBODY => {
                    Some(forebay.read(instance).await)
                }
                _ => None,
            };
            (fetched, history)
        };
        // Dropped with the load, as any other call.
        let mut task = JoinSet::new();
        task.spawn(work);
        task.join_next().await.expect("one task").expect("it does not panic")
    }

    /// A worker, and the activity it starts.
    async fn activity(&self) -> Result<(), Over> {
        let (fetched, history) = self.fetch_and_read().await;
        let Some(Some((item, token, attempt))) = self.answered(fetched)? else { return Ok(()) };
        if let Some(events) = history.and_then(|history| self.answered(history).transpose()).transpose()?
            && let (WorkItem::ActivityExecute { instance, .. }, Some(last)) = (&item, events.last())
        {
            let (instance, execution) = (instance.clone(), last.execution_id);
            self.observer.note(Fact::History { instance, execution, events });
        }
        self.observer.ran(&item);
        let WorkItem::ActivityExecute { instance, execution_id: execution, id, input, .. } = item else {
            return Ok(());
        };
        if instance != NOBODY {
            let (instance, id) = (instance.clone(), Some(id));
            self.observer.note(Fact::Started { instance, execution, id, input });
        }
        if attempt == 1 && id % 3 == 0 {
            // Put back, it is started again.
            self.answered(self.forebay.abandon_work_item(&token, None, false).await)?;
            return Ok(());
        }
        // Others get on meanwhile: it may be cancelled.
        tokio::task::yield_now().await;
        let renewed = self.answered(self.forebay.renew_work_item_lock(&token, LOCK).await)?;
        let mut completion = completed(&instance, id);
        if let WorkItem::ActivityCompleted { execution_id, .. } = &mut completion {
            *execution_id = execution;
        }
        let done = self.answered(self.forebay.ack_work_item(&token, Some(completion)).await)?;
        if renewed.is_none() || done.is_none() {
            self.observer.note(Fact::Cancelled { instance, execution, id });
        }
        Ok(())
    }
}
