//! The load on duroxide's storage: every operation that writes, alone and several in one batch, on few
//! instances, in an order that does not depend on chance.

use std::pin::Pin;
use std::sync::mpsc;
use std::time::Duration;

use duroxide::EventKind;
use duroxide::providers::{
    Provider, ProviderAdmin, ProviderError, PruneOptions, ScheduledActivityIdentifier, TagFilter, WorkItem,
};
use forebay::{Durability, Forebay, ManualClock, Options};

use crate::picture::{self, Book, Picture};
use crate::trial::{Load, Record, WAL_BYTES_MAX};
use crate::disk::Disk;
use crate::engine_support::polled::Polled;
use crate::engine_support::{
    HOUR, LOCK, START_MS, Turn, activity, bounded, completed, depths, event, heard, raised, start, started,
    timer,
};

const MINUTE_MS: u64 = 60_000;

/// Why a load ends early.
pub(crate) type Stopped = String;

type Call<'a, T> = Pin<Box<dyn Future<Output = Result<T, ProviderError>> + Send + 'a>>;

/// See the module.
pub(crate) struct Orders;

impl Load for Orders {
    type Picture = Picture;

    fn run(&self, disk: &Disk, durability: Durability) -> Record<Picture> {
        let clock = ManualClock::new(START_MS);
        let mut record = Record::new(Book::default().picture(START_MS));
        let mut book = Book::default();
        let outcome = on_runtime(async {
            for session in 0..2 {
                let forebay = open(disk, durability, &clock)?;
                let mut driver = Driver { forebay, clock: &clock, record: &mut record, book };
                match session {
                    0 => driver.first_session().await?,
                    _ => driver.second_session().await?,
                }
                driver.forebay.close().map_err(|error| error.to_string())?;
                driver.record.close();
                book = driver.book;
            }
            Ok(())
        });
        record.stopped = outcome.err();
        record
    }

    fn look(&self, disk: &Disk, durability: Durability) -> Result<Picture, String> {
        let clock = ManualClock::new(START_MS);
        let forebay = open(disk, durability, &clock)?;
        sound(&forebay)?;
        let picture = on_runtime(picture::take(&forebay, &clock));
        forebay.close().map_err(|error| format!("closing: {error}"))?;
        Ok(picture)
    }

    fn touch(&self, disk: &Disk, durability: Durability) {
        if let Ok(forebay) = open(disk, durability, &ManualClock::new(START_MS)) {
            let _ = forebay.close();
        }
    }
}

pub(crate) fn on_runtime<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(work)
}

pub(crate) fn open(disk: &Disk, durability: Durability, clock: &ManualClock) -> Result<Forebay, Stopped> {
    let options = Options::default().durability(durability).clock(clock.clone()).wal_bytes_max(WAL_BYTES_MAX);
    options.open(disk.path()).map_err(|error| format!("opening: {error}"))
}

/// Nothing in the file is broken, and no row belongs to nobody.
pub(crate) fn sound(forebay: &Forebay) -> Result<(), String> {
    const ORPHANS: &str = "SELECT
        (SELECT count(*) FROM history h WHERE NOT EXISTS
            (SELECT 1 FROM executions e WHERE e.instance = h.instance AND e.execution = h.execution))
        + (SELECT count(*) FROM executions WHERE instance NOT IN (SELECT key FROM instances))
        + (SELECT count(*) FROM kv WHERE instance NOT IN (SELECT key FROM instances))";
    let checked = forebay.on_writer_connection(|connection| {
        let integrity: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
        Ok((integrity, connection.query_row(ORPHANS, [], |row| row.get::<_, i64>(0))?))
    });
    let checked: rusqlite::Result<_> = checked.map_err(|error| error.to_string())?;
    match checked.map_err(|error| format!("checking: {error}"))? {
        (integrity, 0) if integrity == "ok" => Ok(()),
        (integrity, orphans) => Err(format!("integrity_check says {integrity}; {orphans} orphans")),
    }
}

/// A turn or an activity in the hands of the load.
struct Held {
    token: String,
    instance: String,
    messages: Vec<u64>,
}

struct HeldWork {
    token: String,
    no: u64,
}

struct Driver<'a> {
    forebay: Forebay,
    clock: &'a ManualClock,
    record: &'a mut Record<Picture>,
    book: Book,
}

fn set(instance: &str, execution: u64, id: u64, key: &str, value: &str) -> duroxide::Event {
    let kind =
        EventKind::KeyValueSet { key: key.into(), value: value.into(), last_updated_at_ms: START_MS + id };
    event(instance, execution, id, kind)
}

fn status(instance: &str, execution: u64, id: u64, status: &str) -> duroxide::Event {
    event(instance, execution, id, EventKind::CustomStatusUpdated { status: Some(status.into()) })
}

impl Driver<'_> {
    fn now_ms(&self) -> u64 {
        forebay::Clock::wall_ms(self.clock)
    }

    /// Notes the state to come, makes the call, and notes that it was answered.
    async fn step<T>(
        &mut self,
        matters: bool,
        after: Book,
        call: impl Future<Output = Result<T, ProviderError>>,
    ) -> Result<T, Stopped> {
        self.record.submit(after.picture(START_MS), matters);
        let answer = bounded(call).await.map_err(|error| error.to_string())?;
        self.record.acknowledge();
        self.book = after;
        Ok(answer)
    }

    /// Several calls in one batch: they wait together until the writer, held up meanwhile, can take them.
    fn together(
        &mut self,
        after: Book,
        calls: impl FnOnce(&Forebay) -> Vec<Call<'_, ()>>,
    ) -> Result<(), Stopped> {
        let (release, released) = mpsc::channel::<()>();
        let (entered, inside) = mpsc::channel();
        let forebay = self.forebay.clone();
        let holding = started(move || {
            let held = forebay.on_writer_connection(move |_| {
                let _ = entered.send(());
                let _ = released.recv();
            });
            drop(held);
        });
        // Fails at once if the engine refuses work, as do the calls then.
        let _ = inside.recv();
        self.record.submit(after.picture(START_MS), true);
        let forebay = self.forebay.clone();
        let mut waiting: Vec<_> = calls(&forebay).into_iter().map(Polled::new).collect();
        let early: Vec<_> = waiting.iter_mut().map(Polled::poll).collect();
        drop(release);
        let answers =
            waiting.into_iter().zip(early).map(|(call, early)| early.unwrap_or_else(|| call.finish()));
        let answers: Vec<_> = answers.collect();
        let _ = holding.recv();
        let failed = answers.iter().filter(|answer| answer.is_err()).count();
        assert!(failed == 0 || failed == answers.len(), "one batch, one fate: {answers:?}");
        answers.into_iter().collect::<Result<(), _>>().map_err(|error| error.to_string())?;
        self.record.acknowledge();
        self.book = after;
        Ok(())
    }

    async fn enqueue(
        &mut self,
        instance: &str,
        item: WorkItem,
        delay: Option<Duration>,
    ) -> Result<(), Stopped> {
        let mut after = self.book.clone();
        let due_ms = self.now_ms() + delay.map_or(0, |delay| delay.as_millis() as u64);
        after.message(instance, item.clone(), due_ms);
        let forebay = self.forebay.clone();
        self.step(true, after, forebay.enqueue_for_orchestrator(item, delay)).await
    }

    /// Counts attempts and nothing else.
    async fn fetch(&mut self, instance: &str) -> Result<Held, Stopped> {
        let mut after = self.book.clone();
        let messages = after.try_turn(instance, self.now_ms());
        let forebay = self.forebay.clone();
        let fetched =
            self.step(false, after, forebay.fetch_orchestration_item(LOCK, Duration::ZERO, None)).await?;
        let (item, token, _) = fetched.expect("there is a turn");
        assert_eq!((&*item.instance, item.messages.len()), (instance, messages.len()));
        Ok(Held { token, instance: item.instance, messages })
    }

    async fn fetch_work(&mut self, expected: &WorkItem) -> Result<HeldWork, Stopped> {
        let mut after = self.book.clone();
        let no = after.try_work(expected);
        let forebay = self.forebay.clone();
        let fetch = forebay.fetch_work_item(LOCK, Duration::ZERO, None, &TagFilter::Any);
        let (item, token, _) = self.step(false, after, fetch).await?.expect("there is an activity");
        assert_eq!(item, *expected);
        Ok(HeldWork { token, no })
    }

    async fn ack(&mut self, held: Held, turn: Turn) -> Result<(), Stopped> {
        let mut after = self.book.clone();
        after.turn_done(&held.instance, &held.messages, &turn, self.now_ms());
        let forebay = self.forebay.clone();
        self.step(true, after, turn.ack(&forebay, &held.token)).await
    }

    async fn ack_work(
        &mut self,
        held: HeldWork,
        instance: &str,
        completion: WorkItem,
    ) -> Result<(), Stopped> {
        let mut after = self.book.clone();
        after.work_done(held.no);
        after.message(instance, completion.clone(), self.now_ms());
        let forebay = self.forebay.clone();
        self.step(true, after, forebay.ack_work_item(&held.token, Some(completion))).await
    }

    /// A start that a fetch is waiting for: inserted, leased and counted in one batch.
    async fn start_awaited(&mut self, instance: &str) -> Result<Held, Stopped> {
        let forebay = self.forebay.clone();
        let mut parked = Polled::submitted(forebay.fetch_orchestration_item(LOCK, HOUR, None));
        depths(&forebay).await;
        let mut after = self.book.clone();
        after.message(instance, start(instance), self.now_ms());
        let messages = after.try_turn(instance, self.now_ms());
        let enqueued = self.step(true, after, forebay.enqueue_for_orchestrator(start(instance), None)).await;
        // Whatever happened to the batch, the fetch in it hears of it too; unless it waits on, undisturbed.
        let fetched = match enqueued {
            Ok(()) => parked.finish(),
            Err(stopped) => {
                let _ = parked.poll();
                return Err(stopped);
            }
        };
        let (item, token, attempt) =
            fetched.expect("it was in the batch of the start").expect("it got the start");
        assert_eq!((&*item.instance, attempt), (instance, 1));
        Ok(Held { token, instance: item.instance, messages })
    }

    async fn first_session(&mut self) -> Result<(), Stopped> {
        self.enqueue("a", start("a"), None).await?;
        let turn = self.fetch("a").await?;
        let mut first = Turn::first("a");
        first.history.extend([set("a", 1, 2, "colour", "red"), set("a", 1, 3, "size", "XL")]);
        first.history.push(status("a", 1, 4, "packing"));
        first.work.extend([activity("a", 5), activity("a", 6)]);
        first.messages.push(timer("a", 7, START_MS + MINUTE_MS));
        self.ack(turn, first).await?;

        let mut after = self.book.clone();
        for (to, item) in [("b", start("b")), ("c", start("c")), ("a", raised("a", "bell"))] {
            after.message(to, item, self.now_ms());
        }
        self.together(after, |forebay| {
            let items = [start("b"), start("c"), raised("a", "bell")];
            items.into_iter().map(|item| forebay.enqueue_for_orchestrator(item, None)).collect()
        })?;

        let work = self.fetch_work(&activity("a", 5)).await?;
        let b = self.fetch("b").await?;
        let c = self.fetch("c").await?;
        self.ack_work(work, "a", completed("a", 5)).await?;

        // Two turns in one batch; one of them starts a child.
        let (mut of_b, of_c) = (Turn::first("b"), Turn::first("c"));
        of_b.history.push(heard("b", 2, &"long ".repeat(1500)));
        of_b.work.push(activity("b", 3));
        of_b.messages.push(start("d"));
        let mut after = self.book.clone();
        after.turn_done("b", &b.messages, &of_b, self.now_ms());
        after.turn_done("c", &c.messages, &of_c, self.now_ms());
        self.together(after, |forebay| {
            let (b, c) = (b.token.clone(), c.token.clone());
            vec![
                Box::pin(async move { of_b.ack(forebay, &b).await }),
                Box::pin(async move { of_c.ack(forebay, &c).await }),
            ]
        })?;

        let a = self.fetch("a").await?;
        let mut after = self.book.clone();
        after.put_off_turn(&a.messages, self.now_ms() + 5_000);
        let forebay = self.forebay.clone();
        let put_off = forebay.abandon_orchestration_item(&a.token, Some(Duration::from_secs(5)), false);
        self.step(true, after, put_off).await?;

        let d = self.fetch("d").await?;
        let mut child = Turn::first("d").ending("Completed");
        child.metadata.parent_instance_id = Some("b".into());
        self.ack(d, child).await?;
        let e = self.start_awaited("e").await?;
        self.ack(e, Turn::first("e")).await?;
        // Reads open a second connection, which takes part in everything from here on.
        let read = bounded(forebay.get_kv_value("a", "colour")).await.map_err(|error| error.to_string())?;
        assert_eq!(read.as_deref(), Some("red"));

        // Everything is due now; being idle for so long, the engine checkpoints.
        self.clock.advance(Duration::from_secs(61));
        for _ in 0..2 {
            let admin: &dyn ProviderAdmin = &forebay;
            bounded(admin.get_queue_depths()).await.map_err(|error| error.to_string())?;
        }
        let a = self.fetch("a").await?;
        let mut second = Turn::of(1, vec![heard("a", 8, "ring"), set("a", 1, 9, "colour", "blue")]);
        second.history.push(event("a", 1, 10, EventKind::KeyValueCleared { key: "size".into() }));
        second.history.push(status("a", 1, 11, "sent"));
        let cancelled = ScheduledActivityIdentifier { instance: "a".into(), execution_id: 1, activity_id: 6 };
        second.cancelled.push(cancelled);
        self.ack(a, second).await?;
        let work = self.fetch_work(&activity("b", 3)).await?;
        let mut after = self.book.clone();
        after.put_off_work(work.no, self.now_ms() + 7_000);
        let put_off = forebay.abandon_work_item(&work.token, Some(Duration::from_secs(7)), false);
        self.step(true, after, put_off).await?;
        let mut after = self.book.clone();
        after.delete("c");
        self.step(true, after, forebay.delete_instance("c", true)).await?;
        self.enqueue("later", start("later"), Some(Duration::from_secs(600))).await
    }

    async fn second_session(&mut self) -> Result<(), Stopped> {
        let again = WorkItem::ContinueAsNew {
            instance: "a".into(),
            orchestration: "Orders".into(),
            input: "2".into(),
            version: Some("1.0.0".into()),
            parent_instance: None,
            parent_id: None,
            parent_execution_id: None,
            carry_forward_events: vec![],
            initial_custom_status: None,
        };
        self.enqueue("a", raised("a", "end"), None).await?;
        let a = self.fetch("a").await?;
        let mut last = Turn::of(1, vec![heard("a", 12, "end")]).ending("ContinuedAsNew");
        last.messages.push(again);
        self.ack(a, last).await?;
        let a = self.fetch("a").await?;
        let mut next = Turn::starting("a", 2);
        next.history.push(set("a", 2, 2, "colour", "green"));
        next.work.push(activity("a", 3));
        self.ack(a, next).await?;
        let forebay = self.forebay.clone();
        let mut after = self.book.clone();
        after.prune("a", 1);
        self.step(true, after, forebay.prune_executions("a", PruneOptions::default())).await?;

        let work = self.fetch_work(&activity("a", 3)).await?;
        let mut after = self.book.clone();
        after.untry_work(work.no);
        self.step(false, after, forebay.abandon_work_item(&work.token, None, true)).await?;

        let bells: Vec<_> = (0..8).map(|no| raised("a", &format!("bell {no}"))).collect();
        let mut after = self.book.clone();
        bells.iter().for_each(|bell| after.message("a", bell.clone(), self.now_ms()));
        self.together(after, |forebay| {
            bells.into_iter().map(|bell| forebay.enqueue_for_orchestrator(bell, None)).collect()
        })?;

        // Long turns, so that the log passes its limit more than once.
        for no in 0..4_u64 {
            self.enqueue("e", raised("e", &format!("{no}")), None).await?;
            let held = if no == 0 { Some(self.fetch("a").await?) } else { None };
            let e = self.fetch("e").await?;
            let text = format!("{no} ").repeat(2_000 + 1_000 * no as usize);
            let mut turn = Turn::of(1, vec![heard("e", 2 + 2 * no, &text)]);
            turn.history.push(set("e", 1, 3 + 2 * no, "round", &no.to_string()));
            self.ack(e, turn).await?;
            if let Some(a) = held {
                self.ack(a, Turn::of(2, vec![heard("a", 4, "all bells")])).await?;
            }
        }
        let mut after = self.book.clone();
        after.delete("d");
        after.delete("b");
        let ids = ["b".to_owned(), "d".to_owned()];
        self.step(true, after, forebay.delete_instances_atomic(&ids, true)).await?;
        let work = self.fetch_work(&activity("a", 3)).await?;
        self.ack_work(work, "a", completed("a", 3)).await
    }
}
