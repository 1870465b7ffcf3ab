//! A dispatcher's filter is a list of version ranges, and every one of them counts; what it does not match is
//! skipped without being leased, and costs no attempt.

#![cfg(feature = "duroxide")]

mod engine_support;

use std::time::Duration;

use duroxide::providers::{DispatcherCapabilityFilter, Provider, SemverRange};
use engine_support::{
    Fetched, LOCK, Turn, begin, bounded, enqueue, fetch, fetched, on_manual_clock, raised, start,
};
use forebay::{Forebay, Options};
use semver::Version;

fn version(text: &str) -> Version {
    Version::parse(text).expect("a version")
}

fn ranges(bounds: &[(&str, &str)]) -> DispatcherCapabilityFilter {
    let range = |(min, max): &(&str, &str)| SemverRange::new(version(min), version(max));
    DispatcherCapabilityFilter { supported_duroxide_versions: bounds.iter().map(range).collect() }
}

type Turned = Fetched<duroxide::providers::OrchestrationItem>;

async fn fetch_with(forebay: &Forebay, filter: &DispatcherCapabilityFilter) -> Option<Turned> {
    fetched(bounded(forebay.fetch_orchestration_item(LOCK, Duration::ZERO, Some(filter))).await)
}

/// The instances a filter gets, in order; they are put back.
async fn matched(forebay: &Forebay, bounds: &[(&str, &str)]) -> Vec<String> {
    let filter = ranges(bounds);
    let mut turns = Vec::new();
    while let Some(turn) = fetch_with(forebay, &filter).await {
        turns.push(turn);
    }
    for turn in &turns {
        assert_eq!(turn.attempt, 1, "{} was tried before", turn.item.instance);
        let put_back = forebay.abandon_orchestration_item(&turn.token, None, true);
        bounded(put_back).await.expect("it is put back");
    }
    turns.into_iter().map(|turn| turn.item.instance).collect()
}

/// Instances pinned to these versions, each with a message, in this order.
async fn pinned(forebay: &Forebay, versions: &[Option<&str>]) {
    for pinned in versions {
        let name = pinned.unwrap_or("none");
        let mut turn = Turn::first(name);
        turn.metadata.pinned_duroxide_version = pinned.map(version);
        begin(forebay, name, turn).await;
    }
    for pinned in versions {
        enqueue(forebay, raised(pinned.unwrap_or("none"), "bell")).await;
    }
}

const VERSIONS: [Option<&str>; 6] =
    [Some("1.0.0"), Some("2.0.0"), Some("0.1.32"), None, Some("3.0.0"), Some("2.0.0-rc.1")];

#[tokio::test]
async fn every_range_counts() {
    let (forebay, _clock) = on_manual_clock();
    pinned(&forebay, &VERSIONS).await;
    let only_second = [("7.0.0", "8.0.0"), ("2.0.0", "2.9.9")];
    assert_eq!(matched(&forebay, &only_second).await, ["2.0.0", "none"]);
    let first_and_third = [("1.0.0", "1.9.9"), ("7.0.0", "8.0.0"), ("3.0.0", "3.0.0")];
    assert_eq!(matched(&forebay, &first_and_third).await, ["1.0.0", "none", "3.0.0"]);
    let overlapping = [("0.0.0", "1.5.0"), ("1.0.0", "2.5.0")];
    assert_eq!(matched(&forebay, &overlapping).await, ["1.0.0", "2.0.0", "0.1.32", "none", "2.0.0-rc.1"]);
}

#[tokio::test]
async fn both_ends_of_a_range_belong_to_it() {
    let (forebay, _clock) = on_manual_clock();
    pinned(&forebay, &VERSIONS).await;
    assert_eq!(matched(&forebay, &[("1.0.0", "2.0.0")]).await, ["1.0.0", "2.0.0", "none", "2.0.0-rc.1"]);
    assert_eq!(matched(&forebay, &[("1.0.1", "1.9.9")]).await, ["none"]);
    assert_eq!(matched(&forebay, &[("3.0.0", "1.0.0")]).await, ["none"], "an inverted range holds nothing");
}

#[tokio::test]
async fn an_empty_list_matches_nothing_and_no_filter_everything() {
    let (forebay, _clock) = on_manual_clock();
    pinned(&forebay, &VERSIONS).await;
    enqueue(&forebay, start("brand-new")).await;
    assert!(matched(&forebay, &[]).await.is_empty(), "not even what is pinned to nothing");
    for expected in VERSIONS {
        assert_eq!(fetch(&forebay).await.expect("it is there").item.instance, expected.unwrap_or("none"));
    }
    assert_eq!(fetch(&forebay).await.expect("it is there").item.instance, "brand-new");
}

#[tokio::test]
async fn what_is_pinned_to_nothing_always_matches() {
    let (forebay, _clock) = on_manual_clock();
    pinned(&forebay, &[None]).await;
    enqueue(&forebay, start("brand-new")).await;
    assert_eq!(matched(&forebay, &[("9.0.0", "9.0.0")]).await, ["none", "brand-new"]);
}

/// A thousand that do not match wait in front of the one that does. They are neither leased nor counted.
#[tokio::test]
async fn what_does_not_match_is_skipped_and_left_alone() {
    let (forebay, _clock) = on_manual_clock();
    let count: u32 = 1000;
    for n in 0..count {
        let name = format!("old-{n}");
        let mut turn = Turn::first(&name);
        turn.metadata.pinned_duroxide_version = Some(Version::new(1, 0, u64::from(n % 10)));
        begin(&forebay, &name, turn).await;
    }
    let mut turn = Turn::first("new");
    turn.metadata.pinned_duroxide_version = Some(version("2.0.0"));
    begin(&forebay, "new", turn).await;
    for n in 0..count {
        enqueue(&forebay, raised(&format!("old-{n}"), "bell")).await;
    }
    enqueue(&forebay, raised("new", "bell")).await;

    let only_new = ranges(&[("2.0.0", "2.0.0")]);
    let turn = fetch_with(&forebay, &only_new).await.expect("it is there");
    assert_eq!(turn.item.instance, "new");
    assert!(fetch_with(&forebay, &only_new).await.is_none());
    let old = matched(&forebay, &[("1.0.0", "1.9.9")]).await;
    let expected: Vec<_> = (0..count).map(|n| format!("old-{n}")).collect();
    assert_eq!(old, expected, "all of them, untouched and in their order, whatever their patch version");
}

/// The pin follows the execution: a later one may be pinned to something else, or to nothing.
#[tokio::test]
async fn the_pin_is_that_of_the_current_execution() {
    let place = engine_support::Place::new();
    let mut forebay = place.open(Options::default());
    let mut turn = Turn::first("order").ending("ContinuedAsNew");
    turn.metadata.pinned_duroxide_version = Some(version("1.0.0"));
    begin(&forebay, "order", turn).await;
    let (one, two, three) =
        (ranges(&[("1.0.0", "1.0.0")]), ranges(&[("2.0.0", "2.0.0")]), ranges(&[("3.0.0", "3.0.0")]));

    enqueue(&forebay, raised("order", "bell")).await;
    assert!(fetch_with(&forebay, &two).await.is_none());
    let turn = fetch_with(&forebay, &one).await.expect("it is pinned to 1.0.0");
    let mut second = Turn::starting("order", 2).ending("ContinuedAsNew");
    second.metadata.pinned_duroxide_version = Some(version("2.0.0"));
    bounded(second.ack(&forebay, &turn.token)).await.expect("it is acknowledged");

    for reopened in [false, true] {
        if reopened {
            forebay.close().expect("it closes");
            forebay = place.open(Options::default());
        }
        enqueue(&forebay, raised("order", "bell")).await;
        assert!(fetch_with(&forebay, &one).await.is_none(), "reopened: {reopened}");
        let turn = fetch_with(&forebay, &two).await.expect("it is pinned to 2.0.0");
        bounded(forebay.abandon_orchestration_item(&turn.token, None, true)).await.expect("it is put back");
    }
    let turn = fetch_with(&forebay, &two).await.expect("it is there");
    bounded(Turn::starting("order", 3).ack(&forebay, &turn.token)).await.expect("it is acknowledged");
    enqueue(&forebay, raised("order", "bell")).await;
    assert!(fetch_with(&forebay, &three).await.is_some(), "pinned to nothing");
}
