//! A process is stopped (SIGSTOP) for longer than its leases last. It owns its file all the while; when it goes
//! on, its clock has gone on too, so what it had leased is free again and its late acknowledgements are refused.

use std::io::Write;
use std::process::Command;
use std::time::Duration;

use duroxide::providers::{Provider, TagFilter};
use forebay::{Error, Forebay};

use crate::engine_support::other::Other;
use crate::engine_support::{
    HOUR, LOCK, Place, Turn, activity, begin, bounded, completed, enqueue, enqueue_work, fetch, fetch_work,
    heard, raised,
};

/// How long the other process leases for, and how long it is stopped.
const LEASE: Duration = Duration::from_millis(300);
const STOP: Duration = Duration::from_millis(600);

/// The process that is stopped: leases a turn and an activity, says so, and goes on when it is told to.
#[test]
fn the_other_process() {
    let Some(file) = Other::file() else { return };
    let forebay = Forebay::open(file).expect("it opens");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        begin(&forebay, "order", Turn::first("order")).await;
        enqueue(&forebay, raised("order", "bell")).await;
        enqueue_work(&forebay, activity("order", 2)).await;
        let turn = forebay.fetch_orchestration_item(LEASE, HOUR, None);
        let (_, turn, _) = bounded(turn).await.expect("it works").expect("a turn");
        let work = forebay.fetch_work_item(LEASE, HOUR, None, &TagFilter::Any);
        let (_, work, _) = bounded(work).await.expect("it works").expect("an activity");
        Other::say("leased", "");
        std::io::stdin().read_line(&mut String::new()).expect("it is told to go on");

        let late = Turn::of(1, vec![heard("order", 2, "late")]).ack(&forebay, &turn);
        let error = bounded(late).await.expect_err("the lease is over");
        assert!(error.message.contains("Invalid lock token"), "{error}");
        let late = forebay.ack_work_item(&work, Some(completed("order", 2)));
        let error = bounded(late).await.expect_err("the lease is over");
        assert!(error.message.contains("Invalid lock token"), "{error}");

        let turn = fetch(&forebay).await.expect("it is free again");
        let work = fetch_work(&forebay).await.expect("it is free again");
        assert_eq!((turn.attempt, work.attempt), (2, 2));
        let done = Turn::of(1, vec![heard("order", 2, "in time")]).ack(&forebay, &turn.token);
        bounded(done).await.expect("it is held");
        bounded(forebay.ack_work_item(&work.token, Some(completed("order", 2)))).await.expect("it is held");
        Other::say("done", "");
    });
    forebay.close().expect("it closes");
}

fn signal(other: &Other, signal: &str) {
    let pid = other.child.id().to_string();
    let sent = Command::new("kill").args([signal, &pid]).status().expect("there is a kill");
    assert!(sent.success(), "kill {signal} {pid}");
}

#[tokio::test]
async fn a_process_stopped_past_its_leases_does_nothing_twice() {
    let place = Place::new();
    let mut other = Other::start("process_stopped::the_other_process", &place);
    other.says("leased");
    let pid = other.child.id();
    signal(&other, "-STOP");
    // Real time: nobody can move the clock of another process.
    std::thread::sleep(STOP);
    let error = Forebay::open(place.path()).expect_err("a process that is stopped owns its file");
    assert!(matches!(error, Error::OwnedByProcess { pid: Some(found), .. } if found == pid), "{error}");
    signal(&other, "-CONT");
    other.child.stdin.take().expect("it is piped").write_all(b"\n").expect("it listens");
    other.says("done");
    assert!(other.child.wait().expect("it ends").success());

    let forebay = Forebay::open(place.path()).expect("it is free");
    let history = bounded(forebay.read("order")).await.expect("it is read");
    let [_, bell] = &history[..] else { panic!("one event and no more was added: {history:?}") };
    assert_eq!(bell.kind, heard("order", 2, "in time").kind, "the one that was in time");
    let answer =
        bounded(forebay.fetch_orchestration_item(LOCK, Duration::ZERO, None)).await.expect("it works");
    let (item, _, attempt) = answer.expect("the activity's answer");
    assert_eq!((&item.messages[..], attempt), (&[completed("order", 2)][..], 1), "once and no more");
    assert!(fetch_work(&forebay).await.is_none());
}
