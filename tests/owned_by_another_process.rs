//! One process owns a database file. A second one is told who, and gets the file as soon as the first is
//! gone, however it went. The other process is this test binary once more, told by its environment what to do.

#![cfg(feature = "duroxide")]

mod engine_support;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use engine_support::other::Other;
use engine_support::{Place, assert_says, enqueue, fetch, start};
use forebay::{Error, Forebay, Options, Writer};

/// The other process: opens the file, leases what is in it, says so, and waits for its end.
#[test]
fn the_other_process() {
    let Some(file) = Other::file() else { return };
    let forebay = Forebay::open(file).expect("it opens");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let turn = runtime.block_on(fetch(&forebay));
    Other::say("open", &turn.map_or(0, |turn| turn.attempt).to_string());
    let _ = std::io::stdin().read_line(&mut String::new());
    forebay.close().expect("it closes");
}

/// The other process with the file open, and the attempt of the turn it has leased.
fn another(place: &Place) -> (Other, u32) {
    let mut other = Other::start("the_other_process", place);
    let attempt = other.says("open").parse().expect("a number");
    (other, attempt)
}

#[tokio::test]
async fn a_second_process_is_told_the_pid_of_the_first() {
    let place = Place::new();
    let own = place.open(Options::default());
    enqueue(&own, start("order")).await;
    own.close().expect("it closes");

    let (mut other, attempt) = another(&place);
    assert_eq!(attempt, 1);
    let pid = other.child.id();
    for _ in 0..2 {
        let error = Forebay::open(place.path()).expect_err("it is taken");
        assert!(matches!(error, Error::OwnedByProcess { pid: Some(found), .. } if found == pid), "{error}");
        assert_says(&error, &[&place.path().display().to_string(), &format!("pid {pid}"), "stop it"]);
    }

    // Its input ends, it closes the file and goes.
    drop(other.child.stdin.take());
    assert!(other.child.wait().expect("it ends").success());
    let own = Forebay::open(place.path()).expect("the way out works");
    assert_eq!(fetch(&own).await.map(|turn| turn.attempt), Some(2), "its lease went with it");
}

#[tokio::test]
async fn a_process_that_was_killed_owns_nothing() {
    let place = Place::new();
    let own = place.open(Options::default());
    enqueue(&own, start("order")).await;
    own.close().expect("it closes");

    for attempt in 1..=3 {
        let (mut other, found) = another(&place);
        assert_eq!(found, attempt, "the attempts of those that were killed count");
        other.child.kill().expect("it can be killed");
        other.child.wait().expect("it is gone");
    }
    let own = Forebay::open(place.path()).expect("nobody has it");
    assert_eq!(fetch(&own).await.map(|turn| turn.attempt), Some(4));
}

/// The other process: opens and closes the file, again and again, until its input ends.
#[test]
fn the_other_process_that_comes_and_goes() {
    let Some(file) = Other::file() else { return };
    let done = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&done);
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_line(&mut String::new());
        ended.store(true, Ordering::Relaxed);
    });
    Other::say("open", "");
    while !done.load(Ordering::Relaxed) {
        match Writer::open(&file) {
            Ok(writer) => writer.blocking_close().expect("it closes"),
            Err(Error::OwnedByProcess { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
}

/// Also in the moment in which it has the lock and has not written down who it is, and in the one in which it
/// has let go: then what is there is not of its predecessor, which lives on.
#[test]
fn an_owner_that_comes_and_goes_is_always_the_one_that_is_named() {
    let place = Place::new();
    let mut other = Other::start("the_other_process_that_comes_and_goes", &place);
    other.says("open");
    let mut told = 0;
    for _ in 0..400 {
        match Writer::open(place.path()) {
            Ok(writer) => writer.blocking_close().expect("it closes"),
            Err(Error::OwnedByProcess { pid, .. }) => {
                assert_eq!(pid, Some(other.child.id()), "after {told} that were right");
                told += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    drop(other.child.stdin.take());
    assert!(other.child.wait().expect("it ends").success());
}

/// A process that is being started has, for a moment, everything open that this one has. That must not keep
/// a file taken that this process has closed.
#[test]
fn starting_a_process_does_not_keep_a_file_taken() {
    let place = Place::new();
    let done = Arc::new(AtomicBool::new(false));
    let spawners: Vec<_> = (0..2)
        .map(|_| {
            let done = Arc::clone(&done);
            std::thread::spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    Command::new("true").status().expect("it runs");
                }
            })
        })
        .collect();
    let mut taken = 0;
    for _ in 0..150 {
        match Forebay::open(place.path()) {
            Ok(forebay) => forebay.close().expect("it closes"),
            Err(Error::OwnedByProcess { .. }) => taken += 1,
            Err(other) => panic!("{other}"),
        }
    }
    done.store(true, Ordering::Relaxed);
    for spawner in spawners {
        spawner.join().expect("it ends");
    }
    assert_eq!(taken, 0, "opens that found a file taken which nobody had");
}
