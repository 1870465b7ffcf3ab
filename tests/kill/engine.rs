//! duroxide's Runtime and Client on the engine, killed under full load.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use duroxide::Client;
use duroxide::providers::Provider;
use forebay::{Durability, Forebay, Options};

use crate::child::{Death, Job, run_and_kill};
use crate::engine_support::bounded_thread;
use crate::found::Found;
use crate::ledger::Ledger;
use crate::manner::{Kind, Manner};
use crate::orders::{self, HELD_TURN, HELD_WORK, LETTERS};
use crate::random::Random;
use crate::report::Report;
use crate::reporting::Reporting;
use crate::scratch::Scratch;
use crate::{assert_none, conservation, kills, seed};

const CHILD: &str = "engine::the_child";

/// No child starts more orders than this.
const ORDERS_MAX: u64 = 1_000_000;

/// The process that is killed.
#[test]
fn the_child() {
    let Some(job) = Job::own() else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let options = Options::default().durability(Durability::Full).wal_bytes_max(job.wal_bytes_max);
        let forebay = options.open(&job.database).expect("it opens");
        let provider = Reporting::on(forebay, job.manner);
        Report::Ready.tell();
        let _runtime = orders::start_runtime(Arc::clone(&provider)).await;
        orders::order_for_ever(provider, job.first).await;
    });
}

/// What has been done to how many files.
#[derive(Default)]
struct Tally {
    files: usize,
    kills: usize,
    while_opening: usize,
    looks: usize,
    /// Starts, letters, turns, activities, ends seen by clients.
    acknowledged: [usize; 5],
    completed: usize,
}

/// One file, and everything its children were told.
struct Trial {
    scratch: Scratch,
    ledger: Ledger,
    children: u64,
    manner: Manner,
}

impl Trial {
    fn new(manner: Manner) -> Self {
        Self { scratch: Scratch::new(), ledger: Ledger::default(), children: 0, manner }
    }

    fn kill_one(&mut self, random: &mut Random, death: Death) {
        let job = Job {
            database: self.scratch.database(),
            first: self.children * ORDERS_MAX,
            // With the smaller ones many kills hit a checkpoint.
            wal_bytes_max: [64 << 10, 512 << 10, 32 << 20][random.below(3)],
            manner: self.manner,
        };
        self.children += 1;
        self.ledger.note(run_and_kill(CHILD, &job, death));
    }

    /// Looks at a copy of the file; what is wrong with it.
    async fn look(&mut self) -> Vec<String> {
        let copy = self.scratch.copy();
        self.judge(&copy).await
    }

    async fn judge(&self, database: &Path) -> Vec<String> {
        match Found::look(database).await {
            Ok(found) => [self.ledger.judge(&found), conservation::check(&found)].concat(),
            Err(error) => vec![format!("it does not open: {error:#}")],
        }
    }

    /// Whether damage done to a copy is seen.
    async fn notices(&mut self, damage: &str) -> bool {
        let copy = self.scratch.copy();
        let connection = rusqlite::Connection::open(&copy).expect("it opens");
        connection.execute(damage, []).expect("it can be damaged");
        drop(connection);
        !self.judge(&copy).await.is_empty()
    }

    /// Lets a runtime in this process, on the file itself, finish what the dead have left.
    async fn finish(&mut self) -> (usize, Vec<String>) {
        let copy = self.scratch.copy();
        let before = Found::look(&copy).await.expect("it opens");
        let starting = before.turns.iter().filter(|turn| before.start_waits(&turn.instance));
        let mut orders: Vec<u64> = starting.filter_map(|turn| orders::number(&turn.instance)).collect();
        orders.extend(before.instances.keys().filter_map(|id| orders::number(id)));

        let path = self.scratch.database();
        let forebay = bounded_thread(move || Forebay::open(path)).expect("it opens");
        let provider: Arc<dyn Provider> = Arc::new(forebay.clone());
        let runtime = orders::start_runtime(Arc::clone(&provider)).await;
        let client = Client::new(provider);
        for &order in &orders {
            let id = orders::id(order);
            for letter in LETTERS.iter().filter(|letter| before.letters(&id, letter) == 0) {
                client.enqueue_event(&id, "letters", *letter).await.expect("it is taken");
            }
        }
        let mut wrong = Vec::new();
        for &order in &orders {
            match orders::completed(&client, &orders::id(order)).await {
                Ok(output) if output == orders::output(order) => {}
                Ok(output) => wrong.push(format!("DIFFERENT: {order} has come to {output:?}")),
                Err(what) => wrong.push(format!("LOST: {what}")),
            }
        }
        runtime.shutdown(Some(0)).await;
        bounded_thread(move || forebay.close()).expect("it closes");
        wrong.extend(self.at_the_end(orders.len()).await);
        (orders.len(), wrong)
    }

    /// Everything has ended and nothing is left over.
    async fn at_the_end(&mut self, orders: usize) -> Vec<String> {
        let copy = self.scratch.copy();
        let found = Found::look(&copy).await.expect("it opens");
        let mut wrong = conservation::check(&found);
        if found.messages().count() + found.work.len() > 0 {
            wrong.push(format!("LEFT OVER: {:?} {:?}", found.turns, found.work));
        }
        let children = found.instances.keys().filter(|id| orders::number(id).is_none());
        for child in children.clone() {
            let parent = child.split("::").next().and_then(orders::number).expect("an order has children");
            if found.output(child) != Some(&orders::child_output(parent)) {
                wrong.push(format!("DIFFERENT: {child} has come to {:?}", found.output(child)));
            }
        }
        if (children.count(), found.instances.len()) != (orders, 2 * orders) {
            wrong.push(format!("{} instances for {orders} orders", found.instances.len()));
        }
        wrong
    }
}

/// Kills children on file after file.
async fn kill_many(kills: usize, seed: u64) -> (Tally, Vec<String>) {
    let mut random = Random::new(seed);
    let (mut tally, mut wrong) = (Tally::default(), Vec::new());
    while tally.kills < kills {
        let mut trial = Trial::new(Manner::Honest);
        for _ in 0..(1 + random.below(5)).min(kills - tally.kills) {
            let death = Death::random(&mut random);
            trial.kill_one(&mut random, death);
            tally.kills += 1;
            tally.while_opening += usize::from(matches!(death, Death::Opening(_)));
            // Otherwise the next child finds what the dead one has left, as it is.
            if random.percent(70) {
                tally.looks += 1;
                let found = trial.look().await;
                wrong.extend(found.iter().map(|what| format!("kill {}, {death:?}: {what}", tally.kills)));
            }
        }
        wrong.extend(trial.look().await);
        let (completed, found) = trial.finish().await;
        wrong.extend(found);
        tally.files += 1;
        tally.looks += 1;
        tally.completed += completed;
        for (sum, count) in tally.acknowledged.iter_mut().zip(trial.ledger.counts()) {
            *sum += count;
        }
    }
    (tally, wrong)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_process_was_told_is_there_and_everything_completes() {
    let (seed, began) = (seed(), Instant::now());
    let (tally, wrong) = kill_many(kills().div_ceil(5) * 3, seed).await;
    let [starts, letters, turns, activities, ends] = tally.acknowledged;
    println!(
        "engine: {} kills ({} while opening) on {} files, {} looks; acknowledged: {starts} starts, {letters} \
         events, {turns} turns, {activities} activities, {ends} ends; {} orders completed; {} wrong, seed {seed}, {:.1} s",
        tally.kills,
        tally.while_opening,
        tally.files,
        tally.looks,
        tally.completed,
        wrong.len(),
        began.elapsed().as_secs_f64()
    );
    assert_none(&wrong);
    assert!(turns > 0, "nothing was done");
}

/// The test can fail: a child that tells of acknowledgements before they are made is caught.
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_answers_too_early_is_caught() {
    let mut random = Random::new(seed());
    let lies = [
        (Kind::Start, "LOST start"),
        (Kind::Letter, "LOST letter"),
        (Kind::Turn, "LOST turn"),
        (Kind::Done, "LOST end of Activity"),
    ];
    for (kind, noticed) in lies {
        let mut trial = Trial::new(Manner::Lies(kind));
        trial.kill_one(&mut random, Death::Told(kind, 1));
        let wrong = trial.look().await;
        assert!(wrong.iter().any(|wrong| wrong.contains(noticed)), "{kind:?}: only {wrong:?} was noticed");
    }
}

/// Whether the file must have something of every kind in it: ends, a start that is in hand, work that is in hand.
fn has_everything(told: &[Report]) -> bool {
    let any = |is: &dyn Fn(&Report) -> bool| told.iter().any(is);
    let (turn_of, work_of) = (orders::id(HELD_TURN), orders::id(HELD_WORK));
    told.iter().filter(|report| matches!(report, Report::Seen(..))).count() >= 2
        && any(&|report| matches!(report, Report::Start(instance) if *instance == turn_of))
        && any(&|report| matches!(report, Report::TurnGranted { instance, .. } if *instance == turn_of))
        && any(
            &|report| matches!(report, Report::WorkGranted { activity, .. } if activity.instance == work_of),
        )
}

/// And so is a file in which one row of any kind is missing, is there twice, or is not what it was.
///
/// The child used to be killed in the middle of everything, up to ten times, until all of these had been
/// noticed. On a busy machine kill after kill found the orders in step, with no work in hand, and the test failed.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_with_a_part_missing_is_caught() {
    let held = orders::id(HELD_TURN);
    let damages = [
        &format!("DELETE FROM messages WHERE id = (SELECT min(id) FROM messages WHERE instance = '{held}')"),
        "DELETE FROM work WHERE id = (SELECT max(id) FROM work)",
        "UPDATE messages SET attempt = 0",
        "UPDATE work SET attempt = 0",
        "DELETE FROM history WHERE last_event = (SELECT max(last_event) FROM history)",
        "DELETE FROM executions WHERE instance = (SELECT max(instance) FROM executions)",
        "DELETE FROM kv WHERE instance = (SELECT max(instance) FROM kv)",
        "UPDATE instances SET custom_status = NULL",
        "UPDATE executions SET status = 'Running' WHERE status = 'Completed'",
        "UPDATE instances SET execution = 1",
        "INSERT INTO work SELECT id + 1000000, instance, execution, activity, session, tag, visible_at_ms,
             attempt, record FROM work LIMIT 1",
    ];
    let mut trial = Trial::new(Manner::Holds);
    trial.kill_one(&mut Random::new(seed()), Death::When(has_everything));
    assert_none(&trial.look().await);
    for damage in damages {
        assert!(trial.notices(damage).await, "not noticed: {damage}");
    }
}
