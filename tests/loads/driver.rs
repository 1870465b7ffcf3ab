//! One operation on duroxide's storage: the state to come is noted, the call is made, and made again if the
//! load's manner says so, and the answer is noted.

use std::pin::Pin;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use duroxide::providers::{Provider, ProviderAdmin, ProviderError, TagFilter, WorkItem};
use forebay::clock::{Clock, ManualClock};
use forebay::{Error, Forebay};

use super::manner::{Call, Heard, Manner, Stopped};
use super::picture::{AT_ONCE, Book, Picture};
use super::record::Record;
use crate::engine_support::polled::Polled;
use crate::engine_support::{HOUR, LOCK, START_MS, Turn, bounded, start, started};

/// One of several calls that go into one batch.
pub(crate) type Joined<'a> = Pin<Box<dyn Future<Output = Result<(), ProviderError>> + Send + 'a>>;

/// A turn in the hands of the load.
pub(crate) struct Held {
    pub(crate) token: String,
    pub(crate) instance: String,
    pub(crate) messages: Vec<u64>,
}

/// An activity in the hands of the load.
pub(crate) struct HeldWork {
    pub(crate) token: String,
    pub(crate) no: u64,
}

/// See the module.
pub(crate) struct Driver<'a, 'd> {
    pub(crate) forebay: Forebay,
    pub(crate) clock: &'a ManualClock,
    pub(crate) record: &'a mut Record<Picture>,
    pub(crate) manner: &'a mut Manner<'d>,
    pub(crate) book: Book,
}

impl Driver<'_, '_> {
    pub(crate) fn now_ms(&self) -> u64 {
        self.clock.wall_ms()
    }

    /// Makes a call until it succeeds, as far as the load's manner goes.
    async fn persist<T, F>(&mut self, kind: Call, call: impl Fn(Forebay) -> F) -> Result<T, Stopped>
    where
        F: Future<Output = Result<T, ProviderError>>,
    {
        loop {
            match bounded(call(self.forebay.clone())).await {
                Ok(answer) => return Ok(answer),
                Err(error) => self.manner.again(kind, Stopped::from(&error))?,
            }
        }
    }

    /// A call that writes nothing. Its success says nothing of the writes that it is made between.
    pub(crate) async fn read<T, F>(&mut self, call: impl Fn(Forebay) -> F) -> Result<T, Stopped>
    where
        F: Future<Output = Result<T, ProviderError>>,
    {
        self.persist(Call::Other, call).await
    }

    /// Notes the state to come, makes the call, and notes that it was answered.
    pub(crate) async fn step<T, F>(
        &mut self,
        matters: bool,
        after: Book,
        call: impl Fn(Forebay) -> F,
    ) -> Result<T, Stopped>
    where
        F: Future<Output = Result<T, ProviderError>>,
    {
        self.step_as(Call::Write, matters, after, call).await
    }

    /// As [`Self::step`], for a call that may read with a connection of its own before it writes.
    pub(crate) async fn step_as<T, F>(
        &mut self,
        kind: Call,
        matters: bool,
        after: Book,
        call: impl Fn(Forebay) -> F,
    ) -> Result<T, Stopped>
    where
        F: Future<Output = Result<T, ProviderError>>,
    {
        self.record.submit(after.picture(START_MS), matters);
        let answer = self.persist(kind, call).await?;
        self.manner.succeeded();
        self.record.acknowledge();
        self.book = after;
        Ok(answer)
    }

    /// Several calls in one batch: they wait together until the writer, held up meanwhile, can take them.
    pub(crate) fn together(
        &mut self,
        after: Book,
        calls: impl Fn(&Forebay) -> Vec<Joined<'_>>,
    ) -> Result<(), Stopped> {
        self.record.submit(after.picture(START_MS), true);
        while let Err(stopped) = join(&self.forebay, &calls, &mut self.manner.wrong) {
            self.manner.again(Call::Write, stopped)?;
        }
        self.manner.succeeded();
        self.record.acknowledge();
        self.book = after;
        Ok(())
    }

    pub(crate) async fn enqueue(
        &mut self,
        instance: &str,
        item: WorkItem,
        delay: Option<Duration>,
    ) -> Result<(), Stopped> {
        let mut after = self.book.clone();
        let due_ms = delay.map_or(AT_ONCE, |delay| self.now_ms() + delay.as_millis() as u64);
        after.message(instance, item.clone(), due_ms);
        self.step(true, after, |forebay| {
            let item = item.clone();
            async move { forebay.enqueue_for_orchestrator(item, delay).await }
        })
        .await
    }

    /// Counts attempts and nothing else.
    pub(crate) async fn fetch(&mut self, instance: &str) -> Result<Held, Stopped> {
        let mut after = self.book.clone();
        let messages = after.try_turn(instance, self.now_ms());
        let fetch = |forebay: Forebay| async move {
            forebay.fetch_orchestration_item(LOCK, Duration::ZERO, None).await
        };
        let (item, token, _) = self.step(false, after, fetch).await?.expect("there is a turn");
        assert_eq!((&*item.instance, item.messages.len()), (instance, messages.len()));
        Ok(Held { token, instance: item.instance, messages })
    }

    pub(crate) async fn fetch_work(&mut self, expected: &WorkItem) -> Result<HeldWork, Stopped> {
        let mut after = self.book.clone();
        let no = after.try_work(expected);
        let fetch = |forebay: Forebay| async move {
            forebay.fetch_work_item(LOCK, Duration::ZERO, None, &TagFilter::Any).await
        };
        let (item, token, _) = self.step(false, after, fetch).await?.expect("there is an activity");
        assert_eq!(item, *expected);
        Ok(HeldWork { token, no })
    }

    pub(crate) async fn ack(&mut self, held: Held, turn: Turn) -> Result<(), Stopped> {
        let mut after = self.book.clone();
        after.turn_done(&held.instance, &held.messages, &turn);
        self.step(true, after, |forebay| {
            let (turn, token) = (turn.clone(), held.token.clone());
            async move { turn.ack(&forebay, &token).await }
        })
        .await
    }

    pub(crate) async fn ack_work(
        &mut self,
        held: HeldWork,
        instance: &str,
        completion: WorkItem,
    ) -> Result<(), Stopped> {
        let mut after = self.book.clone();
        after.work_done(held.no);
        after.message(instance, completion.clone(), AT_ONCE);
        self.step(true, after, |forebay| {
            let (token, completion) = (held.token.clone(), completion.clone());
            async move { forebay.ack_work_item(&token, Some(completion)).await }
        })
        .await
    }

    /// A turn, and a delayed message to somebody else, in one batch. At `Full` that is done in two parts: what is
    /// durable is handed out, its attempt counted, before the message is written and synced. Each part has a fate
    /// of its own.
    pub(crate) fn fetch_beside(
        &mut self,
        instance: &str,
        other: &str,
        item: &WorkItem,
        delay: Duration,
    ) -> Result<Held, Stopped> {
        let (now_ms, granted) = (self.now_ms(), Arc::new(Mutex::new(None)));
        let due_ms = now_ms + delay.as_millis() as u64;
        let messages = self.book.clone().try_turn(instance, now_ms);
        let (mut is_fetched, mut is_sent) = (false, false);
        while !(is_fetched && is_sent) {
            let answers = in_one_batch(&self.forebay, |forebay| {
                let (granted, item) = (Arc::clone(&granted), item.clone());
                let fetch = async move {
                    let answer = forebay.fetch_orchestration_item(LOCK, Duration::ZERO, None).await?;
                    *granted.lock().expect("not poisoned") = answer;
                    Ok(())
                };
                let mut calls: Vec<Joined<'_>> = Vec::new();
                if !is_fetched {
                    calls.push(Box::pin(fetch));
                }
                if !is_sent {
                    calls.push(Box::pin(forebay.enqueue_for_orchestrator(item, Some(delay))));
                }
                calls
            });
            let mut answers = match answers {
                Ok(answers) => answers.into_iter(),
                Err(stopped) => {
                    self.manner.again(Call::Write, stopped)?;
                    continue;
                }
            };
            let fetched = if is_fetched { None } else { answers.next() };
            let sent = if is_sent { None } else { answers.next() };
            is_fetched |= self.part(fetched.as_ref(), false, |book| drop(book.try_turn(instance, now_ms)));
            is_sent |= self.part(sent.as_ref(), true, |book| book.message(other, item.clone(), due_ms));
            // Of two errors the one that leaves more open.
            let errors = [fetched, sent].into_iter().flatten().filter_map(Result::err);
            if let Some(stopped) = errors.max_by_key(|stopped| stopped.heard == Heard::Unknown) {
                self.manner.again(Call::Write, stopped)?;
            }
        }
        self.manner.succeeded();
        let granted = granted.lock().expect("not poisoned").take();
        let (granted, token, _) = granted.expect("there is a turn");
        assert_eq!((&*granted.instance, granted.messages.len()), (instance, messages.len()));
        Ok(Held { token, instance: granted.instance, messages })
    }

    /// Notes what came of a part of a batch, if there was one; returns whether it is done.
    fn part(
        &mut self,
        answer: Option<&Result<(), Stopped>>,
        matters: bool,
        change: impl Fn(&mut Book),
    ) -> bool {
        let mut after = self.book.clone();
        change(&mut after);
        match answer {
            Some(Ok(())) => {
                self.record.submit(after.picture(START_MS), matters);
                self.record.acknowledge();
                self.book = after;
                true
            }
            Some(Err(Stopped { heard: Heard::Unknown, .. })) => {
                self.record.submit(after.picture(START_MS), matters);
                // What comes after it in its batch may have happened with it.
                self.book = after;
                false
            }
            _ => false,
        }
    }

    /// A start that a fetch is waiting for: inserted, leased and counted in one batch.
    pub(crate) async fn start_awaited(&mut self, instance: &str) -> Result<Held, Stopped> {
        let mut after = self.book.clone();
        after.message(instance, start(instance), AT_ONCE);
        let messages = after.try_turn(instance, self.now_ms());
        self.record.submit(after.picture(START_MS), true);
        let forebay = self.forebay.clone();
        let mut waiting = None;
        let fetched = loop {
            let parked = waiting
                .get_or_insert_with(|| Polled::new(forebay.fetch_orchestration_item(LOCK, HOUR, None)));
            let early = parked.poll();
            self.settle().await?;
            if let Some(answer) = early.or_else(|| parked.poll()) {
                // It looked at what was there already, and could not.
                let error = answer.expect_err("there is nothing to have");
                self.manner.again(Call::Write, Stopped::from(&error))?;
                waiting = None;
                continue;
            }
            let enqueued = bounded(forebay.enqueue_for_orchestrator(start(instance), None)).await;
            match enqueued {
                Ok(()) => break waiting.take().expect("it is parked").finish(),
                Err(error) => {
                    let stopped = Stopped::from(&error);
                    // Whatever happened to the batch, the fetch in it hears of it too; one that was not waits on.
                    if let Some(answer) = parked.poll() {
                        let too = answer.err().map(|error| Stopped::from(&error).heard);
                        if !matches!(too, Some(Heard::Failed)) && too != Some(stopped.heard) {
                            self.manner.wrong.push(format!("TWO FATES in one batch: {stopped:?}, {too:?}"));
                        }
                        waiting = None;
                    }
                    self.manner.again(Call::Write, stopped)?;
                }
            }
        };
        self.manner.succeeded();
        self.record.acknowledge();
        self.book = after;
        match fetched {
            Ok(granted) => {
                let (item, token, attempt) = granted.expect("it got the start");
                assert_eq!((&*item.instance, attempt), (instance, 1));
                Ok(Held { token, instance: item.instance, messages })
            }
            Err(error) => Err(Stopped::from(&error)),
        }
    }

    /// An engine that has failed refuses everything, although the disk works again.
    pub(crate) async fn stays_failed(&mut self) {
        let forebay = self.forebay.clone();
        let told = |answer: Result<(), ProviderError>| answer.map_err(|error| Stopped::from(&error));
        for _ in 0..2 {
            let answer = bounded(forebay.enqueue_for_orchestrator(start("refused"), None)).await;
            self.manner.expect_failed("a message", told(answer));
            let answer = bounded(forebay.fetch_orchestration_item(LOCK, HOUR, None)).await;
            self.manner.expect_failed("a fetch", told(answer.map(drop)));
            let answer = bounded(forebay.fetch_work_item(LOCK, HOUR, None, &TagFilter::Any)).await;
            self.manner.expect_failed("a worker's fetch", told(answer.map(drop)));
            let answer = bounded(forebay.get_kv_value("a", "colour")).await;
            self.manner.expect_failed("a read", told(answer.map(drop)));
            let admin: &dyn ProviderAdmin = &forebay;
            let answer = bounded(admin.delete_instance("a", true)).await;
            self.manner.expect_failed("a deletion", told(answer.map(drop)));
            let answer = forebay.close().map_err(|error: Error| Stopped::from(&error));
            self.manner.expect_failed("closing", answer);
        }
    }

    /// Waits until the writer has taken note of everything so far.
    pub(crate) async fn settle(&mut self) -> Result<(), Stopped> {
        for _ in 0..2 {
            self.read(|forebay| async move {
                let admin: &dyn ProviderAdmin = &forebay;
                admin.get_queue_depths().await.map(drop)
            })
            .await?;
        }
        Ok(())
    }
}

/// Makes the calls so that they are in one batch, which has one fate.
fn join(
    forebay: &Forebay,
    calls: impl Fn(&Forebay) -> Vec<Joined<'_>>,
    wrong: &mut Vec<String>,
) -> Result<(), Stopped> {
    let answers = in_one_batch(forebay, calls)?;
    let fate = |answer: &Result<(), Stopped>| answer.as_ref().err().map(|stopped| stopped.heard);
    if !answers.windows(2).all(|two| fate(&two[0]) == fate(&two[1])) {
        wrong.push(format!("TWO FATES in one batch: {answers:?}"));
    }
    answers.into_iter().collect()
}

/// Makes the calls so that they are in one batch: the writer is held up until all have been submitted.
fn in_one_batch(
    forebay: &Forebay,
    calls: impl Fn(&Forebay) -> Vec<Joined<'_>>,
) -> Result<Vec<Result<(), Stopped>>, Stopped> {
    let (release, released) = mpsc::channel::<()>();
    let (entered, inside) = mpsc::channel();
    let held_up = forebay.clone();
    let holding = started(move || {
        held_up.on_writer_connection(move |_| {
            let _ = entered.send(());
            let _ = released.recv();
        })
    });
    if inside.recv().is_err() {
        let refused = holding.recv().expect("it ends").expect_err("it was not held up");
        return Err(Stopped::from(&refused));
    }
    let mut waiting: Vec<_> = calls(forebay).into_iter().map(Polled::new).collect();
    let early: Vec<_> = waiting.iter_mut().map(Polled::poll).collect();
    drop(release);
    let answers = waiting.into_iter().zip(early).map(|(call, early)| early.unwrap_or_else(|| call.finish()));
    let answers = answers.map(|answer| answer.map_err(|error| Stopped::from(&error))).collect();
    let _ = holding.recv();
    Ok(answers)
}
