//! The subjects this side runs: forebay, the provider that stores nothing, SQLite without an engine.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use duroxide::providers::Provider;
use forebay::{Durability, Forebay, Options};

use crate::ceiling::Ceiling;
use crate::driver::job::{Job, Outcome, Work};
use crate::driver::scale::Filling;
use crate::driver::subject::{Counters, Problem, Store, Subjects};
use crate::{fill, raw, writer};

pub(crate) struct Ours;

#[async_trait]
impl Subjects for Ours {
    async fn open(&self, subject: &str, file: &Path) -> Result<Box<dyn Store>, Problem> {
        Ok(match subject {
            "forebay-full" => Box::new(Opened(options(Durability::Full).open(file)?)),
            "forebay-sync-acks" => Box::new(Opened(options(Durability::Full).sync_acks(true).open(file)?)),
            "forebay-normal" => Box::new(Opened(options(Durability::Normal).open(file)?)),
            "forebay-memory" => Box::new(Opened(Forebay::in_memory()?)),
            "runtime" => Box::new(Nothing(Ceiling::default())),
            other => return Err(format!("no such subject: {other}").into()),
        })
    }

    async fn fill(&self, subject: &str, file: &Path, filling: &Filling) -> Result<(), Problem> {
        match subject {
            "forebay-full" | "forebay-normal" => fill::fill(file, filling),
            other => Err(format!("{other} has no file to fill").into()),
        }
    }

    fn without_provider(&self, job: &Job) -> Result<Outcome, Problem> {
        match &job.work {
            Work::Rows(rows) => raw::run(job, rows),
            Work::Writer(load) => writer::run(job, load),
            other => Err(format!("needs a provider: {other:?}").into()),
        }
    }
}

/// Nothing but the durability is set: what is measured is what a user gets.
pub(crate) fn options(durability: Durability) -> Options {
    Options::default().durability(durability)
}

struct Opened(Forebay);

#[async_trait]
impl Store for Opened {
    fn provider(&self) -> Arc<dyn Provider> {
        Arc::new(self.0.clone())
    }

    fn counters(&self) -> Option<Counters> {
        let stats = self.0.stats();
        Some(Counters {
            batches: stats.batches,
            operations: stats.operations,
            commits: stats.commits,
            log_bytes: stats.bytes_written,
        })
    }

    async fn close(self: Box<Self>) -> Result<(), Problem> {
        // Blocks until the writer is done, which no executor thread should.
        Ok(tokio::task::spawn_blocking(move || self.0.close()).await??)
    }
}

struct Nothing(Ceiling);

impl Store for Nothing {
    fn provider(&self) -> Arc<dyn Provider> {
        Arc::new(self.0.clone())
    }
}
