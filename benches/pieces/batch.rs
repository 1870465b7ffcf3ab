//! Batches on SQLite, without the writer thread: apply, settle, commit, reply.
//!
//! No `Durability::Full`: an fsync says more about the disk than about this code.

use std::path::Path;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use forebay::hooks::by_hand::{self, Completion, Encoded, EngineByHand, Turn, WriterByHand};
use forebay::{Durability, Options, WriterOptions};

use crate::fan_out::{ACTIVITIES, FanOut};

const AT_ONCE: [u64; 2] = [1, 64];

/// Short: files grow with every fan-out.
const MEASURED: Duration = Duration::from_secs(3);

pub(crate) fn benches(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name);
    let mut group = criterion.benchmark_group("batch");
    group.warm_up_time(Duration::from_secs(1)).measurement_time(MEASURED).sample_size(30);

    for at_once in AT_ONCE {
        group.throughput(Throughput::Elements(at_once));
        let file = file(&format!("engine-{at_once}.db"));
        for (name, file) in [("memory", None), ("file", Some(file.as_path()))] {
            let mut engine = Engine::open(file);
            let name = format!("engine in {name}: fan-outs of {ACTIVITIES} in 4 batches");
            // Goes on over all samples: an instance is started once.
            let mut number = 0;
            group.bench_function(BenchmarkId::new(name, at_once), |bencher| {
                let prepare = || {
                    number += at_once;
                    Prepared::new(number - at_once..number)
                };
                bencher.iter_batched(prepare, |fan_outs| engine.run(fan_outs), BatchSize::SmallInput);
                engine.assert_idle();
            });
        }
    }

    for at_once in AT_ONCE {
        group.throughput(Throughput::Elements(at_once));
        let file = file(&format!("writer-{at_once}.db"));
        let mut writer = writer(&file);
        group.bench_function(BenchmarkId::new("Writer: inserts in a batch", at_once), |bencher| {
            let insert = |number: u64| {
                move |tx: &rusqlite::Transaction<'_>| -> Result<(), forebay::Error> {
                    tx.prepare_cached(INSERT)?.execute(rusqlite::params![number.cast_signed(), BODY])?;
                    Ok(())
                }
            };
            let batch = || (0..at_once).map(insert).collect::<Vec<_>>();
            bencher.iter_batched(batch, |batch| writer.batch(batch).expect("inserts"), BatchSize::SmallInput);
        });
    }
    group.finish();
}

fn options() -> Options {
    Options::default().durability(Durability::Normal)
}

const INSERT: &str = "INSERT INTO samples (thread, body) VALUES (?1, ?2)";
const BODY: &str =
    "a line of some hundred characters, as a log, a queue or a sensor has them; nothing special, no index";

fn writer(file: &Path) -> WriterByHand {
    let mut writer = WriterByHand::open(Some(file), &WriterOptions::default().durability(Durability::Normal))
        .expect("a writer opens");
    let create = |tx: &rusqlite::Transaction<'_>| -> Result<(), forebay::Error> {
        let sql = "CREATE TABLE samples (n INTEGER PRIMARY KEY, thread INTEGER NOT NULL, body TEXT NOT NULL)";
        Ok(tx.execute_batch(sql)?)
    };
    writer.batch(vec![create]).expect("a table");
    writer
}

/// What the callers of some fan-outs encode, before any of it reaches the writer.
struct Prepared {
    starts: Vec<Encoded>,
    first_turns: Vec<Turn>,
    completions: Vec<Completion>,
    last_turns: Vec<Turn>,
}

impl Prepared {
    fn new(numbers: std::ops::Range<u64>) -> Self {
        let fan_outs: Vec<FanOut> = numbers.map(FanOut::numbered).collect();
        let each = |turn: fn(&FanOut) -> Result<Turn, forebay::Error>| {
            fan_outs.iter().map(|fan_out| turn(fan_out).expect("a turn encodes")).collect()
        };
        let message = |fan_out: &FanOut| by_hand::message(fan_out.start()).expect("a start encodes");
        let completion = |item| by_hand::completion(item).expect("a completion encodes");
        Self {
            starts: fan_outs.iter().map(message).collect(),
            first_turns: each(|f| by_hand::turn(f.first_turn(), f.activities(), f.first_metadata())),
            completions: fan_outs.iter().flat_map(FanOut::completions).map(completion).collect(),
            last_turns: each(|f| by_hand::turn(f.last_turn(), Vec::new(), f.last_metadata())),
        }
    }
}

struct Engine(EngineByHand);

impl Engine {
    fn open(file: Option<&Path>) -> Self {
        Self(EngineByHand::open(file, &options()).expect("an engine opens"))
    }

    /// The life of some fan-outs, side by side, in four batches. Grants come in the order of arrival, which
    /// is that of what was prepared.
    fn run(&mut self, fan_outs: Prepared) {
        let Prepared { starts, first_turns, completions, last_turns } = fan_outs;
        let turns = first_turns.len();
        let mut batch = starts;
        batch.extend((0..turns).map(|_| self.0.fetch_turn()));
        let leases = self.batch(batch, turns);

        let mut batch: Vec<_> =
            first_turns.into_iter().zip(leases).map(|(t, lease)| t.under(lease)).collect();
        batch.extend((0..completions.len()).map(|_| self.0.fetch_work()));
        let leases = self.batch(batch, completions.len());

        let mut batch: Vec<_> =
            completions.into_iter().zip(leases).map(|(c, lease)| c.under(lease)).collect();
        batch.extend((0..turns).map(|_| self.0.fetch_turn()));
        let leases = self.batch(batch, turns);

        let batch = last_turns.into_iter().zip(leases).map(|(t, lease)| t.under(lease)).collect();
        self.batch(batch, 0);
    }

    fn batch(&mut self, batch: Vec<Encoded>, granted: usize) -> Vec<u64> {
        let leases = self.0.batch(batch).expect("a batch that succeeds");
        assert_eq!(leases.len(), granted);
        leases
    }

    /// Nothing is left over: what was measured is whole fan-outs.
    fn assert_idle(&mut self) {
        assert_eq!(self.0.waiting().expect("depths"), 0);
    }
}
