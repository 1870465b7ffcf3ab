//! A second open of a file in the same process is a second handle to the same engine, however the path is
//! spelled; with other options it is an error that says which; and what was closed is closed for everyone.

#![cfg(feature = "duroxide")]

mod engine_support;

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use duroxide::providers::Provider;
use engine_support::{
    Place, START_MS, assert_says, bounded, bounded_thread, enqueue, fetch, settle, start, started,
};
use forebay::clock::{Clock, JumpListener, ManualClock};
use forebay::{Durability, Error, Forebay, Options, WriterOptions};

fn small() -> Options {
    Options::default().batch_ops_max(16).readers(1)
}

/// What one handle is told, the other one knows.
async fn assert_same_engine(one: &Forebay, other: &Forebay, instance: &str) {
    enqueue(one, start(instance)).await;
    let fetched = fetch(other).await.expect("the other handle sees it");
    assert_eq!(fetched.item.instance, instance);
    assert!(fetch(one).await.is_none(), "it is leased for both");
    bounded(one.abandon_orchestration_item(&fetched.token, Some(Duration::from_secs(9)), true))
        .await
        .expect("the token is good for both");
}

#[tokio::test]
async fn the_same_options_give_the_same_engine() {
    let place = Place::new();
    let client = place.open(small());
    let worker = place.open(small());
    assert_same_engine(&client, &worker, "order").await;
    assert_eq!(client.stats().commits, worker.stats().commits);

    worker.close().expect("it closes");
    for handle in [&client, &worker] {
        let error = bounded(handle.enqueue_for_orchestrator(start("late"), None)).await.expect_err("closed");
        assert!(error.message.contains("closed"), "{error}");
        assert!(!error.is_retryable());
        assert!(matches!(handle.on_writer_connection(|_| ()), Err(Error::Closed)));
        handle.close().expect("closing again answers as the first time did");
    }
}

#[tokio::test]
async fn the_engine_lives_as_long_as_its_last_handle() {
    let place = Place::new();
    let first = place.open(small());
    let second = place.open(small());
    enqueue(&first, start("order")).await;
    drop(first);
    assert!(fetch(&second).await.is_some(), "the other handle is not affected");
    drop(second);
    // Opened anew: the lease of before is gone.
    assert_eq!(fetch(&place.open(small())).await.map(|turn| turn.attempt), Some(2));
}

#[tokio::test]
async fn other_options_are_refused_by_name_and_harm_nobody() {
    let place = Place::new();
    let open = place.open(Options::default());
    let others = [
        ("durability: Full, Normal", Options::default().durability(Durability::Normal)),
        ("batch_ops_max: 1024, 7", Options::default().batch_ops_max(7)),
        ("batch_bytes_max: 8388608, 7", Options::default().batch_bytes_max(7)),
        ("commit_delay: 0ns, 7ms", Options::default().commit_delay(Duration::from_millis(7))),
        ("buffer_ops_max: 4096, 7", Options::default().buffer_ops_max(7)),
        ("readers: 2, 7", Options::default().readers(7)),
        ("wal_bytes_max: 33554432, 65536", Options::default().wal_bytes_max(65536)),
        ("record_bytes_max: 67108864, 7168", Options::default().record_bytes_max(7168)),
        ("cache_bytes: 67108864, 7168", Options::default().cache_bytes(7168)),
        ("clock: system, given", Options::default().clock(ManualClock::new(START_MS))),
    ];
    for (difference, options) in others {
        let error = options.open(place.path()).expect_err("it differs");
        let Error::OptionsDiffer { path, differences, .. } = &error else { panic!("{error}") };
        assert_eq!(*path, std::fs::canonicalize(place.path()).expect("it is there"));
        assert_eq!(differences, difference, "that and nothing else");
        assert_says(&error, &[difference, "close it first"]);
    }
    let several = Options::default().readers(7).batch_ops_max(7).open(place.path()).expect_err("it differs");
    assert_says(&several, &["readers: 2, 7", "batch_ops_max: 1024, 7"]);

    enqueue(&open, start("order")).await;
    open.close().expect("it closes");
    let reopened = place.open(Options::default().readers(7));
    assert!(fetch(&reopened).await.is_some(), "the way out works");
}

/// From the current folder to `path`, without changing the current folder (other tests run beside this one).
fn relative(path: &Path) -> PathBuf {
    let here = std::env::current_dir().expect("there is one").canonicalize().expect("it is there");
    let up = here.components().filter(|part| matches!(part, Component::Normal(_))).map(|_| "..");
    let down = path.strip_prefix("/").expect("an absolute path");
    up.collect::<PathBuf>().join(down)
}

#[tokio::test]
async fn another_spelling_of_the_path_is_the_same_file() {
    let place = Place::new();
    let folder = place.folder.path().canonicalize().expect("it is there");
    let one = place.open(small());
    std::fs::create_dir(place.file("sub")).expect("made");
    std::os::unix::fs::symlink(place.path(), place.file("link.db")).expect("made");
    std::os::unix::fs::symlink(folder.parent().expect("it has one"), place.file("up")).expect("made");
    let name = folder.file_name().expect("it has one");
    let spellings = [
        folder.join("sub/../app.db"),
        folder.join("./app.db"),
        folder.join("link.db"),
        folder.join("up").join(name).join("app.db"),
        relative(&folder.join("app.db")),
    ];
    for (number, path) in spellings.iter().enumerate() {
        let other = small().open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_same_engine(&one, &other, &format!("order-{number}")).await;
    }
}

/// A link whose target does not exist yet names the file that SQLite is about to create through it.
#[tokio::test]
async fn a_link_to_a_file_that_is_yet_to_be_made() {
    let place = Place::new();
    std::os::unix::fs::symlink(place.path(), place.file("link.db")).expect("made");
    let link = small().open(place.file("link.db")).expect("it opens");
    assert!(place.path().exists(), "the file is where the link points to");

    let again = small().open(place.file("link.db")).expect("it opens");
    let target = place.open(small());
    assert_same_engine(&link, &again, "through-the-link").await;
    assert_same_engine(&link, &target, "through-the-name").await;
}

/// An orchestration engine and a `Writer` do not share a file, in whichever order they come.
#[test]
fn another_kind_of_store_is_refused() {
    let place = Place::new();
    let engine = place.open(small());
    let own = || WriterOptions::default().batch_ops_max(16).readers(1);
    let error = own().open(place.path()).expect_err("it is open as another");
    assert!(matches!(error, Error::OptionsDiffer { .. }), "{error}");
    assert_says(&error, &["app.db", "another kind of store", "close it first"]);
    engine.close().expect("it closes");

    let writer = own().open(place.file("own.db")).expect("it opens");
    let error = small().open(place.file("own.db")).expect_err("it is open as another");
    assert_says(&error, &["own.db", "another kind of store"]);
    writer.blocking_close().expect("it closes");
}

#[tokio::test]
async fn databases_in_memory_are_strangers() {
    let one = small().in_memory().expect("it opens");
    let other = small().in_memory().expect("it opens");
    enqueue(&one, start("order")).await;
    settle(&one).await;
    assert!(fetch(&other).await.is_none());
    one.close().expect("it closes");
    enqueue(&other, start("order")).await;
}

/// Takes the writer thread down at once, and holds the open back until that has happened.
#[derive(Debug, Clone, Default)]
struct DeadlyClock {
    armed: Arc<AtomicBool>,
    struck: Arc<AtomicBool>,
}

impl Clock for DeadlyClock {
    fn monotonic(&self) -> Duration {
        // The opening thread looks at the clock too, before there is a writer.
        if std::thread::current().name() == Some("forebay-writer") {
            while !self.armed.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            self.struck.store(true, Ordering::SeqCst);
            panic!("the clock strikes (this test means it to)");
        }
        Duration::ZERO
    }

    fn wall_ms(&self) -> u64 {
        START_MS
    }

    fn on_jump(&self, _wake: JumpListener) {
        self.armed.store(true, Ordering::SeqCst);
        while !self.struck.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        // Nothing tells when the writer's thread has let go of the file: real waiting.
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The engine may fail between its start and the end of the open.
#[test]
fn an_engine_that_fails_while_it_is_opened_does_not_block_the_next_open() {
    let place = Place::new();
    let path = place.path();
    let stillborn = bounded_thread(move || Options::default().clock(DeadlyClock::default()).open(path));
    drop(stillborn);
    let path = place.path();
    let next = started(move || Options::default().open(path).map(|forebay| forebay.close()));
    let opened = next.recv_timeout(Duration::from_secs(10)).expect("an open that does not wait for ever");
    opened.expect("the file is free").expect("it closes");
}
