//! The load on the `Writer`: numbered rows, alone and several in one batch, each batch with a closure in it
//! that fails after it has written.

use std::sync::mpsc;

use forebay::clock::{Clock, ManualClock};
use forebay::{Durability, Error, Ticket, Writer, WriterOptions};

use super::manner::{Call, Heard, Manner, OnError, Stopped};
use super::record::Record;
use super::{Likeness, Load, WAL_BYTES_MAX};
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

const TABLE: &str = "CREATE TABLE IF NOT EXISTS numbers (number INTEGER PRIMARY KEY, text TEXT) STRICT";

impl Likeness for Numbers {}

impl Load for Numbered {
    type Picture = Numbers;

    fn run(&self, disk: &Disk, durability: Durability, on_error: OnError) -> Record<Numbers> {
        let mut record = Record::new(Numbers::new());
        let mut manner = Manner::new(disk, on_error);
        record.stopped = run(disk, durability, &mut record, &mut manner).err();
        record.wrong = manner.wrong;
        record.heard = manner.heard;
        record
    }

    fn look(&self, disk: &Disk, durability: Durability) -> Result<Numbers, String> {
        let looked = (|| {
            let writer = open(disk, durability, &ManualClock::new(0))?;
            let (integrity, numbers) = writer.blocking_read(|connection| {
                let integrity: String =
                    connection.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
                let table = "SELECT count(*) FROM sqlite_schema WHERE name = 'numbers'";
                if connection.query_row(table, [], |row| row.get::<_, i64>(0))? == 0 {
                    return Ok::<_, Error>((integrity, Numbers::new()));
                }
                let mut statement = connection.prepare("SELECT number, text FROM numbers ORDER BY rowid")?;
                let rows =
                    statement.query_map([], |row| Ok((row.get(0)?, sum(&row.get::<_, String>(1)?))))?;
                Ok((integrity, rows.collect::<rusqlite::Result<_>>()?))
            })?;
            // What was found can be gone on with.
            let table = "CREATE TABLE IF NOT EXISTS more (number INTEGER) STRICT";
            writer.blocking_submit(move |tx| tx.execute(table, [])).wait()?;
            writer.blocking_close()?;
            Ok::<_, Error>((integrity, numbers))
        })();
        match looked.map_err(|error| format!("{error:#}"))? {
            (integrity, numbers) if integrity == "ok" => Ok(numbers),
            (integrity, _) => Err(format!("integrity_check says {integrity}")),
        }
    }

    fn touch(&self, disk: &Disk, durability: Durability) {
        if let Ok(writer) = open(disk, durability, &ManualClock::new(0)) {
            let _ = writer.blocking_close();
        }
    }
}

fn open(disk: &Disk, durability: Durability, clock: &(impl Clock + Clone)) -> Result<Writer, Error> {
    let options = WriterOptions::default()
        .durability(durability)
        .clock(clock.clone())
        .wal_bytes_max(WAL_BYTES_MAX)
        .full_disk_wait(std::time::Duration::ZERO);
    options.open(disk.path())
}

/// Both sessions, each with a writer of its own.
fn run(
    disk: &Disk,
    durability: Durability,
    record: &mut Record<Numbers>,
    manner: &mut Manner<'_>,
) -> Result<(), Stopped> {
    let clock = ManualClock::new(0);
    let mut numbers = Numbers::new();
    for batches in SESSIONS {
        let writer = loop {
            match open(disk, durability, &clock) {
                Ok(writer) => break writer,
                Err(error) => {
                    manner.check_syncs_of_opening();
                    manner.again(Call::Other, Stopped::from(&error))?;
                }
            }
        };
        manner.succeeded();
        let mut session = Session { writer, record, manner, numbers };
        let done = session.run(batches, &clock);
        if session.manner.is_latched(&done) {
            disk.heal();
            session.stays_failed();
        }
        let closed = session.writer.blocking_close();
        numbers = session.numbers;
        manner.ended(record, done, closed)?;
    }
    Ok(())
}

/// One writer, from opening to closing.
struct Session<'a, 'd> {
    writer: Writer,
    record: &'a mut Record<Numbers>,
    manner: &'a mut Manner<'d>,
    numbers: Numbers,
}

impl Session<'_, '_> {
    fn run(&mut self, batches: &[(i64, usize)], clock: &ManualClock) -> Result<(), Stopped> {
        while let Err(error) = self.writer.blocking_submit(|tx| tx.execute(TABLE, [])).wait() {
            self.manner.again(Call::Other, Stopped::from(&error))?;
        }
        self.manner.succeeded();
        for (rows, bytes) in batches {
            while let Err(stopped) = self.batch(*rows, *bytes) {
                self.manner.again(Call::Other, stopped)?;
            }
            self.manner.succeeded();
            // Long enough now and then to be idle, which means a checkpoint before the next batch.
            clock.advance(std::time::Duration::from_millis(200));
        }
        Ok(())
    }

    /// Writes so many rows in one batch, which the writer thread, held up meanwhile, finds together.
    fn batch(&mut self, rows: i64, bytes: usize) -> Result<(), Stopped> {
        let (release, released) = mpsc::channel::<()>();
        let (entered, inside) = mpsc::channel();
        let holding = self.writer.blocking_submit(move |_tx| {
            let _ = entered.send(());
            let _ = released.recv();
            Ok::<_, Error>(())
        });
        if inside.recv().is_err() {
            let refused = holding.wait().expect_err("it did not run");
            return Err(Stopped::from(&refused));
        }
        let mut after = self.numbers.clone();
        let mut tickets: Vec<Ticket<()>> = Vec::new();
        let first = self.numbers.last().map_or(1, |(number, _)| number + 1);
        for number in first..first + rows {
            let text = format!("{number} ").repeat(bytes / 2);
            after.push((number, sum(&text)));
            tickets.push(insert(&self.writer, number, text));
        }
        let failing = self.writer.blocking_submit(|tx| {
            tx.execute("INSERT INTO numbers VALUES (-1, 'never')", [])?;
            Err::<(), _>(Error::operation("on purpose"))
        });
        self.record.submit(after.clone(), true);
        drop(release);
        let held = holding.wait();
        let failed = failing.wait().expect_err("it gives an error");
        let answers: Vec<_> = tickets.into_iter().map(Ticket::wait).collect();
        self.conclude(held, failed, &answers, after)
    }

    /// A closure's own error is its own; everything else is everybody's.
    fn conclude(
        &mut self,
        held: Result<(), Error>,
        failed: Error,
        answers: &[Result<(), Error>],
        after: Numbers,
    ) -> Result<(), Stopped> {
        let errors = answers.iter().filter_map(|answer| answer.as_ref().err()).chain([&failed]);
        let told: Vec<Stopped> = errors.map(Stopped::from).collect();
        let of_all = told.iter().find(|stopped| stopped.heard != Heard::Own);
        if let Some(fate) = of_all {
            if told.len() != answers.len() + 1 || told.iter().any(|stopped| stopped.heard != fate.heard) {
                self.manner.wrong.push(format!("TWO FATES in one batch: {answers:?}, {failed:?}"));
            }
            if fate.heard == Heard::RolledBack && self.manner.persists() {
                self.record.withdraw();
            }
            return Err(fate.clone());
        }
        if answers.iter().all(Result::is_ok) {
            held.map_err(|error| Stopped::from(&error))?;
            self.numbers = after;
        } else {
            // Those that were refused left no trace among their neighbours.
            let begun = after.len() - answers.len();
            let rows = after[begun..].iter().zip(answers).filter(|(_, answer)| answer.is_ok());
            self.numbers.extend(rows.map(|(row, _)| *row));
            self.record.withdraw();
            self.record.submit(self.numbers.clone(), true);
        }
        self.record.acknowledge();
        Ok(())
    }

    /// A writer that has failed refuses everything, although the disk works again.
    fn stays_failed(&mut self) {
        let told = |answer: Result<(), Error>| answer.map_err(|error| Stopped::from(&error));
        for _ in 0..2 {
            let answer = insert(&self.writer, -2, "refused".into()).wait();
            self.manner.expect_failed("a closure", told(answer));
            let answer = self.writer.try_submit(|_tx| Ok::<_, Error>(())).map(drop).map_err(Error::from);
            self.manner.expect_failed("trying a closure", told(answer));
            let answer = self.writer.blocking_read(|_connection| Ok::<_, Error>(()));
            self.manner.expect_failed("a read", told(answer));
            let answer = self.writer.blocking_close();
            self.manner.expect_failed("closing", told(answer));
        }
    }
}

fn insert(writer: &Writer, number: i64, text: String) -> Ticket<()> {
    writer.blocking_submit(move |tx| {
        tx.prepare_cached("INSERT INTO numbers VALUES (?1, ?2)")?.execute((number, text))?;
        Ok::<_, Error>(())
    })
}

fn sum(text: &str) -> i64 {
    text.bytes().fold(text.len() as i64, |sum, byte| sum.wrapping_mul(31).wrapping_add(i64::from(byte)))
}
