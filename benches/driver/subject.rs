//! The seam between the work and what it is done on.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use duroxide::providers::Provider;

pub(crate) use super::job::Problem;
use super::job::{Job, Outcome};
use super::scale::Filling;

/// What an engine says about its own batching, since it was opened.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counters {
    pub(crate) batches: u64,
    pub(crate) operations: u64,
    pub(crate) commits: u64,
    pub(crate) log_bytes: u64,
}

/// An opened subject.
#[async_trait]
pub(crate) trait Store: Send + Sync {
    fn provider(&self) -> Arc<dyn Provider>;

    /// `None` for a subject that does not batch.
    fn counters(&self) -> Option<Counters> {
        None
    }

    async fn close(self: Box<Self>) -> Result<(), Problem> {
        Ok(())
    }
}

/// All subjects of one side.
#[async_trait]
pub(crate) trait Subjects: Send + Sync {
    /// Opens `subject` on `file`, creating it if it is missing. A subject without files ignores it.
    async fn open(&self, subject: &str, file: &Path) -> Result<Box<dyn Store>, Problem>;

    /// Copies the rows of the templates in the closed file of `subject` ([`super::scale`]).
    async fn fill(&self, subject: &str, file: &Path, filling: &Filling) -> Result<(), Problem>;

    /// Work that is not done through a provider.
    fn without_provider(&self, job: &Job) -> Result<Outcome, Problem> {
        Err(format!("{} does not do this work", job.subject).into())
    }
}
