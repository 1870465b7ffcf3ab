//! What a batch of the engine looks at, counted: how much waits must not matter. Batches are what the test says.

use std::sync::Arc;
use std::time::Duration;

use duroxide::INITIAL_EXECUTION_ID;
use duroxide::providers::{DispatcherCapabilityFilter, SemverRange, WorkItem};
use semver::Version;

use super::*;
use crate::buffer::Pending;
use crate::buffer::by_hand::{self, answer};
use crate::clock::ManualClock;
use crate::database::Held;
use crate::options::Options;
use crate::provider::Encoder;
use crate::sqlite::{Location, Patience};

const START_MS: u64 = 1_000_000;
const WAITING: usize = 1_000;

/// An engine on a clock that stands still, in memory or on a file.
fn open(location: &Location) -> (Engine, ManualClock) {
    let clock = ManualClock::new(START_MS);
    let options = Options::default().clock(clock.clone());
    let (counters, readers, horizon, held) = (Arc::default(), None, Arc::default(), Held::Memory);
    let opening =
        Opening { location, options: &options, counters, readers, horizon, patience: Patience::none(), held };
    let (engine, _shared) = crate::provider::open_engine(opening).expect("it opens");
    (engine, clock)
}

/// Operations that come before any lease runs out.
fn in_time(ops: Vec<Op>) -> Vec<Submitted> {
    ops.into_iter().map(|op| Submitted { at: Duration::ZERO, op }).collect()
}

fn submit(engine: &mut Engine, ops: Vec<Op>) -> Result<Vec<Pending<Reply>>, Error> {
    by_hand::submit(engine, in_time(ops))
}

fn cycle(engine: &mut Engine, ops: Vec<Op>) -> Result<Vec<Option<Reply>>, Error> {
    by_hand::cycle(engine, in_time(ops))
}

fn enqueue(item: WorkItem, visible: Visible) -> Op {
    let encoder = Encoder { record_bytes_max: Options::default().record_bytes_max };
    Op::EnqueueMessage(encoder.message(item, visible).expect("it is encoded"))
}

fn start(instance: &str) -> Op {
    let item = WorkItem::StartOrchestration {
        instance: instance.into(),
        orchestration: "o".into(),
        input: String::new(),
        version: None,
        parent_instance: None,
        parent_id: None,
        parent_execution_id: None,
        execution_id: INITIAL_EXECUTION_ID,
    };
    enqueue(item, Visible::Now)
}

fn cancel(instance: &str, visible: Visible) -> Op {
    enqueue(WorkItem::CancelInstance { instance: instance.into(), reason: String::new() }, visible)
}

fn event(instance: &str) -> Op {
    let item = WorkItem::QueueMessage { instance: instance.into(), name: "n".into(), data: "d".into() };
    enqueue(item, Visible::Now)
}

fn fetch(no: u64, poll_timeout: Duration) -> Op {
    Op::FetchTurn(FetchTurn { no, lock_timeout: Duration::from_secs(60), poll_timeout, filter: None })
}

/// The instance whose turn was granted, with its number of messages; `None` for nothing.
fn granted(reply: Option<Reply>) -> Option<(String, usize)> {
    let Some(Reply::Turn(grant)) = reply else { panic!("a fetch is answered with a turn or nothing") };
    grant.map(|grant| {
        let found = (grant.instance.to_string(), grant.messages.len());
        grant.guard.keep();
        found
    })
}

fn fetched(engine: &mut Engine, no: u64) -> Option<(String, usize)> {
    let mut replies = cycle(engine, vec![fetch(no, Duration::ZERO)]).expect("it is committed");
    granted(replies.pop().flatten())
}

#[test]
fn the_first_turn_looks_at_one_instance_however_many_wait() {
    let (mut engine, _clock) = open(&Location::Memory);
    cycle(&mut engine, (0..WAITING).map(|n| start(&format!("i-{n}"))).collect()).expect("it is committed");
    assert_eq!(fetched(&mut engine, 1), Some(("i-0".into(), 1)));
    assert_eq!(engine.turns.instances.unread(), WAITING - 1);
    assert_eq!(fetched(&mut engine, 2), Some(("i-1".into(), 1)));
    assert_eq!(engine.turns.instances.unread(), WAITING - 2);
}

#[test]
fn a_fetch_that_may_have_none_hears_so_when_all_were_looked_at_a_few_in_each_batch() {
    let (mut engine, _clock) = open(&Location::Memory);
    // None of them can run: their starts have not come.
    cycle(&mut engine, (0..WAITING).map(|n| cancel(&format!("i-{n}"), Visible::Now)).collect())
        .expect("it is committed");
    let mut pending = submit(&mut engine, vec![fetch(1, Duration::ZERO)]).expect("it is committed");
    let mut batches = 1;
    let reply = loop {
        if let Some(reply) = answer(&mut pending[0]).expect("it is answered") {
            break reply;
        }
        let left = engine.turns.instances.unread();
        assert_eq!(engine.wait(), Some(Duration::ZERO), "the next batch goes on at once");
        submit(&mut engine, vec![]).expect("it is committed");
        assert!(left - engine.turns.instances.unread() <= 256);
        batches += 1;
    };
    assert_eq!((granted(Some(reply)), batches, engine.turns.instances.unread()), (None, 4, 0));
    assert_ne!(engine.wait(), Some(Duration::ZERO));
    // All of them are known by now, and one of them can run.
    cycle(&mut engine, vec![start("i-7")]).expect("it is committed");
    assert_eq!(fetched(&mut engine, 2), Some(("i-7".into(), 2)));
}

#[test]
fn what_comes_in_does_not_keep_a_fetch_from_its_answer() {
    let (mut engine, _clock) = open(&Location::Memory);
    cycle(&mut engine, (0..WAITING).map(|n| cancel(&format!("i-{n}"), Visible::Now)).collect())
        .expect("it is committed");
    let mut pending = submit(&mut engine, vec![fetch(1, Duration::ZERO)]).expect("it is committed");
    let mut batches = 1;
    while answer(&mut pending[0]).expect("it is answered").is_none() {
        let more = (0..500).map(|n| cancel(&format!("more-{batches}-{n}"), Visible::Now)).collect();
        submit(&mut engine, more).expect("it is committed");
        batches += 1;
        assert!(batches < 10, "each batch brings more than it looks at");
    }
}

#[test]
fn queued_events_before_a_start_are_dropped_when_they_would_be_next_and_not_before() {
    let (mut engine, _clock) = open(&Location::Memory);
    cycle(&mut engine, vec![start("older"), event("late"), event("lost")]).expect("it is committed");
    assert_eq!(fetched(&mut engine, 1), Some(("older".into(), 1)));
    cycle(&mut engine, vec![start("late")]).expect("it is committed");
    assert_eq!(fetched(&mut engine, 2), Some(("late".into(), 2)), "its start came before its turn did");
    assert_eq!(engine.turns.instances.len(), 1);
    assert_eq!(fetched(&mut engine, 3), None);
    assert_eq!(engine.turns.instances.len(), 0, "nothing else was before it");
}

#[test]
fn who_can_replay_nothing_drops_nothing() {
    let (mut engine, _clock) = open(&Location::Memory);
    cycle(&mut engine, vec![event("instance")]).expect("it is committed");
    let filter = Some(DispatcherCapabilityFilter { supported_duroxide_versions: vec![] });
    let lock_timeout = Duration::from_secs(60);
    let fetch = Op::FetchTurn(FetchTurn { no: 1, lock_timeout, poll_timeout: Duration::ZERO, filter });
    assert_eq!(granted(cycle(&mut engine, vec![fetch]).expect("it is committed").remove(0)), None);
    assert_eq!((engine.turns.instances.len(), engine.turns.instances.unread()), (1, 1));
}

#[test]
fn fetches_of_every_kind_are_served_in_their_order_when_work_comes() {
    let (mut engine, _clock) = open(&Location::Memory);
    let filters = [vec![], vec![SemverRange::new(Version::new(0, 0, 0), Version::new(9, 0, 0))]];
    let parked = (0..30).map(|no| {
        let filter = filters.get(no % 3);
        let filter =
            filter.map(|ranges| DispatcherCapabilityFilter { supported_duroxide_versions: ranges.clone() });
        let (lock_timeout, poll_timeout) = (Duration::from_secs(60), Duration::from_secs(60));
        Op::FetchTurn(FetchTurn { no: no as u64, lock_timeout, poll_timeout, filter })
    });
    let mut parked = submit(&mut engine, parked.collect()).expect("it is committed");
    let mut order = Vec::new();
    for n in 0..20 {
        submit(&mut engine, vec![start(&format!("i-{n}"))]).expect("it is committed");
        for (no, pending) in parked.iter_mut().enumerate().filter(|(no, _)| no % 3 != 0) {
            if !order.contains(&no)
                && let Some(reply) = answer(pending).expect("it is answered")
            {
                assert_eq!(granted(Some(reply)), Some((format!("i-{n}"), 1)));
                order.push(no);
            }
        }
    }
    assert_eq!(order, (0..30).filter(|no| no % 3 != 0).collect::<Vec<_>>());
}

#[test]
fn timers_make_no_instance_known_until_they_fall_due_a_few_in_each_batch() {
    let folder = tempfile::tempdir().expect("a folder");
    let location = Location::File(folder.path().join("timers.db"));
    let due = Duration::from_secs(30);
    {
        let (mut engine, _clock) = open(&location);
        let timers = (0..WAITING).map(|n| cancel(&format!("i-{n}"), Visible::After(due)));
        cycle(&mut engine, timers.chain([start("i-7")]).collect()).expect("it is committed");
        assert_eq!((engine.turns.instances.known(), engine.turns.instances.len()), (1, WAITING + 1));
        engine.close().expect("it closes");
    }
    let (mut engine, clock) = open(&location);
    assert_eq!((engine.turns.instances.known(), engine.turns.instances.len()), (1, WAITING + 1));
    assert_eq!(fetched(&mut engine, 1), Some(("i-7".into(), 1)));
    clock.advance(due);
    // What has fallen due can run on nothing, but for what is under a lease.
    let mut pending = submit(&mut engine, vec![fetch(2, Duration::ZERO)]).expect("it is committed");
    let mut batches = 1;
    while answer(&mut pending[0]).expect("it is answered").is_none() {
        assert_eq!(engine.wait(), Some(Duration::ZERO), "the next batch goes on at once");
        submit(&mut engine, vec![]).expect("it is committed");
        batches += 1;
    }
    assert_eq!(
        (batches, engine.turns.instances.len(), engine.turns.instances.next_due_ms()),
        (4, WAITING, None)
    );
    cycle(&mut engine, vec![start("i-9")]).expect("it is committed");
    clock.set_wall_ms(START_MS);
    assert_eq!(fetched(&mut engine, 3), Some(("i-9".into(), 2)), "what was due stays visible");
}

#[test]
fn the_timers_of_a_deleted_instance_go_with_it_and_no_others() {
    let (mut engine, clock) = open(&Location::Memory);
    let later = Visible::After(Duration::from_secs(60));
    cycle(&mut engine, vec![cancel("doomed", later), cancel("other", later)]).expect("it is committed");
    let delete = Op::Delete { ids: vec!["doomed".into()], force: true };
    cycle(&mut engine, vec![cancel("doomed", later)]).expect("it is committed");
    let replies = cycle(&mut engine, vec![delete]).expect("it is committed");
    let Some(Some(Reply::Deleted(deleted))) = replies.into_iter().next() else { panic!("it is deleted") };
    assert_eq!((deleted.queue_messages_deleted, engine.turns.instances.len()), (2, 1));
    let left = || queued_rows(&engine);
    assert_eq!(left(), ["other"]);
    clock.advance(Duration::from_secs(60));
    cycle(&mut engine, vec![start("other")]).expect("it is committed");
    assert_eq!(fetched(&mut engine, 1), Some(("other".into(), 2)));
}

#[test]
fn a_turn_abandoned_with_a_delay_is_back_when_it_is_over() {
    let (mut engine, clock) = open(&Location::Memory);
    let replies =
        cycle(&mut engine, vec![start("instance"), fetch(1, Duration::ZERO)]).expect("it is committed");
    let Some(Some(Reply::Turn(Some(grant)))) = replies.into_iter().nth(1) else { panic!("it is granted") };
    let delay = Some(Duration::from_secs(5));
    let abandon = Op::AbandonTurn(Abandon { lease: grant.guard.keep(), delay, ignore_attempt: false });
    cycle(&mut engine, vec![abandon]).expect("it is committed");
    assert_eq!((engine.turns.instances.len(), fetched(&mut engine, 2)), (1, None));
    clock.advance(Duration::from_secs(5));
    let replies = cycle(&mut engine, vec![fetch(3, Duration::ZERO)]).expect("it is committed");
    let Some(Some(Reply::Turn(Some(grant)))) = replies.into_iter().next() else { panic!("it is granted") };
    assert_eq!((grant.messages.len(), grant.attempt), (1, 2), "its row knows how often it was tried");
    // A delay of nothing is over whatever the clock says later.
    let delay = Some(Duration::ZERO);
    let abandon = Op::AbandonTurn(Abandon { lease: grant.guard.keep(), delay, ignore_attempt: false });
    cycle(&mut engine, vec![abandon]).expect("it is committed");
    clock.set_wall_ms(START_MS - 1_000);
    assert_eq!(fetched(&mut engine, 4), Some(("instance".into(), 1)));
}

#[test]
fn a_damaged_message_that_falls_due_holds_up_no_other() {
    let (mut engine, clock) = open(&Location::Memory);
    let later = Visible::After(Duration::from_secs(60));
    cycle(&mut engine, vec![cancel("damaged", later), cancel("other", later), start("other")])
        .expect("it is committed");
    let damage = "UPDATE messages SET instance = CAST(x'ff' AS TEXT) WHERE instance = 'damaged'";
    assert_eq!(
        engine.store.connection().expect("it is SQLite").execute(damage, []).expect("it is damaged"),
        1
    );
    clock.advance(Duration::from_secs(60));
    assert_eq!(fetched(&mut engine, 1), Some(("other".into(), 2)));
    assert_eq!(engine.turns.instances.next_due_ms(), None);
}

fn queued_rows(engine: &Engine) -> Vec<String> {
    let mut statement = engine
        .store
        .connection()
        .expect("it is SQLite")
        .prepare("SELECT instance FROM messages ORDER BY id")
        .unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}
