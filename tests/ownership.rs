//! Whose a database is goes by the file and not by its name: under hard links, removed locks, copies made beside it,
//! renamed folders, forks. And what is not the path of a file is refused before anything is made.

#![cfg(all(feature = "duroxide", target_os = "linux"))]

mod engine_support;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use duroxide::providers::{Provider, ProviderAdmin};
use engine_support::other::Other;
use engine_support::{
    PATIENCE, Place, Turn, assert_says, begin, bounded, enqueue, fetch, raised, start, started,
};
use forebay::{Error, Forebay, Options, Writer};

/// The other process: opens the file, does what it is told to, and waits for its end.
#[test]
fn the_other_process() {
    let Some(file) = Other::file() else { return };
    let forebay = Forebay::open(file).expect("it opens");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    for n in 0..300 {
        runtime.block_on(enqueue(&forebay, start(&format!("order {n}"))));
    }
    Other::say("open", "");
    let mut told = String::new();
    while std::io::stdin().read_line(&mut told).is_ok_and(|bytes| bytes > 0) {
        match told.trim() {
            // As a backup would within the application.
            "copy" => {
                let file = Other::file().expect("it is told");
                fs::copy(&file, file.with_extension("copy")).expect("it is copied");
            }
            "enqueue" => runtime.block_on(enqueue(&forebay, start("late"))),
            other => panic!("{other}"),
        }
        Other::say("done", "");
        told.clear();
    }
    forebay.close().expect("it closes");
}

fn another(place: &Place) -> Other {
    let mut other = Other::start("the_other_process", place);
    other.says("open");
    other
}

fn tell(other: &mut Other, what: &str) {
    use std::io::Write;
    let input = other.child.stdin.as_mut().expect("it listens");
    writeln!(input, "{what}").expect("it listens");
    other.says("done");
}

#[test]
fn a_file_with_two_names_is_refused() {
    let place = Place::new();
    place.open(Options::default()).close().expect("it closes");
    fs::hard_link(place.path(), place.file("second.db")).expect("it is linked");
    for name in ["app.db", "second.db"] {
        let error = Forebay::open(place.file(name)).expect_err("two names");
        assert!(matches!(error, Error::HardLinked { links: 2, .. }), "{error:?}");
        assert_says(&error, &[name, "2 names", "remove the others"]);
    }
    assert!(!place.file("second.db-lock").exists(), "nothing is left beside it");
    fs::remove_file(place.file("second.db")).expect("it is removed");
    place.open(Options::default()).close().expect("the way out works");
}

/// One that was linked while it was open keeps its owner, in this process and in others.
#[test]
fn a_second_name_made_while_it_is_open_lets_nobody_in() {
    let place = Place::new();
    let other = another(&place);
    fs::hard_link(place.path(), place.file("second.db")).expect("it is linked");
    let error = Forebay::open(place.file("second.db")).expect_err("two names");
    assert!(matches!(error, Error::HardLinked { .. }), "{error:?}");
    drop(other);

    let place = Place::new();
    let own = place.open(Options::default());
    fs::hard_link(place.path(), place.file("second.db")).expect("it is linked");
    Forebay::open(place.file("second.db")).expect_err("it is open here under another name");
    own.close().expect("it closes");
}

#[test]
fn a_lock_that_is_removed_lets_no_second_process_in() {
    let place = Place::new();
    let mut other = another(&place);
    fs::remove_file(place.file("app.db-lock")).expect("it is removed");
    let error = Forebay::open(place.path()).expect_err("it is taken");
    assert!(matches!(error, Error::OwnedByProcess { .. }), "{error:?}");
    // The one that was made meanwhile is nobody's.
    tell(&mut other, "enqueue");
    let error = Forebay::open(place.path()).expect_err("it is taken");
    assert!(matches!(error, Error::OwnedByProcess { .. }), "{error:?}");
}

/// POSIX locks go when any handle of their file is closed in the process. A shell that then opens and closes the
/// database takes itself for the last one, and removes the log.
#[tokio::test]
async fn a_copy_made_in_the_process_loses_nothing_to_a_shell_and_a_kill() {
    let place = Place::new();
    let mut other = another(&place);
    tell(&mut other, "copy");
    {
        let shell = rusqlite::Connection::open(place.path()).expect("it opens");
        let tables: i64 =
            shell.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).expect("it reads");
        assert!(tables > 0);
    }
    other.child.kill().expect("it can be killed");
    other.child.wait().expect("it is gone");
    let own = place.open(Options::default());
    for n in 0..300 {
        assert_eq!(fetch(&own).await.expect("it is there").item.instance, format!("order {n}"));
    }
}

#[tokio::test]
async fn a_folder_that_is_renamed_is_no_reason_to_fail() {
    let place = Place::new();
    fs::create_dir(place.file("before")).expect("it is made");
    let clock = forebay::clock::ManualClock::new(engine_support::START_MS);
    let options = Options::default().clock(clock.clone());
    let forebay = options.open(place.file("before").join("app.db")).expect("it opens");
    begin(&forebay, "order", Turn::first("order")).await;
    fs::rename(place.file("before"), place.file("after")).expect("it is renamed");
    for _ in 0..3 {
        clock.advance(Duration::from_millis(200));
        enqueue(&forebay, raised("order", "bell")).await;
    }
    // Reads go on too, on every connection there is.
    let (one, other) = tokio::join!(forebay.list_instances(), forebay.get_instance_info("order"));
    assert_eq!(one.expect("they are listed"), ["order"]);
    assert_eq!(other.expect("it is read").instance_id, "order");
    assert_eq!(fetch(&forebay).await.expect("it goes on").item.messages.len(), 3);
    forebay.close().expect("it closes");
    let forebay = Forebay::open(place.file("after").join("app.db")).expect("it opens");
    assert_eq!(bounded(forebay.read("order")).await.expect("it is read").len(), 1);
}

#[test]
fn what_is_no_path_is_refused_by_the_right_call() {
    for (given, says) in [
        ("sqlite:app.db", "\"app.db\""),
        ("sqlite://app.db", "app.db"),
        ("sqlite::memory:", "Forebay::in_memory()"),
        (":memory:", "Forebay::in_memory()"),
    ] {
        let error = Forebay::open(given).expect_err("it is no path");
        assert!(matches!(error, Error::NotAPath { .. }), "{given}: {error:?}");
        assert_says(&error, &[given, says]);
        assert!(matches!(Writer::open(given), Err(Error::NotAPath { .. })), "{given}");
        assert!(!Path::new(given).exists(), "{given}");
    }
    let place = Place::new();
    let odd = place.file("sqlite:odd.db");
    Forebay::open(&odd).expect("within a folder it is a name").close().expect("it closes");
}

#[test]
fn what_is_no_file_is_refused_and_nothing_is_left_beside_it() {
    let place = Place::new();
    let pipe = place.file("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("it runs").success());
    let long = place.file(&"x".repeat(200)).join("y".repeat(200)).join("z".repeat(200));
    fs::create_dir_all(long.parent().expect("it has one")).expect("it is made");
    let opening = started(move || {
        let pipe = Forebay::open(pipe).expect_err("a pipe");
        let device = Forebay::open("/dev/null").expect_err("a device");
        (pipe, device, Forebay::open(long.join("app.db")).err(), Forebay::open(long).expect_err("too long"))
    });
    let (pipe, device, _folder, long) = opening.recv_timeout(PATIENCE).expect("it does not block");
    assert!(matches!(pipe, Error::NotAFile { .. }), "{pipe:?}");
    assert!(matches!(device, Error::NotAFile { .. }), "{device:?}");
    assert!(matches!(long, Error::PathTooLong { .. }), "{long:?}");
    assert!(!place.file("pipe-lock").exists() && !Path::new("/dev/null-lock").exists());
}

#[test]
fn opening_waits_for_an_owner_that_goes() {
    let place = Place::new();
    let mut other = another(&place);
    let began = Instant::now();
    let error = Options::default().wait_for_owner(Duration::from_millis(200)).open(place.path());
    assert!(matches!(error, Err(Error::OwnedByProcess { .. })), "{error:?}");
    assert!(began.elapsed() >= Duration::from_millis(200), "it did not wait");
    let path = place.path();
    let opening = started(move || Options::default().wait_for_owner(PATIENCE).open(path));
    drop(other.child.stdin.take());
    opening.recv_timeout(PATIENCE).expect("in time").expect("the other one goes").close().expect("it closes");
}

/// A child that was forked has the handles and none of the threads. It runs in a process of its own, because what is
/// forked here has the test's threads cut off as well.
#[test]
fn a_fork_is_told_and_harms_nobody() {
    let place = Place::new();
    let output = Command::new(std::env::current_exe().expect("it has a path"))
        .args(["--exact", "the_one_that_forks", "--nocapture", "--test-threads=1"])
        .env("FOREBAY_FORKS", place.path())
        .stdin(Stdio::null())
        .output()
        .expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("child was told"), "{text}");
}

#[test]
#[allow(unsafe_code)]
fn the_one_that_forks() {
    let Some(file) = std::env::var_os("FOREBAY_FORKS") else { return };
    let writer = Writer::open(file).expect("it opens");
    writer.blocking_submit(|tx| tx.execute_batch("CREATE TABLE t (n INTEGER)")).wait().expect("it is made");
    // SAFETY: the child calls nothing that needs a lock another thread may have held, but for what is under test.
    match unsafe { libc::fork() } {
        0 => {
            let submitted = writer.blocking_submit(|tx| tx.execute("INSERT INTO t VALUES (1)", [])).wait();
            let read = writer.blocking_read(|_| Ok::<_, Error>(()));
            let closed = writer.blocking_close();
            drop(writer);
            let told = [submitted.err(), read.err(), closed.err()];
            let told = told.iter().all(|error| matches!(error, Some(Error::Forked { .. })));
            // SAFETY: ends the process without running anything of the parent's.
            unsafe { libc::_exit(i32::from(!told)) };
        }
        child => {
            let mut status = 0;
            // SAFETY: waits for the child, whose status is written to an integer that lives until the call returns.
            unsafe { libc::waitpid(child, &raw mut status, 0) };
            assert_eq!(status, 0, "the child was not told");
            println!("child was told");
            writer
                .blocking_submit(|tx| tx.execute("INSERT INTO t VALUES (2)", []))
                .wait()
                .expect("it goes on");
            writer.blocking_close().expect("it closes");
        }
    }
}
