//! What is measured: the subjects, and each work as cells of a size. `--quick` has the same cells, smaller.

use crate::args::Args;
use crate::driver::job::{LargePayload, Load, LongHistory, Rows, Stress, Work, WriterLoad};

/// Where the code of a subject is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Side {
    Ours,
    /// `benches/peers/`
    Peers,
    /// `benches/peers-writer/`
    WriterPeers,
}

#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) key: &'static str,
    pub(crate) name: &'static str,
    pub(crate) side: Side,
    /// Of its lines in the plots.
    pub(crate) colour: (u8, u8, u8),
}

const fn subject(key: &'static str, name: &'static str, side: Side, colour: (u8, u8, u8)) -> Subject {
    Subject { key, name, side, colour }
}

/// The peer everything is compared with, and the ceiling of everything that runs on the runtime.
pub(crate) const PEER: &str = "sqlite-file";
pub(crate) const CEILING: &str = "runtime";

pub(crate) const SUBJECTS: [Subject; 18] = [
    subject("forebay-full", "forebay, file, Full", Side::Ours, (0, 90, 181)),
    subject("forebay-sync-acks", "forebay, file, Full, sync_acks", Side::Ours, (120, 60, 200)),
    subject("forebay-normal", "forebay, file, Normal", Side::Ours, (0, 160, 220)),
    subject("forebay-memory", "forebay, in memory", Side::Ours, (120, 200, 235)),
    subject(PEER, "SqliteProvider, file", Side::Peers, (200, 60, 0)),
    subject("sqlite-memory", "SqliteProvider, in memory", Side::Peers, (240, 150, 60)),
    subject("duroxide-pg", "duroxide-pg", Side::Peers, (120, 70, 160)),
    subject(CEILING, "runtime's ceiling (stores nothing)", Side::Ours, (90, 90, 90)),
    subject("raw-full", "raw SQLite, FULL", Side::Ours, (0, 120, 60)),
    subject("raw-normal", "raw SQLite, NORMAL", Side::Ours, (90, 180, 90)),
    subject("writer-full", "Writer, Full", Side::Ours, (0, 90, 181)),
    subject("writer-normal", "Writer, Normal", Side::Ours, (0, 160, 220)),
    subject("mutex-full", "Mutex<Connection>, FULL", Side::Ours, (200, 60, 0)),
    subject("mutex-normal", "Mutex<Connection>, NORMAL", Side::Ours, (240, 150, 60)),
    subject("pool-full", "pool of connections, FULL", Side::Ours, (120, 70, 160)),
    subject("pool-normal", "pool of connections, NORMAL", Side::Ours, (180, 140, 210)),
    subject("tokio-rusqlite-full", "tokio-rusqlite, FULL", Side::WriterPeers, (0, 120, 60)),
    subject("tokio-rusqlite-normal", "tokio-rusqlite, NORMAL", Side::WriterPeers, (90, 180, 90)),
];

const ON_THE_RUNTIME: [&str; 8] = [
    "forebay-full",
    "forebay-sync-acks",
    "forebay-normal",
    "forebay-memory",
    PEER,
    "sqlite-memory",
    "duroxide-pg",
    CEILING,
];
const BATCHING: [&str; 2] = ["forebay-full", "forebay-normal"];
const ON_FILES: [&str; 3] = ["forebay-full", "forebay-normal", PEER];
const RAW: [&str; 2] = ["raw-full", "raw-normal"];
const EMBEDDED: [&str; 8] = [
    "writer-full",
    "writer-normal",
    "mutex-full",
    "mutex-normal",
    "pool-full",
    "pool-normal",
    "tokio-rusqlite-full",
    "tokio-rusqlite-normal",
];

/// Which cells of a work belong together on a plot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Sizes,
    /// The same dispatchers under more and more load.
    Load,
    /// The storage's ceiling.
    Storage,
    /// Only there to compare with.
    Base,
}

/// One work at one size, to be done by each of its subjects.
pub(crate) struct Cell {
    pub(crate) work: u8,
    pub(crate) part: Part,
    pub(crate) label: String,
    /// Its place on the axis of a plot.
    pub(crate) x: f64,
    pub(crate) task: Task,
    pub(crate) subjects: Vec<&'static Subject>,
    /// How long one measurement takes, for the progress bar.
    pub(crate) estimate_s: f64,
    pub(crate) rounds_max: usize,
}

pub(crate) enum Task {
    Plain(Work),
    /// Needs a file that was filled before.
    Filled {
        finished: u64,
        timers: u64,
        load: Load,
    },
}

/// The heading of a work, in tables and documents.
pub(crate) fn title(work: u8) -> &'static str {
    match work {
        1 => "1. duroxide's own stress test: fan-out of 5 x 10 ms, 20 in flight",
        2 => "2. Throughput: fan-out of 5 x 0 ms",
        3 => "3. One orchestration at a time: fan-out of 5 x 0 ms, 2/2",
        4 => "4. duroxide's large-payload test: 10 to 100 KB, 1/1, 5 in flight",
        5 => "5. A long history: one orchestration, one activity after the other, 1/1",
        6 => "6. Scale: the work of 2 at 8/8 on a file that already holds much",
        _ => "7. Writer: one-row transactions from many threads",
    }
}

pub(crate) fn cells(args: &Args) -> Vec<Cell> {
    let sizes = Sizes { quick: args.quick };
    let mut cells = sizes.stress();
    cells.extend(sizes.throughput());
    cells.extend(sizes.one_at_a_time());
    cells.extend(sizes.large_payload());
    cells.extend(sizes.long_history());
    cells.extend(sizes.scale());
    cells.extend(sizes.writer());
    cells.retain_mut(|cell| {
        cell.subjects.retain(|subject| args.wants_subject(subject.key));
        args.wants_work(cell.work) && !cell.subjects.is_empty()
    });
    cells
}

/// Subjects by key; duroxide-pg only where there is a PostgreSQL.
fn of(keys: &[&str]) -> Vec<&'static Subject> {
    let has_postgres = std::env::var_os("DATABASE_URL").is_some();
    let wanted =
        |subject: &&Subject| keys.contains(&subject.key) && (has_postgres || subject.key != "duroxide-pg");
    SUBJECTS.iter().filter(wanted).collect()
}

/// Seconds a child needs to start, open, shut down and close.
const AROUND_S: f64 = 0.3;

struct Sizes {
    quick: bool,
}

impl Sizes {
    fn pick<T>(&self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }

    fn cell(&self, work: u8, label: String, x: f64, keys: &[&str], seconds: f64, task: Work) -> Cell {
        let (subjects, estimate_s) = (of(keys), seconds + AROUND_S);
        let (part, task) = (Part::Sizes, Task::Plain(task));
        Cell { work, part, label, x, task, subjects, estimate_s, rounds_max: usize::MAX }
    }

    fn stress(&self) -> Vec<Cell> {
        let seconds = self.pick(1, 5);
        let cell = |dispatchers: usize| {
            // It ends once all 20 are done, which it looks for every 100 ms.
            let (label, task) = (both(dispatchers), Work::Stress(Stress { dispatchers, seconds }));
            self.cell(1, label, dispatchers as f64, &ON_THE_RUNTIME, seconds as f64 + 0.7, task)
        };
        self.pick(vec![2], vec![1, 2, 8]).into_iter().map(cell).collect()
    }

    fn load(&self, dispatchers: usize, in_flight: usize) -> Load {
        let (warm_up_s, seconds) = self.pick((0.2, 0.5), (1.5, 4.0));
        Load { dispatchers, in_flight, warm_up_s, seconds, completions_max: None }
    }

    fn throughput(&self) -> Vec<Cell> {
        let mut cells = Vec::new();
        let seconds = |load: &Load| load.warm_up_s + load.seconds;
        for (dispatchers, in_flight) in [(1, 20), (2, 20), (8, 64), (64, 500)] {
            let load = self.load(dispatchers, in_flight);
            let label = format!("{}, {in_flight} in flight", both(dispatchers));
            let (x, seconds) = (dispatchers as f64, seconds(&load));
            cells.push(self.cell(2, label, x, &ON_THE_RUNTIME, seconds, Work::Load(load)));
        }
        for in_flight in self.pick(vec![4, 64], vec![1, 4, 16, 64, 256]) {
            let load = self.load(64, in_flight);
            let label = format!("64/64, {in_flight} in flight");
            let seconds = seconds(&load);
            let cell = self.cell(2, label, in_flight as f64, &BATCHING, seconds, Work::Load(load));
            cells.push(Cell { part: Part::Load, ..cell });
        }
        let seconds = self.pick(0.5, 2.0);
        for orchestrations_a_transaction in [1, 64] {
            let rows = Rows { orchestrations_a_transaction, seconds };
            let label = format!("{orchestrations_a_transaction} a transaction, 1 thread");
            let x = f64::from(orchestrations_a_transaction);
            let cell = self.cell(2, label, x, &RAW, seconds, Work::Rows(rows));
            cells.push(Cell { part: Part::Storage, ..cell });
        }
        cells
    }

    fn one_at_a_time(&self) -> Vec<Cell> {
        let (warm_up_s, seconds) = self.pick((0.1, 1.0), (1.0, 5.0));
        let load = Load { dispatchers: 2, in_flight: 1, warm_up_s, seconds, completions_max: Some(20_000) };
        vec![self.cell(3, "2/2".into(), 1.0, &ON_THE_RUNTIME, warm_up_s + seconds, Work::Load(load))]
    }

    fn large_payload(&self) -> Vec<Cell> {
        let (seconds, activities, sub_orchestrations) = self.pick((1, 3, 1), (5, 20, 5));
        let task = Work::LargePayload(LargePayload { seconds, activities, sub_orchestrations });
        vec![self.cell(4, "1/1".into(), 1.0, &ON_THE_RUNTIME, seconds as f64 + 1.0, task)]
    }

    fn long_history(&self) -> Vec<Cell> {
        let (activities, seconds_max) = self.pick((300, 1.5), (10_000, 40.0));
        let task = Work::LongHistory(LongHistory { activities, seconds_max });
        let label = format!("{activities} activities");
        let cell = self.cell(5, label, activities as f64, &ON_THE_RUNTIME, seconds_max / 2.0, task);
        // Every turn is a sample: more rounds would only take hours.
        vec![Cell { rounds_max: 1, ..cell }]
    }

    fn scale(&self) -> Vec<Cell> {
        let sizes = self.pick(
            [(0, 0), (0, 1_000), (2_000, 1_000), (20_000, 1_000)],
            [(0, 0), (0, 100_000), (100_000, 100_000), (1_000_000, 100_000)],
        );
        let cell = |(finished, timers): (u64, u64)| {
            let load = self.load(8, 64);
            Cell {
                work: 6,
                // The empty file has no place on an axis of its own.
                part: if timers == 0 { Part::Base } else { Part::Sizes },
                label: format!("{finished} finished, {timers} timers"),
                x: finished as f64,
                estimate_s: load.warm_up_s + load.seconds + AROUND_S,
                task: Task::Filled { finished, timers, load },
                // The peer's own schema takes too long to fill to that size.
                subjects: of(if finished < 1_000_000 { &ON_FILES } else { &BATCHING }),
                rounds_max: usize::MAX,
            }
        };
        sizes.into_iter().map(cell).collect()
    }

    fn writer(&self) -> Vec<Cell> {
        let seconds = self.pick(0.3, 2.0);
        let mut cells = Vec::new();
        for (threads, in_flight_a_thread) in [(1, 1), (8, 1), (64, 1), (8, 64)] {
            let label = format!("{threads} threads, {in_flight_a_thread} each in flight");
            let x = f64::from(threads) * in_flight_a_thread as f64;
            let task = Work::Writer(WriterLoad { threads, in_flight_a_thread, seconds });
            cells.push(self.cell(7, label, x, &EMBEDDED, seconds, task));
        }
        cells
    }
}

/// Orchestration and activity dispatchers, as duroxide's stress test writes them.
fn both(dispatchers: usize) -> String {
    format!("{dispatchers}/{dispatchers}")
}
