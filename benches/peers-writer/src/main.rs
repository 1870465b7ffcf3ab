//! tokio-rusqlite doing work 7: one thread with a connection, closures sent to it, a transaction each. A child
//! of the harness; speaks JSON lines (`benches/driver/lines.rs`).

mod driver;
#[path = "../../driver/plain.rs"]
#[allow(dead_code)] // `Writer` prepares the insert itself
mod plain;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use driver::job::{Outcome, Problem, Work, WriterLoad};
use plain::Done;
use tokio_rusqlite::Connection;

fn main() -> Result<(), Problem> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    driver::lines::answer_each(|job| {
        let Work::Writer(load) = &job.work else {
            return Err(format!("{} does not do this work", job.subject).into());
        };
        let synchronous = match job.subject.as_str() {
            "tokio-rusqlite-full" => "FULL",
            "tokio-rusqlite-normal" => "NORMAL",
            other => return Err(format!("no such subject: {other}").into()),
        };
        runtime.block_on(measure(&job.folder.join("app.db"), load, synchronous))
    })
}

/// A task for every transaction that is in flight: as many as threads, times the tickets each has out.
async fn measure(file: &Path, load: &WriterLoad, synchronous: &str) -> Result<Outcome, Problem> {
    let connection = Connection::from(plain::open(file, synchronous)?);
    connection.call(|connection| connection.execute_batch(plain::CREATE)).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let begun = Instant::now();
    let mut tasks = Vec::new();
    for number in 0..load.threads {
        for _ in 0..load.in_flight_a_thread {
            tasks.push(tokio::spawn(insert_until(connection.clone(), Arc::clone(&stop), number)));
        }
    }
    tokio::time::sleep(Duration::from_secs_f64(load.seconds)).await;
    stop.store(true, Ordering::Relaxed);
    let elapsed = begun.elapsed();
    let mut done = Vec::new();
    for task in tasks {
        done.push(task.await??);
    }
    connection.close().await?;
    Ok(plain::outcome(done, elapsed))
}

async fn insert_until(
    connection: Connection,
    stop: Arc<AtomicBool>,
    number: u32,
) -> Result<Done, tokio_rusqlite::Error> {
    let mut done = Done::default();
    while !stop.load(Ordering::Relaxed) {
        let submitted = Instant::now();
        connection.call(move |connection| plain::insert(connection, number)).await?;
        done.add(submitted, &stop);
    }
    Ok(done)
}
