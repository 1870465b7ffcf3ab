//! Group commit in a program of its own, without duroxide: many threads write small transactions to one
//! SQLite file, and each of them gets its own result back once it is durable.
//!
//! ```sh
//! cargo run --release --no-default-features --example embedded
//! ```

use std::thread;
use std::time::Instant;

use forebay::{Error, Writer};

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

/// Returns how many transfers were refused: each of them undid itself alone, its neighbours in the same
/// transaction went through.
fn transfer_from_many_threads(writer: &Writer) -> Result<u64, Error> {
    let mut refused = 0;
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn(move || (0..TRANSFERS_EACH).map(|n| transfer(writer, thread, n)).collect())
            })
            .collect();
        for thread in threads {
            let results: Vec<Result<(), Error>> =
                thread.join().map_err(|_panic| Error::operation("a thread panicked"))?;
            refused += results.iter().filter(|result| result.is_err()).count() as u64;
            // Only the bank's own refusal is expected.
            for error in results.into_iter().filter_map(Result::err) {
                if !matches!(error, Error::Operation { .. }) {
                    return Err(error);
                }
            }
        }
        Ok(refused)
    })
}

fn transfer(writer: &Writer, thread: u64, n: u64) -> Result<(), Error> {
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
            0 => Err(Error::operation(format!("account {from} has less than {amount}"))),
            _ => Ok(()),
        }
    });
    ticket.wait()
}
