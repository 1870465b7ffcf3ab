//! The `Writer`, killed while several threads have numbered closures under way: each writes its number in
//! several rows, some of them fail half-way on purpose. What resolved is there; of each thread a prefix is
//! there, in order; and no closure is there by halves.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use forebay::{Durability, Error, Ticket, Writer, WriterOptions};
use rusqlite::Connection;

use crate::child::{Death, Job, run_and_kill};
use crate::manner::{Kind, Manner};
use crate::random::Random;
use crate::report::Report;
use crate::scratch::Scratch;
use crate::{assert_none, kills, seed};

const CHILD: &str = "numbers::the_child";

const THREADS: u64 = 4;

/// Tickets a thread has out.
const UNDER_WAY: usize = 16;

/// The closure of which a lying child tells without handing it in.
const LIE: u64 = 20;

/// No thread of a child gets further than this.
const NUMBERS_MAX: u64 = 1_000_000;

/// Rows that a closure writes.
fn rows_of(number: u64) -> u64 {
    1 + number % 4
}

/// Whether a closure gives up after its first row.
fn fails(number: u64) -> bool {
    number % 7 == 3
}

/// The process that is killed.
#[test]
fn the_child() {
    let Some(job) = Job::own() else { return };
    let options = WriterOptions::default().durability(Durability::Full).wal_bytes_max(job.wal_bytes_max);
    let writer = options.open(&job.database).expect("it opens");
    let table = "CREATE TABLE IF NOT EXISTS numbers (thread INTEGER, number INTEGER, part INTEGER) STRICT";
    writer.blocking_submit(move |tx| tx.execute_batch(table)).wait().expect("there is a table");
    Report::Ready.tell();
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (writer, first, manner) = (writer.clone(), job.first, job.manner);
            std::thread::spawn(move || write_for_ever(&writer, thread, first, manner))
        })
        .collect();
    for thread in threads {
        thread.join().expect("no thread gives up");
    }
}

fn write_for_ever(writer: &Writer, thread: u64, first: u64, manner: Manner) {
    let lies = manner == Manner::Lies(Kind::End);
    let mut under_way: VecDeque<(u64, Ticket<()>)> = VecDeque::new();
    for number in first.. {
        if under_way.len() == UNDER_WAY {
            let (number, ticket) = under_way.pop_front().expect("there are some");
            let report = Report::Resolved { thread, number };
            match ticket.wait() {
                Ok(()) if lies => {}
                Ok(()) => report.tell(),
                Err(error) => assert!(fails(number), "{number}: {error}"),
            }
        }
        if lies && number == first + LIE {
            Report::Resolved { thread, number }.tell();
            // Until the kill.
            loop {
                std::thread::park();
            }
        }
        let ticket = writer.blocking_submit(move |tx| {
            for part in 0..rows_of(number) {
                let row = [thread, number, part].map(u64::cast_signed);
                tx.prepare_cached("INSERT INTO numbers VALUES (?1, ?2, ?3)")?.execute(row)?;
                if fails(number) {
                    return Err(Error::operation("on purpose"));
                }
            }
            Ok(())
        });
        under_way.push_back((number, ticket));
    }
}

/// One file, and the last number of which each thread of each child was told, by the child's first.
struct Trial {
    scratch: Scratch,
    /// By thread and child.
    told: BTreeMap<(u64, u64), u64>,
    resolved: usize,
    children: u64,
    manner: Manner,
}

impl Trial {
    fn new(manner: Manner) -> Self {
        Self { scratch: Scratch::new(), told: BTreeMap::new(), resolved: 0, children: 0, manner }
    }

    fn kill_one(&mut self, random: &mut Random, death: Death) {
        let job = Job {
            database: self.scratch.database(),
            first: self.children * NUMBERS_MAX,
            wal_bytes_max: [64 << 10, 512 << 10, 32 << 20][random.below(3)],
            manner: self.manner,
        };
        self.children += 1;
        for report in run_and_kill(CHILD, &job, death) {
            match report {
                Report::Ready => {}
                // Tickets of a thread resolve in order, so the last one stands for all before.
                Report::Resolved { thread, number } => {
                    self.resolved += 1;
                    self.told.insert((thread, number / NUMBERS_MAX), number);
                }
                other => panic!("{other:?} belongs to the other load"),
            }
        }
    }

    /// What is wrong with the file. It is opened where it is, and closed.
    fn look(&self) -> Vec<String> {
        let writer = match Writer::open(self.scratch.database()) {
            Ok(writer) => writer,
            Err(error) => return vec![format!("it does not open: {error:#}")],
        };
        let found =
            writer.blocking_read(|connection| Ok::<_, Error>((unsound(connection)?, numbers(connection)?)));
        let (mut wrong, numbers) = found.expect("it can be read");
        writer.blocking_close().expect("it closes");
        for (thread, child) in self.told.keys().chain(numbers.keys()) {
            let found = numbers.get(&(*thread, *child)).map_or(&[][..], Vec::as_slice);
            wrong.extend(judge(*thread, *child, found, self.told.get(&(*thread, *child)).copied()));
        }
        wrong
    }
}

/// Numbers with their rows, in the order in which they were written, by thread and child.
type Numbers = BTreeMap<(u64, u64), Vec<(u64, u64)>>;

/// Holds what was found against what a thread of a child must have written: all its numbers, but for those
/// that fail, up to some point, and that not before the last of which it was told.
fn judge(thread: u64, child: u64, found: &[(u64, u64)], told: Option<u64>) -> Vec<String> {
    let mut wrong = Vec::new();
    let expected = (child * NUMBERS_MAX..).filter(|number| !fails(*number));
    for (number, (there, rows)) in expected.zip(found) {
        if number != *there {
            wrong.push(format!("HOLE OR ORDER: thread {thread} wrote {there} where {number} belongs"));
            break;
        }
        if *rows != rows_of(number) {
            wrong.push(format!("HALF: {number} of thread {thread} is there with {rows} rows"));
        }
    }
    let last = found.last().map(|(number, _)| *number);
    if told > last {
        wrong.push(format!("LOST: thread {thread} was told of {told:?}, the last there is {last:?}"));
    }
    wrong
}

fn unsound(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let check: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    Ok(if check == "ok" { vec![] } else { vec![check] })
}

fn numbers(connection: &Connection) -> rusqlite::Result<Numbers> {
    let mut numbers = Numbers::new();
    // A child that died early has made no table.
    if !connection.table_exists(None, "numbers")? {
        return Ok(numbers);
    }
    let mut statement = connection.prepare("SELECT thread, number, part FROM numbers ORDER BY rowid")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let field = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
        let (thread, number, part) = (field(0)?, field(1)?, field(2)?);
        let of_child = numbers.entry((thread, number / NUMBERS_MAX)).or_default();
        match of_child.last_mut() {
            Some((last, rows)) if *last == number && *rows == part => *rows += 1,
            _ => of_child.push((number, 1)),
        }
    }
    Ok(numbers)
}

#[test]
fn what_a_killed_writer_was_told_is_there_whole_and_in_order() {
    let (seed, began) = (seed(), Instant::now());
    let (mut random, kills) = (Random::new(!seed), kills() / 5 * 2);
    let (mut done, mut while_opening, mut files, mut resolved) = (0, 0, 0, 0);
    let mut wrong = Vec::new();
    while done < kills {
        let mut trial = Trial::new(Manner::Honest);
        files += 1;
        for _ in 0..(1 + random.below(5)).min(kills - done) {
            let death = Death::random(&mut random);
            trial.kill_one(&mut random, death);
            done += 1;
            while_opening += usize::from(matches!(death, Death::Opening(_)));
            if random.percent(70) {
                wrong.extend(trial.look().iter().map(|what| format!("kill {done}, {death:?}: {what}")));
            }
        }
        wrong.extend(trial.look());
        resolved += trial.resolved;
    }
    println!(
        "writer: {done} kills ({while_opening} while opening) on {files} files; {resolved} closures \
         acknowledged; {} wrong, seed {seed}, {:.1} s",
        wrong.len(),
        began.elapsed().as_secs_f64()
    );
    assert_none(&wrong);
    assert!(resolved > 0, "nothing was done");
}

/// The test can fail: a child that tells of closures before they are committed is caught.
#[test]
fn a_writer_that_answers_too_early_is_caught() {
    let mut random = Random::new(seed());
    let mut trial = Trial::new(Manner::Lies(Kind::End));
    trial.kill_one(&mut random, Death::Told(Kind::End, 1));
    let wrong = trial.look();
    assert!(wrong.iter().any(|what| what.contains("LOST")), "nothing was noticed: {wrong:?}");
}

/// And so is a file that has lost a row, a closure, or the order of two.
#[test]
fn a_file_with_a_part_missing_is_caught() {
    let whole: Vec<(u64, u64)> = (0..40).filter(|n| !fails(*n)).map(|n| (n, rows_of(n))).collect();
    assert_eq!(judge(0, 0, &whole, Some(39)), Vec::<String>::new());
    let broken = |breaking: fn(&mut Vec<(u64, u64)>)| {
        let mut broken = whole.clone();
        breaking(&mut broken);
        judge(0, 0, &broken, Some(39)).join(" ")
    };
    assert!(broken(|numbers| numbers[5].1 -= 1).contains("HALF"));
    assert!(
        broken(|numbers| {
            numbers.remove(5);
        })
        .contains("HOLE")
    );
    assert!(broken(|numbers| numbers.swap(5, 6)).contains("ORDER"));
    assert!(broken(|numbers| numbers.truncate(5)).contains("LOST"));
    assert!(broken(|numbers| numbers.insert(3, (3, 1))).contains("ORDER"), "3 fails");
    assert!(!judge(0, 0, &[], Some(0)).is_empty());
}
