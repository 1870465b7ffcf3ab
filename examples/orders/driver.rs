//! The world outside the store: places the orders, approves them, and waits for each to end.
//!
//! It keeps no notes of its own. What has to be done after a crash follows from two lists the store gives:
//! the instances it knows and the ones that have ended.
//!
//! Rejected: asking the store about every order in flight on a timer. At 200 in flight that is thousands
//! of history reads a second, and the example would measure them. Each order has a bell instead (`bells`).

use std::collections::HashSet;
use std::fmt;
use std::future::Future;
use std::time::{Duration, Instant};

use duroxide::{Client, ClientError, OrchestrationStatus};
use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::Error;
use crate::args::Args;
use crate::bells::Bells;
use crate::flow;
use crate::report::Report;

/// An order whose bell has not rung is looked at this often, in case it failed on the way to its last step.
const LOOK_EVERY_S: u64 = 2;
/// No order ending for this long means something is stuck; better said than waited for.
const STALL_MAX_S: u64 = 120;
/// One wait of the client's own, which polls; it is repeated until the order ends.
const WAIT_S: u64 = 30;
const ATTEMPTS_MAX: u32 = 6;
const RETRY_AFTER_MS: u64 = 50;

/// What the store held before this process changed anything.
pub struct Survey {
    /// The number of orders in the run that the file holds, if it holds one.
    pub run: Option<u64>,
    /// Orders that have taken a first step. One that was only just submitted may be missing.
    pub started: HashSet<u64>,
    /// Orders that have ended, well or badly.
    pub ended: HashSet<u64>,
    instances: usize,
}

impl Survey {
    pub async fn take(client: &Client) -> Result<Survey, Error> {
        let instances = client.list_all_instances().await?;
        let mut ended = HashSet::new();
        for status in ["Completed", "Failed"] {
            let some = client.list_instances_by_status(status).await?;
            ended.extend(some.iter().filter_map(|id| flow::order_of(id)));
        }
        let run = match client.get_orchestration_status(flow::RUN_ID).await? {
            OrchestrationStatus::Completed { output, .. } => Some(output.parse()?),
            _ => None,
        };
        let started = instances.iter().filter_map(|id| flow::order_of(id)).collect();
        Ok(Survey { run, started, ended, instances: instances.len() })
    }

    /// Refuses a file that holds something else, and a number of orders other than the run's.
    pub fn agrees_with(&self, args: &Args) -> Result<(), Error> {
        match (self.run, args.orders) {
            (None, _) if self.instances > 0 => {
                Err(format!("{} holds orchestrations, but no run of orders", args.db.display()).into())
            }
            (Some(recorded), Some(asked)) if recorded != asked => Err(format!(
                "the run in {} has {recorded} orders, not {asked}; leave out --orders to finish it",
                args.db.display()
            )
            .into()),
            _ => Ok(()),
        }
    }
}

#[derive(Clone)]
pub struct Driver {
    client: Client,
    bells: Bells,
    in_flight: usize,
}

impl Driver {
    pub fn new(client: Client, bells: Bells, in_flight: usize) -> Driver {
        Driver { client, bells, in_flight }
    }

    /// Puts the number of orders where the orders are: an instance whose result is that number. No order
    /// starts before it is durable, so a file that holds an order also says how many there should be.
    pub async fn record_run(&self, args: &Args, survey: &Survey) -> Result<u64, Error> {
        if let Some(orders) = survey.run {
            return Ok(orders);
        }
        let asked = args.orders_or_default();
        retry(|| self.client.start_orchestration(flow::RUN_ID, flow::RUN, asked.to_string())).await?;
        match self.wait(flow::RUN_ID).await? {
            // A process that died right here may have submitted the run already: the first one counts.
            OrchestrationStatus::Completed { output, .. } if output == asked.to_string() => Ok(asked),
            OrchestrationStatus::Completed { output, .. } => {
                Err(format!("the run in this file has {output} orders, not {asked}").into())
            }
            other => Err(format!("the run could not be recorded: {other:?}").into()),
        }
    }

    /// Runs every order that has not ended, at most `in_flight` at a time.
    pub async fn drive(&self, orders: u64, survey: &Survey) -> Result<Report, Error> {
        let bar = progress_bar(orders, survey.ended.len() as u64);
        let begun = Instant::now();
        let mut latencies = Vec::new();
        let mut finished = 0;
        let mut pending = (1..=orders).filter(|order| !survey.ended.contains(order));
        // Dropping the set, when Ctrl-C drops this future, aborts its tasks: no further order is started.
        let mut tasks = JoinSet::new();
        loop {
            while tasks.len() < self.in_flight
                && let Some(order) = pending.next()
            {
                let driver = self.clone();
                let started = survey.started.contains(&order);
                tasks.spawn(async move { driver.see_through(order, started).await });
            }
            match timeout(Duration::from_secs(STALL_MAX_S), tasks.join_next()).await {
                Ok(None) => break,
                Ok(Some(ended)) => latencies.extend(ended??),
                Err(_) => {
                    return Err(format!("no order has ended for {STALL_MAX_S} s; giving up").into());
                }
            }
            finished += 1;
            bar.inc(1);
        }
        let elapsed = begun.elapsed();
        bar.finish_and_clear();
        Ok(Report::new(finished, elapsed, latencies, survey.run.is_some()))
    }

    /// One order from its submission to its end. The latency is `None` for an order that an earlier
    /// process submitted.
    async fn see_through(&self, order: u64, started: bool) -> Result<Option<Duration>, ClientError> {
        let id = flow::order_id(order);
        let bell = self.bells.listen(order);
        let submitted = Instant::now();
        if !started {
            // If the dead process had submitted it after all, this second start is ignored.
            retry(|| self.client.start_orchestration(&id, flow::ORDER, order.to_string())).await?;
        }
        // IMPORTANT: after the start is acknowledged, because a message to an instance the store has never
        // heard of is dropped. Whether an earlier process got this far is not known, and need not be: a
        // second approval is never read.
        retry(|| self.client.enqueue_event(&id, flow::APPROVAL, flow::APPROVED)).await?;

        if started {
            // Its bell may have rung in the dead process. There are at most `in_flight` of these, so the
            // client may poll for them.
            self.wait(&id).await?;
            return Ok(None);
        }
        self.wait_for_bell(&id, bell).await?;
        self.wait(&id).await?;
        Ok(Some(submitted.elapsed()))
    }

    /// Returns when the order's last step has run, or when the order ended without getting there.
    async fn wait_for_bell(&self, id: &str, mut bell: oneshot::Receiver<()>) -> Result<(), ClientError> {
        while timeout(Duration::from_secs(LOOK_EVERY_S), &mut bell).await.is_err() {
            let status = retry(|| self.client.get_orchestration_status(id)).await?;
            if matches!(status, OrchestrationStatus::Completed { .. } | OrchestrationStatus::Failed { .. }) {
                break;
            }
        }
        Ok(())
    }

    /// Returns when the store says that the instance has ended, and how.
    async fn wait(&self, id: &str) -> Result<OrchestrationStatus, ClientError> {
        loop {
            match self.client.wait_for_orchestration(id, Duration::from_secs(WAIT_S)).await {
                Err(ClientError::Timeout) => {}
                Err(error) if error.is_retryable() => sleep(Duration::from_millis(RETRY_AFTER_MS)).await,
                other => return other,
            }
        }
    }
}

/// Starts and approvals may be sent twice, so an error that the store calls retryable is retried.
async fn retry<T, F>(mut call: impl FnMut() -> F) -> Result<T, ClientError>
where
    F: Future<Output = Result<T, ClientError>>,
{
    let mut attempt = 1;
    loop {
        match call().await {
            Err(error) if error.is_retryable() && attempt < ATTEMPTS_MAX => {
                sleep(Duration::from_millis(RETRY_AFTER_MS << attempt)).await;
                attempt += 1;
            }
            other => return other,
        }
    }
}

/// Draws on stderr, and not at all when that is not a terminal.
fn progress_bar(orders: u64, ended: u64) -> ProgressBar {
    // Fits 80 columns, up to a million orders.
    let style = ProgressStyle::with_template("{bar:30} {human_pos}/{human_len}  {rate} orders/s  {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .with_key("rate", |state: &ProgressState, out: &mut dyn fmt::Write| {
            let _ = write!(out, "{:.0}", state.per_sec());
        });
    let bar = ProgressBar::new(orders).with_style(style).with_position(ended);
    bar.reset_eta();
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
