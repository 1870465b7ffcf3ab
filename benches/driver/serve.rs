//! What a child does with a job that is done on duroxide's runtime, or beside it.

use super::job::{Job, Outcome, Work};
use super::subject::{Problem, Store, Subjects};
use super::{lines, load, long, scale, stress};

/// Answers jobs until standard input ends.
pub(crate) fn serve(subjects: &dyn Subjects) -> Result<(), Problem> {
    // IMPORTANT: before anything of duroxide. Its runtime installs a subscriber that logs to standard
    // output, which belongs to the answers; and nobody should be measured while formatting log lines.
    tracing::subscriber::set_global_default(tracing::subscriber::NoSubscriber::default())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    lines::answer_each(|job| match &job.work {
        Work::Rows(_) | Work::Writer(_) => subjects.without_provider(job),
        _ => runtime.block_on(through_provider(subjects, job)),
    })
}

async fn through_provider(subjects: &dyn Subjects, job: &Job) -> Result<Outcome, Problem> {
    match &job.work {
        Work::Prepare(prepare) => return scale::prepare(subjects, &job.subject, prepare).await,
        Work::Scale(scale) => return scale::run(subjects, &job.subject, scale).await,
        _ => {}
    }
    let store = subjects.open(&job.subject, &scale::file_in(&job.folder)).await?;
    let outcome = measure(store.as_ref(), &job.work).await;
    let closed = store.close().await;
    let outcome = outcome?;
    closed?;
    Ok(outcome)
}

async fn measure(store: &dyn Store, work: &Work) -> Result<Outcome, Problem> {
    match work {
        Work::Stress(stress) => stress::parallel(store, stress).await,
        Work::LargePayload(payload) => stress::large_payload(store, payload).await,
        Work::Load(load) => load::run(store, load).await,
        Work::LongHistory(long) => long::run(store, long).await,
        other => Err(format!("not done on a store of its own: {other:?}").into()),
    }
}
