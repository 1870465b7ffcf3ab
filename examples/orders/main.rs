//! An order desk on forebay: thousands of durable orders through duroxide, in one process and one file.
//!
//! ```text
//! cargo run --release --example orders
//! ```
//!
//! Stop it with Ctrl-C, or as rudely as you like (`kill -9`), and finish the same orders:
//!
//! ```text
//! cargo run --release --example orders -- --resume
//! ```
//!
//! Reading order: `flow.rs` is the order itself (orchestrations and activities), `store.rs` all that
//! concerns forebay, `driver.rs` the world outside that places and approves orders, `verify.rs` the proof
//! at the end. `args.rs`, `bells.rs` and `report.rs` are plumbing.
//!
//! Exit status: 0 every order verified; 1 an error, or an order that is wrong; 2 bad arguments;
//! 130 interrupted.

mod args;
mod bells;
mod driver;
mod flow;
mod report;
mod store;
mod verify;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use duroxide::Client;
use duroxide::runtime::{LogFormat, ObservabilityConfig, Runtime, RuntimeOptions};
use indicatif::HumanCount;
use tokio::sync::watch;

use args::{Args, Command, Mode};
use bells::Bells;
use driver::{Driver, Survey};
use store::Store;

/// The example only ever prints its errors, so one boxed type is enough. A library would not do this.
type Error = Box<dyn std::error::Error + Send + Sync>;

enum Ending {
    Verified,
    Wrong,
    Interrupted,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = match args::parse(std::env::args_os().skip(1)) {
        Ok(Command::Run(args)) => args,
        Ok(Command::Help) => {
            print!("{}", args::USAGE);
            return ExitCode::SUCCESS;
        }
        Err(wrong) => {
            eprintln!("orders: {wrong}\n\n{}", args::USAGE);
            return ExitCode::from(2);
        }
    };
    match run(&args).await {
        Ok(Ending::Verified) => ExitCode::SUCCESS,
        Ok(Ending::Wrong) => ExitCode::FAILURE,
        Ok(Ending::Interrupted) => ExitCode::from(130),
        Err(error) => {
            eprintln!("orders: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<Ending, Error> {
    let mut stop = interrupts();
    prepare(args)?;

    let store = Store::open(&args.db, args.durability)?;
    let client = Client::new(store.provider());
    // IMPORTANT: before the runtime starts. What the last process left is a still picture only until then.
    let survey = Survey::take(&client).await?;
    survey.agrees_with(args)?;

    let bells = Bells::default();
    let runtime = start_runtime(&store, &bells).await;
    let driver = Driver::new(client.clone(), bells, args.in_flight);
    let worked = tokio::select! {
        worked = work(args, &driver, &survey) => Some(worked),
        _ = stop.changed() => None,
    };
    runtime.shutdown(None).await;
    let stats = store.stats();
    drop((driver, client));
    let closed = store.close();

    let (orders, report) = match worked {
        Some(Ok(done)) => done,
        // The first error is the cause; one from closing after it would only hide it.
        Some(Err(error)) => {
            let resume = args.resume_command();
            return Err(
                format!("{error}\nEvery acknowledged step is in the file. To go on:\n  {resume}").into()
            );
        }
        None => {
            closed?;
            eprintln!("\ninterrupted; every acknowledged step is in the file. To finish these orders:");
            eprintln!("  {}", args.resume_command());
            return Ok(Ending::Interrupted);
        }
    };
    closed?;
    report.print(&stats);

    // The proof opens the file anew: it must not be able to see anything that lived in memory only.
    let store = Store::open(&args.db, args.durability)?;
    let client = Client::new(store.provider());
    let verdict = tokio::select! {
        verdict = verify::verify(&client, orders) => verdict?,
        _ = stop.changed() => {
            eprintln!("\ninterrupted before the proof was complete. To repeat it:");
            eprintln!("  {}", args.resume_command());
            return Ok(Ending::Interrupted);
        }
    };
    drop(client);
    store.close()?;
    print!("{verdict}");
    if survey.run.is_some() {
        let before = survey.ended.len() as u64;
        println!(
            "{} orders were complete before the resume, {} were finished after it",
            HumanCount(before),
            HumanCount(orders.saturating_sub(before))
        );
    }
    Ok(if verdict.is_clean() { Ending::Verified } else { Ending::Wrong })
}

/// Makes the file's state fit the mode: absent for a new run, present for a resumed one.
fn prepare(args: &Args) -> Result<(), Error> {
    let db = args.db.display();
    match args.mode {
        Mode::New if store::exists(&args.db) => Err(format!(
            "{db} already exists; nothing was changed\n  --resume  finishes the run in it\n  --fresh   \
             deletes it (with its -wal, -shm and -lock) and begins again"
        )
        .into()),
        Mode::Resume if !store::exists(&args.db) => {
            Err(format!("{db} does not exist, so there is nothing to resume; leave out --resume to begin")
                .into())
        }
        Mode::Fresh if store::exists(&args.db) => store::delete(&args.db),
        _ => store::create_parent(&args.db),
    }
}

/// Everything between the start of the runtime and its shutdown.
async fn work(args: &Args, driver: &Driver, survey: &Survey) -> Result<(u64, report::Report), Error> {
    let orders = driver.record_run(args, survey).await?;
    println!(
        "{} orders, {} in flight, durability {}, {}",
        HumanCount(orders),
        args.in_flight,
        args.durability,
        args.db.display()
    );
    if survey.run.is_some() {
        let (started, ended) = (survey.started.len() as u64, survey.ended.len() as u64);
        println!(
            "resuming: {} complete, {} in progress, {} not begun",
            HumanCount(ended),
            HumanCount(started.saturating_sub(ended)),
            HumanCount(orders.saturating_sub(started))
        );
    }
    let report = driver.drive(orders, survey).await?;
    Ok((orders, report))
}

async fn start_runtime(store: &Store, bells: &Bells) -> Arc<Runtime> {
    let options = RuntimeOptions {
        orchestration_concurrency: 8,
        worker_concurrency: 8,
        // A pause after an empty fetch, meant for stores that cannot wait for work. forebay can: it parks
        // the fetch until there is some.
        dispatcher_min_poll_interval: Duration::from_millis(1),
        observability: ObservabilityConfig {
            log_format: LogFormat::Compact,
            // The runtime installs a log subscriber on stdout that warns by default, and a resumed run
            // gives it two things to warn of that are harmless here: a start or an approval sent a second
            // time. The level is pasted into a list of filters, so a second filter can follow it.
            // RUST_LOG, if set, wins.
            log_level: "error,duroxide=error".into(),
            ..ObservabilityConfig::default()
        },
        ..RuntimeOptions::default()
    };
    Runtime::start_with_options(store.provider(), flow::activities(bells), flow::orchestrations(), options)
        .await
}

/// Changes once, at the first Ctrl-C. The second one ends the process on the spot, which loses nothing:
/// to the store it is one more crash.
fn interrupts() -> watch::Receiver<bool> {
    let (interrupted, watcher) = watch::channel(false);
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_err() {
            // No handler could be installed: Ctrl-C ends the process as it would any other. The sender
            // is kept, because dropping it looks like an interrupt to `changed`.
            std::future::pending::<()>().await;
        }
        let _ = interrupted.send(true);
        if tokio::signal::ctrl_c().await.is_ok() {
            std::process::exit(130);
        }
        std::future::pending::<()>().await;
    });
    watcher
}
