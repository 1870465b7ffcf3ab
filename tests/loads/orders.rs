//! The load on duroxide's storage: every operation that writes, alone and several in one batch, on few
//! instances, in an order that does not depend on chance.

use std::time::Duration;

use duroxide::EventKind;
use duroxide::providers::{Provider, ProviderAdmin, PruneOptions, ScheduledActivityIdentifier};
use forebay::clock::ManualClock;
use forebay::{Durability, Error, Forebay, Options};

use super::driver::{Driver, Joined};
use super::manner::{Call, Manner, OnError, Stopped};
use super::picture::{self, AT_ONCE, Book, Picture};
use super::record::Record;
use super::{Load, WAL_BYTES_MAX};
use crate::disk::Disk;
use crate::engine_support::{
    START_MS, Turn, activity, completed, continued, event, heard, raised, start, timer,
};

const MINUTE_MS: u64 = 60_000;

/// See the module.
pub(crate) struct Orders;

impl Load for Orders {
    type Picture = Picture;

    fn run(&self, disk: &Disk, durability: Durability, on_error: OnError) -> Record<Picture> {
        let clock = ManualClock::new(START_MS);
        let mut record = Record::new(Book::default().picture(START_MS));
        let mut manner = Manner::new(disk, on_error);
        let outcome = on_runtime(run(disk, durability, &clock, &mut record, &mut manner));
        record.stopped = outcome.err();
        record.wrong = manner.wrong;
        record.heard = manner.heard;
        record
    }

    fn look(&self, disk: &Disk, durability: Durability) -> Result<Picture, String> {
        let clock = ManualClock::new(START_MS);
        let forebay = open(disk, durability, &clock).map_err(|error| format!("opening: {error:#}"))?;
        sound(&forebay)?;
        let picture = on_runtime(picture::take(&forebay, &clock));
        forebay.close().map_err(|error| format!("closing: {error:#}"))?;
        Ok(picture)
    }

    fn touch(&self, disk: &Disk, durability: Durability) {
        if let Ok(forebay) = open(disk, durability, &ManualClock::new(START_MS)) {
            let _ = forebay.close();
        }
    }
}

/// Both sessions, each with an engine of its own.
async fn run(
    disk: &Disk,
    durability: Durability,
    clock: &ManualClock,
    record: &mut Record<Picture>,
    manner: &mut Manner<'_>,
) -> Result<(), Stopped> {
    let mut book = Book::default();
    for session in 0..2 {
        let forebay = loop {
            match open(disk, durability, clock) {
                Ok(forebay) => break forebay,
                Err(error) => {
                    manner.check_syncs_of_opening();
                    manner.again(Call::Other, Stopped::from(&error))?;
                }
            }
        };
        manner.succeeded();
        let mut driver = Driver { forebay, clock, record, manner, book };
        let done = match session {
            0 => driver.first_session().await,
            _ => driver.second_session().await,
        };
        if driver.manner.is_latched(&done) {
            disk.heal();
            driver.stays_failed().await;
        }
        let closed = driver.forebay.close();
        book = driver.book;
        manner.ended(record, done, closed)?;
    }
    Ok(())
}

fn on_runtime<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(work)
}

fn open(disk: &Disk, durability: Durability, clock: &ManualClock) -> Result<Forebay, Error> {
    let options = Options::default()
        .durability(durability)
        // Every answer is a promise here.
        .sync_acks(true)
        .clock(clock.clone())
        .wal_bytes_max(WAL_BYTES_MAX)
        .full_disk_wait(std::time::Duration::ZERO);
    options.open(disk.path())
}

/// Nothing in the file is broken, and no row belongs to nobody.
fn sound(forebay: &Forebay) -> Result<(), String> {
    const ORPHANS: &str = "SELECT
        (SELECT count(*) FROM history h WHERE NOT EXISTS
            (SELECT 1 FROM executions e WHERE e.instance = h.instance AND e.execution = h.execution))
        + (SELECT count(*) FROM executions WHERE instance NOT IN (SELECT key FROM instances))
        + (SELECT count(*) FROM kv WHERE instance NOT IN (SELECT key FROM instances))";
    let checked = forebay.on_writer_connection(|connection| {
        let integrity: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
        Ok((integrity, connection.query_row(ORPHANS, [], |row| row.get::<_, i64>(0))?))
    });
    let checked: rusqlite::Result<_> = checked.map_err(|error| format!("{error:#}"))?;
    match checked.map_err(|error| format!("checking: {error}"))? {
        (integrity, 0) if integrity == "ok" => Ok(()),
        (integrity, orphans) => Err(format!("integrity_check says {integrity}; {orphans} orphans")),
    }
}

fn set(instance: &str, execution: u64, id: u64, key: &str, value: &str) -> duroxide::Event {
    let kind =
        EventKind::KeyValueSet { key: key.into(), value: value.into(), last_updated_at_ms: START_MS + id };
    event(instance, execution, id, kind)
}

fn status(instance: &str, execution: u64, id: u64, status: &str) -> duroxide::Event {
    event(instance, execution, id, EventKind::CustomStatusUpdated { status: Some(status.into()) })
}

/// Each operation's result is noted by the driver; what is expected of the store is in the book.
impl Driver<'_, '_> {
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
            after.message(to, item, AT_ONCE);
        }
        self.together(after, |forebay| {
            let items = [start("b"), start("c"), raised("a", "bell")];
            items.into_iter().map(|item| forebay.enqueue_for_orchestrator(item, None)).collect()
        })?;

        let work = self.fetch_work(&activity("a", 5)).await?;
        let b = self.fetch_beside("b", "much later", &start("much later"), Duration::from_secs(900))?;
        let c = self.fetch("c").await?;
        self.ack_work(work, "a", completed("a", 5)).await?;

        // Two turns in one batch; one of them starts a child.
        let (mut of_b, of_c) = (Turn::first("b"), Turn::first("c"));
        of_b.history.push(heard("b", 2, &"long ".repeat(1500)));
        of_b.work.push(activity("b", 3));
        of_b.messages.push(start("d"));
        let mut after = self.book.clone();
        after.turn_done("b", &b.messages, &of_b);
        after.turn_done("c", &c.messages, &of_c);
        self.together(after, |forebay| {
            let turns = [(of_b.clone(), b.token.clone()), (of_c.clone(), c.token.clone())];
            let ack = |(turn, token): (Turn, String)| -> Joined<'_> {
                Box::pin(async move { turn.ack(forebay, &token).await })
            };
            turns.into_iter().map(ack).collect()
        })?;

        let a = self.fetch("a").await?;
        let mut after = self.book.clone();
        after.put_off_turn(&a.messages, self.now_ms() + 5_000);
        let token = &a.token;
        self.step(true, after, |forebay| async move {
            forebay.abandon_orchestration_item(token, Some(Duration::from_secs(5)), false).await
        })
        .await?;

        let d = self.fetch("d").await?;
        let mut child = Turn::first("d").ending("Completed");
        child.metadata.parent_instance_id = Some("b".into());
        self.ack(d, child).await?;
        let e = self.start_awaited("e").await?;
        self.ack(e, Turn::first("e")).await?;
        // Reads open a second connection, which takes part in everything from here on.
        let read = self.read(|forebay| async move { forebay.get_kv_value("a", "colour").await }).await?;
        assert_eq!(read.as_deref(), Some("red"));

        // Everything is due now; being idle for so long, the engine checkpoints.
        self.clock.advance(Duration::from_secs(61));
        self.settle().await?;
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
        let token = &work.token;
        self.step(true, after, |forebay| async move {
            forebay.abandon_work_item(token, Some(Duration::from_secs(7)), false).await
        })
        .await?;
        let mut after = self.book.clone();
        after.delete("c");
        // duroxide looks at the tree before it deletes.
        self.step_as(
            Call::Other,
            true,
            after,
            |forebay| async move { forebay.delete_instance("c", true).await },
        )
        .await?;
        self.enqueue("later", start("later"), Some(Duration::from_secs(600))).await
    }

    async fn second_session(&mut self) -> Result<(), Stopped> {
        self.enqueue("a", raised("a", "end"), None).await?;
        let a = self.fetch("a").await?;
        let mut last = Turn::of(1, vec![heard("a", 12, "end")]).ending("ContinuedAsNew");
        last.messages.push(continued("a", "2"));
        self.ack(a, last).await?;
        let a = self.fetch_beside("a", "later", &raised("later", "bell"), Duration::from_secs(900))?;
        let mut next = Turn::starting("a", 2);
        next.history.push(set("a", 2, 2, "colour", "green"));
        next.work.push(activity("a", 3));
        self.ack(a, next).await?;
        let mut after = self.book.clone();
        after.prune("a", 1);
        self.step(true, after, |forebay| async move {
            forebay.prune_executions("a", PruneOptions::default()).await
        })
        .await?;

        let work = self.fetch_work(&activity("a", 3)).await?;
        let mut after = self.book.clone();
        after.untry_work(work.no);
        let token = &work.token;
        self.step(false, after, |forebay| async move { forebay.abandon_work_item(token, None, true).await })
            .await?;

        let bells: Vec<_> = (0..8).map(|no| raised("a", &format!("bell {no}"))).collect();
        let mut after = self.book.clone();
        bells.iter().for_each(|bell| after.message("a", bell.clone(), AT_ONCE));
        self.together(after, |forebay| {
            bells.iter().map(|bell| forebay.enqueue_for_orchestrator(bell.clone(), None)).collect()
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
                let bells = EventKind::ExternalEvent { name: "bell".into(), data: "all of them".into() };
                self.ack(a, Turn::of(2, vec![event("a", 2, 4, bells)])).await?;
            }
        }
        let mut after = self.book.clone();
        after.delete("d");
        after.delete("b");
        self.step(true, after, |forebay| async move {
            forebay.delete_instances_atomic(&["b".to_owned(), "d".to_owned()], true).await
        })
        .await?;
        let work = self.fetch_work(&activity("a", 3)).await?;
        self.ack_work(work, "a", completed("a", 3)).await
    }
}
