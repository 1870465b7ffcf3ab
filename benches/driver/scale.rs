//! A file that already holds much: how it is filled, and what it does to opening, memory and throughput.
//!
//! A million orchestrations are not run to fill it: one is, and one that waits for a timer, and then their
//! rows are copied under other names by SQL. The copies are rows as any other to the subject; what their
//! records say inside is never read, because no copy is ever fetched.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use duroxide::Client;
use tokio::time::timeout;

use super::figures::{self, milliseconds};
use super::job::{Outcome, Prepare, Scale};
use super::observe::Observer;
use super::observed::Observed;
use super::subject::{Problem, Store, Subjects};
use super::{flows, load, process};

pub(crate) const FINISHED: &str = "finished";
pub(crate) const SLEEPING: &str = "sleeping";

/// The templates are two orchestrations on an empty file: anything longer is a failure.
const TEMPLATE_MAX: Duration = Duration::from_secs(20);

/// How many copies of each template.
pub(crate) struct Filling {
    pub(crate) finished: u64,
    pub(crate) timers: u64,
}

/// One table in which a template has rows, and what differs in a copy: columns and SQL, `n.i` is its number.
pub(crate) struct Copied {
    pub(crate) table: &'static str,
    /// Which rows are the template's, as SQL.
    pub(crate) template: String,
    pub(crate) replaced: Vec<(&'static str, String)>,
}

impl Copied {
    /// The statements that write `count` copies. `columns` are those of the table.
    pub(crate) fn statements(&self, columns: &[String], count: u64) -> Vec<String> {
        let value = |column: &String| {
            let replaced = self.replaced.iter().find(|(name, _)| name == column);
            replaced.map_or_else(|| format!("t.\"{column}\""), |(_, sql)| sql.clone())
        };
        let values: Vec<String> = columns.iter().map(value).collect();
        let names: Vec<String> = columns.iter().map(|column| format!("\"{column}\"")).collect();
        let table = self.table;
        vec![
            format!("CREATE TEMP TABLE template AS SELECT * FROM main.{table} WHERE {}", self.template),
            format!(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count}) \
                 INSERT INTO main.{table} ({}) SELECT {} FROM n CROSS JOIN temp.template t",
                names.join(", "),
                values.join(", ")
            ),
            "DROP TABLE temp.template".into(),
        ]
    }
}

pub(crate) async fn prepare(
    subjects: &dyn Subjects,
    subject: &str,
    prepare: &Prepare,
) -> Result<Outcome, Problem> {
    let store = subjects.open(subject, &prepare.file).await?;
    let templates = write_templates(store.as_ref()).await;
    store.close().await?;
    templates?;
    let filling = Filling { finished: prepare.finished, timers: prepare.timers };
    subjects.fill(subject, &prepare.file, &filling).await?;
    Ok(Outcome::default())
}

async fn write_templates(store: &dyn Store) -> Result<(), Problem> {
    let observer = Observer::of_turns();
    let provider = Observed::around(store.provider(), &observer);
    let runtime = flows::start(Arc::clone(&provider), 1).await;
    let client = Client::new(provider);
    let written = async {
        let ended = observer.follow(FINISHED);
        client.start_orchestration(FINISHED, flows::FAN_OUT, flows::fan_out_input()).await?;
        ended.await?;
        let turns = observer.turns().len();
        client.start_orchestration(SLEEPING, flows::SLEEPER, "").await?;
        while observer.turns().len() == turns {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok::<(), Problem>(())
    };
    let written = timeout(TEMPLATE_MAX, written).await;
    runtime.shutdown(None).await;
    written.map_err(|_| "the templates were not done in time")?
}

pub(crate) async fn run(subjects: &dyn Subjects, subject: &str, scale: &Scale) -> Result<Outcome, Problem> {
    let begun = Instant::now();
    let store = subjects.open(subject, &scale.file).await?;
    let opened = begun.elapsed();
    let memory = process::memory_mb();
    let file = process::database_mb(&scale.file);
    let outcome = load::run(store.as_ref(), &scale.load).await;
    store.close().await?;
    let mut outcome = outcome?;
    outcome.set(figures::OPEN_MS, milliseconds(opened));
    outcome.set(figures::OPEN_MEMORY_MB, memory.unwrap_or(f64::NAN));
    outcome.set(figures::FILE_MB, file.unwrap_or(f64::NAN));
    Ok(outcome)
}

/// The file of a subject inside the folder of a job.
pub(crate) fn file_in(folder: &Path) -> std::path::PathBuf {
    folder.join("app.db")
}
