//! The load on the `Writer`: numbered rows, alone and several in one batch, some with a closure between them
//! that fails after it has written.

use std::sync::mpsc;

use forebay::{Clock, Durability, Error, ManualClock, Options, Ticket, Writer};

use crate::trial::{Load, Record, WAL_BYTES_MAX};
use crate::disk::Disk;

/// The numbers, in the order in which they were written, with a checksum of what was written with them.
pub(crate) type Numbers = Vec<(i64, i64)>;

/// See the module.
pub(crate) struct Numbered;

/// Rows of one batch, and the bytes each of them carries.
const SESSIONS: [&[(i64, usize)]; 2] = [
    &[(1, 10), (1, 10), (4, 100), (1, 9_000), (1, 10), (7, 2_000), (2, 10), (1, 30_000), (3, 10)],
    &[(1, 10), (5, 6_000), (1, 10), (1, 10), (3, 20_000), (2, 100), (1, 10)],
];

impl Load for Numbered {
    type Picture = Numbers;

    fn run(&self, disk: &Disk, durability: Durability) -> Record<Numbers> {
        let clock = ManualClock::new(0);
        let mut record = Record::new(Numbers::new());
        let outcome = (|| {
            let mut numbers = Numbers::new();
            for batches in SESSIONS {
                let writer = open(disk, durability, &clock)?;
                let table = "CREATE TABLE IF NOT EXISTS numbers (number INTEGER PRIMARY KEY, text TEXT) STRICT";
                writer.submit(move |tx| Ok(tx.execute(table, [])?)).wait()?;
                for (rows, bytes) in batches {
                    batch(&writer, &mut record, &mut numbers, *rows, *bytes)?;
                    // Long enough now and then to be idle, which means a checkpoint before the next batch.
                    clock.advance(std::time::Duration::from_millis(200));
                }
                writer.close()?;
                record.close();
            }
            Ok::<_, Error>(())
        })();
        record.stopped = outcome.err().map(|error| error.to_string());
        record
    }

    fn look(&self, disk: &Disk, durability: Durability) -> Result<Numbers, String> {
        let looked = (|| {
            let writer = open(disk, durability, &ManualClock::new(0))?;
            let (integrity, numbers) = writer.read(|connection| {
                let integrity: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
                let table = "SELECT count(*) FROM sqlite_schema WHERE name = 'numbers'";
                if connection.query_row(table, [], |row| row.get::<_, i64>(0))? == 0 {
                    return Ok((integrity, Numbers::new()));
                }
                let mut statement = connection.prepare("SELECT number, text FROM numbers ORDER BY rowid")?;
                let rows = statement.query_map([], |row| Ok((row.get(0)?, sum(&row.get::<_, String>(1)?))))?;
                Ok((integrity, rows.collect::<rusqlite::Result<_>>()?))
            })?;
            // What was found can be gone on with.
            let table = "CREATE TABLE IF NOT EXISTS more (number INTEGER) STRICT";
            writer.submit(move |tx| Ok(tx.execute(table, [])?)).wait()?;
            writer.close()?;
            Ok::<_, Error>((integrity, numbers))
        })();
        match looked.map_err(|error| error.to_string())? {
            (integrity, numbers) if integrity == "ok" => Ok(numbers),
            (integrity, _) => Err(format!("integrity_check says {integrity}")),
        }
    }

    fn touch(&self, disk: &Disk, durability: Durability) {
        if let Ok(writer) = open(disk, durability, &ManualClock::new(0)) {
            let _ = writer.close();
        }
    }
}

fn open(disk: &Disk, durability: Durability, clock: &(impl Clock + Clone)) -> Result<Writer, Error> {
    let options = Options::default().durability(durability).clock(clock.clone()).wal_bytes_max(WAL_BYTES_MAX);
    Writer::open(disk.path(), options)
}

/// Writes so many rows in one batch, which the writer thread, held up meanwhile, finds together.
fn batch(
    writer: &Writer,
    record: &mut Record<Numbers>,
    numbers: &mut Numbers,
    rows: i64,
    bytes: usize,
) -> Result<(), Error> {
    let (release, released) = mpsc::channel::<()>();
    let (entered, inside) = mpsc::channel();
    let holding = writer.submit(move |_tx| {
        let _ = entered.send(());
        let _ = released.recv();
        Ok(())
    });
    // Fails at once if the engine refuses work.
    let _ = inside.recv();
    let mut after = numbers.clone();
    let mut tickets: Vec<Ticket<()>> = Vec::new();
    for _ in 0..rows {
        let number = after.len() as i64 + 1;
        let text = format!("{number} ").repeat(bytes / 2);
        after.push((number, sum(&text)));
        tickets.push(insert(writer, number, text));
    }
    let failing = insert(writer, 1, "there already".into());
    record.submit(after.clone(), true);
    drop(release);
    let held = holding.wait();
    let failed = failing.wait();
    let answers: Vec<_> = tickets.into_iter().map(Ticket::wait).collect();
    let errors = answers.iter().filter(|answer| answer.is_err()).count();
    assert!(errors == 0 || errors == answers.len(), "one batch, one fate: {answers:?}");
    held?;
    answers.into_iter().collect::<Result<(), _>>()?;
    assert!(matches!(failed, Err(Error::Sqlite { .. })), "its neighbours are written, it is refused: {failed:?}");
    record.acknowledge();
    *numbers = after;
    Ok(())
}

fn insert(writer: &Writer, number: i64, text: String) -> Ticket<()> {
    writer.submit(move |tx| {
        tx.prepare_cached("INSERT INTO numbers VALUES (?1, ?2)")?.execute((number, text))?;
        Ok(())
    })
}

fn sum(text: &str) -> i64 {
    text.bytes().fold(text.len() as i64, |sum, byte| sum.wrapping_mul(31).wrapping_add(i64::from(byte)))
}
