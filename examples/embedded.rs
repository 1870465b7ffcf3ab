//! Group commit in a program of its own, without duroxide: many threads write small transactions to one
//! SQLite file, and each of them gets its own result back once it is durable.
//!
//! ```sh
//! cargo run --release --no-default-features --example embedded
//! ```

use std::thread;
use std::time::Instant;

use forebay::{Error, Writer, rusqlite};

const THREADS: u64 = 64;
const TRANSFERS_EACH: u64 = 200;
const ACCOUNTS: i64 = 100;
const BALANCE_AT_START: i64 = 1_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let writer = Writer::open(folder.path().join("bank.db"))?;
    create_accounts(&writer)?;

    let started = Instant::now();
    let refused = transfer_from_many_threads(&writer)?;
    let elapsed = started.elapsed();

    let total: i64 = writer
        .blocking_read(|conn| conn.query_row("SELECT sum(balance) FROM accounts", [], |row| row.get(0)))?;
    let stats = writer.stats();
    println!("transfers        {:>10}  of which {refused} refused", THREADS * TRANSFERS_EACH);
    println!("transfers/s      {:>10.0}", (THREADS * TRANSFERS_EACH) as f64 / elapsed.as_secs_f64());
    println!("commits          {:>10}", stats.commits);
    println!("transfers/commit {:>10.1}", stats.operations as f64 / stats.commits as f64);
    println!("sum of balances  {total:>10}  expected {}", ACCOUNTS * BALANCE_AT_START);
    writer.blocking_close()?;
    if total == ACCOUNTS * BALANCE_AT_START { Ok(()) } else { Err("money was made or lost".into()) }
}

fn create_accounts(writer: &Writer) -> Result<(), Error> {
    let created = writer.blocking_submit(|tx| {
        tx.execute_batch(
            "CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL CHECK (balance >= 0))",
        )?;
        for id in 0..ACCOUNTS {
            tx.execute("INSERT INTO accounts VALUES (?1, ?2)", [id, BALANCE_AT_START])?;
        }
        Ok::<_, Error>(())
    });
    created.wait()
}

/// Why a transfer did not happen.
#[derive(Debug)]
enum Refused {
    /// The bank's own reason, which undoes the transfer alone.
    TooLittle { account: i64, amount: i64 },
    /// Anything else that forebay or SQLite says.
    Storage(Error),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Refused::Storage(error)
    }
}

impl From<rusqlite::Error> for Refused {
    fn from(error: rusqlite::Error) -> Self {
        Refused::Storage(error.into())
    }
}

/// Returns how many transfers were refused: each of them undid itself alone, its neighbours in the same
/// transaction went through.
fn transfer_from_many_threads(writer: &Writer) -> Result<u64, Box<dyn std::error::Error>> {
    let mut refused = 0;
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn(move || (0..TRANSFERS_EACH).map(|n| transfer(writer, thread, n)).collect())
            })
            .collect();
        for thread in threads {
            let results: Vec<Result<(), Refused>> = thread.join().map_err(|_panic| "a thread panicked")?;
            for result in results {
                match result {
                    Ok(()) => {}
                    Err(Refused::TooLittle { account, amount }) => {
                        debug_assert!(amount > 0 && account < ACCOUNTS);
                        refused += 1;
                    }
                    Err(Refused::Storage(error)) => return Err(error.into()),
                }
            }
        }
        Ok(refused)
    })
}

fn transfer(writer: &Writer, thread: u64, n: u64) -> Result<(), Refused> {
    // A few large amounts, so that some transfers fail half-way and have to be undone.
    let random = (thread * TRANSFERS_EACH + n).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16;
    let (from, to) = (random as i64 % ACCOUNTS, (random >> 20) as i64 % ACCOUNTS);
    let amount = 1 + (random >> 40) as i64 % 400;
    let ticket = writer.blocking_submit(move |tx| {
        // The credit first: if the debit is refused, this very row has to be put back.
        tx.prepare_cached("UPDATE accounts SET balance = balance + ?2 WHERE id = ?1")?
            .execute([to, amount])?;
        let debit = "UPDATE accounts SET balance = balance - ?2 WHERE id = ?1 AND balance >= ?2";
        match tx.prepare_cached(debit)?.execute([from, amount])? {
            0 => Err(Refused::TooLittle { account: from, amount }),
            _ => Ok(()),
        }
    });
    ticket.wait()
}
