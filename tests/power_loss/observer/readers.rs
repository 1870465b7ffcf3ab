//! Those outside: what they call, and what they note when they are answered.

use std::time::Duration;

use duroxide::INITIAL_EXECUTION_ID;
use duroxide::providers::{Provider, ProviderAdmin, ProviderError};
use forebay::Forebay;
use tokio::sync::watch;

use super::facts::{Fact, Observer};
use crate::disk::Disk;
use crate::loads::manner::{Heard, Stopped};

/// Nothing more is to be had from the engine.
#[derive(Debug)]
pub(crate) struct Over;

/// See the module.
pub(crate) struct Outside<'a> {
    pub(crate) forebay: Forebay,
    pub(crate) observer: &'a Observer,
    disk: &'a Disk,
    over: watch::Sender<bool>,
}

impl<'a> Outside<'a> {
    pub(crate) fn new(forebay: Forebay, observer: &'a Observer, disk: &'a Disk) -> Self {
        Self { forebay, observer, disk, over: watch::Sender::new(false) }
    }

    pub(crate) fn end(&self) {
        self.over.send_replace(true);
    }

    pub(crate) fn is_over(&self) -> bool {
        *self.over.borrow() || self.disk.is_off()
    }

    /// `None` if it is over before there is an answer.
    pub(crate) async fn unless_over<T>(&self, call: impl Future<Output = T>) -> Option<T> {
        let mut over = self.over.subscribe();
        tokio::select! {
            biased;
            answer = call => Some(answer),
            _ = over.wait_for(|over| *over) => None,
        }
    }

    /// What the answer holds, or `None` if the call was refused.
    pub(crate) fn answered<T>(&self, answer: Result<T, ProviderError>) -> Result<Option<T>, Over> {
        match answer {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if is_refusal(&error) => Ok(None),
            Err(error) => {
                if !self.disk.is_off() {
                    self.observer.surprised(format!("an error while there is power: {error}"));
                }
                self.end();
                Err(Over)
            }
        }
    }

    /// Goes on until it is over; what it was told then no longer matters.
    pub(crate) async fn keep_on(&self, mut once: impl AsyncFnMut() -> Result<(), Over>) {
        while !self.is_over() {
            match self.unless_over(once()).await {
                Some(Ok(())) => tokio::task::yield_now().await,
                _ => return,
            }
        }
    }

    /// Looks until the instance looks as it should.
    pub(crate) async fn until(&self, id: &str, wanted: impl Fn(u64, &str) -> bool) -> Result<(), Over> {
        while !self.is_over() {
            if self.info(id).await?.is_some_and(|(execution, status)| wanted(execution, &status)) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_micros(50)).await;
        }
        Err(Over)
    }

    /// Looks until the instance says that it waits.
    pub(crate) async fn until_waiting(&self, id: &str) -> Result<(), Over> {
        while !self.is_over() {
            if let Some(Some((text, version))) = self.answered(self.forebay.get_custom_status(id, 0).await)? {
                let waits = text.as_deref() == Some("waiting");
                self.observer.note(Fact::Status { instance: id.into(), version, text });
                if waits {
                    return Ok(());
                }
            }
            tokio::time::sleep(Duration::from_micros(50)).await;
        }
        Err(Over)
    }

    async fn info(&self, id: &str) -> Result<Option<(u64, String)>, Over> {
        // Asked before: others may see it while this looks.
        let was_there = self.observer.knows(id);
        let Some(info) = self.answered(self.forebay.get_instance_info(id).await)? else {
            if was_there {
                self.observer.note(Fact::Gone { instance: id.into() });
            }
            return Ok(None);
        };
        let (execution, status) = (info.current_execution_id, info.status);
        let seen = (execution, status.clone());
        self.observer.note(Fact::Info { instance: id.into(), execution, status, output: info.output });
        Ok(Some(seen))
    }

    /// Everything that takes one look at one row.
    pub(crate) async fn read_points(&self, id: &str) -> Result<(), Over> {
        self.info(id).await?;
        if let Some(Some((text, version))) = self.answered(self.forebay.get_custom_status(id, 0).await)? {
            self.observer.note(Fact::Status { instance: id.into(), version, text });
        }
        let count = self.answered(self.forebay.get_kv_value(id, "count").await)?.flatten();
        if let Some(count) = count.and_then(|count| count.parse().ok()) {
            self.observer.note(Fact::Count { instance: id.into(), count });
        }
        Ok(())
    }

    pub(crate) async fn read_histories(&self, id: &str) -> Result<(), Over> {
        let latest = self.answered(self.forebay.read(id).await)?;
        let first = self.answered(self.forebay.read_with_execution(id, INITIAL_EXECUTION_ID).await)?;
        for events in [latest, first].into_iter().flatten() {
            if let Some(first) = events.first() {
                let (instance, execution) = (id.into(), first.execution_id);
                self.observer.note(Fact::History { instance, execution, events });
            }
        }
        let values = self.answered(self.forebay.get_kv_all_values(id).await)?;
        let count = values.and_then(|values| values.get("count")?.parse().ok());
        if let Some(count) = count {
            self.observer.note(Fact::Count { instance: id.into(), count });
        }
        Ok(())
    }

    /// What is about the whole file.
    pub(crate) async fn read_lists(&self, id: &str) -> Result<(), Over> {
        if let Some(ids) = self.answered(self.forebay.list_instances().await)? {
            self.observer.note(Fact::Listed(ids));
        }
        let executions = self.answered(self.forebay.list_executions(id).await)?;
        if let Some(execution) = executions.and_then(|executions| executions.into_iter().max()) {
            self.observer.note(Fact::Latest { instance: id.into(), execution });
        }
        if let Some(totals) = self.answered(self.forebay.get_system_metrics().await)? {
            self.observer.note(Fact::Totals {
                instances: totals.total_instances,
                executions: totals.total_executions,
                completed: totals.completed_instances,
                events: totals.total_events,
            });
        }
        if let Some(ids) = self.answered(self.forebay.list_children(id).await)? {
            self.observer.note(Fact::Listed(ids));
        }
        Ok(())
    }

    async fn read_depths(&self) -> Result<(), Over> {
        if let Some(depths) = self.answered(self.forebay.get_queue_depths().await)? {
            self.observer.note(Fact::Timers(depths.timer_queue));
        }
        Ok(())
    }

    /// Reads all the time, of one instance after the other.
    pub(crate) async fn read_all(&self, ids: &[&str]) {
        let points = self.keep_on(async || each(ids, async |id| self.read_points(id).await).await);
        let histories = self.keep_on(async || each(ids, async |id| self.read_histories(id).await).await);
        let lists = self.keep_on(async || each(ids, async |id| self.read_lists(id).await).await);
        let depths = self.keep_on(async || self.read_depths().await);
        tokio::join!(points, histories, lists, depths);
    }
}

/// What these loads are refused: there is no such instance, or no such lease any more.
fn is_refusal(error: &ProviderError) -> bool {
    let known = ["not found", "Invalid lock token"];
    Stopped::from(error).heard == Heard::Own && known.iter().any(|says| error.message.contains(says))
}

async fn each(ids: &[&str], read: impl AsyncFn(&str) -> Result<(), Over>) -> Result<(), Over> {
    for id in ids {
        read(id).await?;
    }
    Ok(())
}
