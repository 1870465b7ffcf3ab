//! Waiting fetches are given what a walk through all of them would give, and looking for it does not cost
//! what waits. Steps are counted, not time.

use super::*;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn item(id: WorkId, session: Option<&str>, tag: Option<&str>) -> WorkEntry {
    let (session, tag) = (session.map(String::from), tag.map(String::from));
    entry(id, &ModelItem { session, tag, visible_at_ms: VISIBLE, attempt: 0, lease: None })
}

fn wants(owner: Option<&str>, tags: TagFilter) -> Wants {
    Wants { owner: owner.map(Arc::from), tags }
}

/// A fetch waits for an hour; the test has no more to say than its number.
fn park(fetches: &mut WorkFetches<FetchNo>, no: FetchNo, owner: Option<&str>, tags: TagFilter) {
    fetches.park(no, ms(3_600_000), wants(owner, tags), no);
}

/// What the engine does with a batch: everybody who can be served is, and leases what they get.
fn serve(fetches: &mut WorkFetches<FetchNo>, work: &mut Work, now_ms: u64) -> Vec<(FetchNo, WorkId)> {
    let mut served = Vec::new();
    while let Some((wants, no, id)) = fetches.next_match(work, ms(now_ms), |_| false) {
        let session = wants.owner.as_ref().map(|owner| (owner, ms(now_ms + 1_000)));
        work.lease(id, id as LeaseNo, session, now(now_ms)).unwrap();
        served.push((no, id));
    }
    served
}

#[test]
fn ten_thousand_fetches_beside_an_item_nobody_may_take_cost_a_batch_nothing() {
    let (mut work, mut fetches) = (Work::default(), WorkFetches::default());
    for no in 0..10_000 {
        let owner = format!("worker-{no}");
        park(&mut fetches, no, (no % 2 == 0).then_some(owner.as_str()), TagFilter::DefaultOnly);
    }
    work.push(1, item(1, None, Some("tpu")), now(0));
    assert_eq!(serve(&mut fetches, &mut work, 0), []);
    let before = fetches.looks;
    for id in 2..102 {
        work.push(id, item(id, None, Some("tpu")), now(0));
        assert_eq!(serve(&mut fetches, &mut work, 0), []);
    }
    assert!(fetches.looks - before <= 200, "{} looks for 100 batches", fetches.looks - before);
    let before = fetches.looks;
    for id in 200..300 {
        work.push(id, item(id, None, None), now(0));
        assert_eq!(serve(&mut fetches, &mut work, 0), [(id as FetchNo - 200, id)]);
    }
    assert!(fetches.looks - before <= 500, "{} looks for 100 grants", fetches.looks - before);
}

#[test]
fn a_hundred_thousand_items_nobody_may_take_cost_a_fetch_nothing() {
    let (mut work, mut fetches) = (Work::default(), WorkFetches::default());
    for id in 1..100_000 {
        let (session, tag) = (format!("session-{id}"), format!("tag-{id}"));
        work.push(id, item(id, (id % 2 == 0).then_some(session.as_str()), Some(&tag)), now(0));
    }
    assert_eq!(serve(&mut fetches, &mut work, 0), [], "nobody waits");
    for no in 0..100 {
        park(&mut fetches, no, Some("worker"), TagFilter::DefaultOnly);
        assert_eq!(serve(&mut fetches, &mut work, 0), []);
        park(&mut fetches, 1_000 + no, Some("worker"), TagFilter::Any);
        assert_eq!(serve(&mut fetches, &mut work, 0), [(1_000 + no, 1 + no as WorkId)]);
    }
    assert!(fetches.looks <= 1_000, "{} looks for 200 fetches", fetches.looks);
}

/// One batch brings many items for many fetches: each pair is found with a few looks.
#[test]
fn a_thousand_items_for_a_thousand_fetches() {
    let (mut work, mut fetches) = (Work::default(), WorkFetches::default());
    for no in 0..1_000 {
        park(&mut fetches, no, None, TagFilter::DefaultOnly);
    }
    assert_eq!(serve(&mut fetches, &mut work, 0), []);
    let before = fetches.looks;
    for id in 0..1_000 {
        work.push(id, item(id, None, None), now(0));
    }
    let expected: Vec<_> = (0..1_000).map(|n| (n as FetchNo, n)).collect();
    assert_eq!(serve(&mut fetches, &mut work, 0), expected);
    assert!(fetches.looks - before <= 3_000, "{} looks", fetches.looks - before);
}

#[test]
fn one_that_is_gone_is_passed_over_and_dropped_when_it_is_met() {
    let (mut work, mut fetches) = (Work::default(), WorkFetches::default());
    for no in 0..3 {
        park(&mut fetches, no, None, TagFilter::Any);
    }
    assert_eq!(serve(&mut fetches, &mut work, 0), []);
    park(&mut fetches, 3, None, TagFilter::Any);
    work.push(1, item(1, None, None), now(0));
    let matched = fetches.next_match(&mut work, ms(0), |no| *no != 2);
    assert_eq!(matched.map(|(_, no, id)| (no, id)), Some((2, 1)));
    assert!(fetches.take(0).is_none() && fetches.take(1).is_none(), "they were met");
    assert!(fetches.take(3).is_some(), "nobody got as far");
}

#[test]
fn without_a_session_a_fetch_waits_no_longer_than_a_poll_beside_sessions_work() {
    let (mut work, mut fetches) = (Work::default(), WorkFetches::default());
    work.push(1, item(1, Some("cart"), None), now(0));
    park(&mut fetches, 1, None, TagFilter::DefaultOnly);
    park(&mut fetches, 2, None, TagFilter::tags(["gpu"]));
    park(&mut fetches, 3, Some("busy"), TagFilter::tags(["gpu"]));
    assert_eq!(serve(&mut fetches, &mut work, 10), []);
    assert_eq!(fetches.next_deadline(), Some(ms(110)), "its next may be with one");
    assert_eq!(fetches.pop_unserved(ms(109), false), None);
    assert_eq!(fetches.pop_unserved(ms(110), false), Some(1));
    assert_eq!(fetches.next_deadline(), Some(ms(3_600_000)), "the tag is not theirs");

    // Work that arrives later, too; and whoever waits for less than that anyway still does.
    fetches.park(4, ms(220), wants(None, TagFilter::Any), 4);
    fetches.park(5, ms(3_600_000), wants(None, TagFilter::default_and(["gpu"])), 5);
    work.remove(1);
    assert_eq!(serve(&mut fetches, &mut work, 150), []);
    assert_eq!(fetches.next_deadline(), Some(ms(220)));
    work.push(2, item(2, Some("cart"), Some("gpu")), now(150));
    assert_eq!(serve(&mut fetches, &mut work, 150), [(3, 2)], "it has its worker");
    assert_eq!(fetches.next_deadline(), Some(ms(220)), "nothing is left");
    work.push(3, item(3, Some("cart"), Some("gpu")), now(150));
    assert_eq!(serve(&mut fetches, &mut work, 150), []);
    assert_eq!(fetches.pop_unserved(ms(249), false), Some(4));
    assert_eq!(fetches.pop_unserved(ms(249), false), None);
    assert_eq!(fetches.pop_unserved(ms(250), false), Some(2));
    assert_eq!(fetches.pop_unserved(ms(250), false), Some(5));
    assert_eq!(fetches.next_deadline(), None);
}

#[test]
fn drained_fetches_come_in_order_and_leave_nothing_behind() {
    let (mut work, mut fetches) = (Work::default(), WorkFetches::default());
    park(&mut fetches, 2, Some("worker"), TagFilter::Any);
    park(&mut fetches, 1, None, TagFilter::Any);
    assert_eq!(serve(&mut fetches, &mut work, 0), []);
    park(&mut fetches, 3, None, TagFilter::Any);
    assert_eq!(fetches.drain().collect::<Vec<_>>(), [1, 2, 3]);
    assert!(!fetches.holds() && fetches.next_deadline().is_none());
    work.push(1, item(1, None, None), now(0));
    assert_eq!(serve(&mut fetches, &mut work, 0), []);
}

#[derive(Debug, Clone)]
enum Move {
    Push { session: Option<u8>, tag: Option<u8>, delay_ms: u64 },
    Park { owner: Option<u8>, tags: u8 },
    Drop { pick: usize },
    GiveBack { pick: usize },
    Acknowledge { pick: usize },
    Advance { ms: u64 },
    Serve,
}

fn one_move() -> impl Strategy<Value = Move> {
    let delay = prop_oneof![3 => Just(0u64), 1 => 1u64..200];
    let small = || proptest::option::weighted(0.5, 0u8..3);
    prop_oneof![
        4 => (small(), small(), delay).prop_map(|(session, tag, delay_ms)| Move::Push { session, tag, delay_ms }),
        4 => (small(), 0u8..8).prop_map(|(owner, tags)| Move::Park { owner, tags }),
        1 => any::<usize>().prop_map(|pick| Move::Drop { pick }),
        1 => any::<usize>().prop_map(|pick| Move::GiveBack { pick }),
        2 => any::<usize>().prop_map(|pick| Move::Acknowledge { pick }),
        1 => (1u64..1_500).prop_map(|ms| Move::Advance { ms }),
        6 => Just(Move::Serve),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// `Work::pick` is compared with a scan of the items elsewhere; here the walk over the fetches is.
    #[test]
    fn fetches_are_served_as_by_a_walk_through_all_of_them(moves in vec(one_move(), 1..200)) {
        let (mut work, mut fetches) = (Work::default(), WorkFetches::default());
        // The same items and leases, and the fetches in a list.
        let (mut walked, mut waiting) = (Work::default(), BTreeMap::<FetchNo, (Option<String>, TagFilter)>::new());
        let (mut now_ms, mut leased) = (1_000, Vec::new());
        for (no, step) in (1u64..).zip(moves) {
            match step {
                Move::Push { session, tag, delay_ms } => {
                    let (session, tag) = (session.map(|n| format!("session-{n}")), tag.map(|n| format!("tag-{n}")));
                    let model = ModelItem { session, tag, visible_at_ms: now_ms + delay_ms, attempt: 0, lease: None };
                    work.push(no as WorkId, entry(no as WorkId, &model), now(now_ms));
                    walked.push(no as WorkId, entry(no as WorkId, &model), now(now_ms));
                }
                Move::Park { owner, tags } => {
                    let owner = owner.map(|n| format!("worker-{n}"));
                    // Numbers are taken before a fetch is submitted, so they may arrive in another order.
                    let no = no ^ 1;
                    park(&mut fetches, no, owner.as_deref(), filter(tags));
                    waiting.insert(no, (owner, filter(tags)));
                }
                Move::Drop { pick } => {
                    let nos: Vec<FetchNo> = waiting.keys().copied().collect();
                    if nos.is_empty() { continue }
                    let no = nos[pick % nos.len()];
                    prop_assert!(waiting.remove(&no).is_some() && fetches.take(no).is_some());
                }
                Move::GiveBack { pick } => {
                    if leased.is_empty() { continue }
                    let id = leased.swap_remove(pick % leased.len());
                    work.give_back(id, None, true, now(now_ms));
                    walked.give_back(id, None, true, now(now_ms));
                }
                Move::Acknowledge { pick } => {
                    if leased.is_empty() { continue }
                    let id = leased.swap_remove(pick % leased.len());
                    for work in [&mut work, &mut walked] {
                        work.touch_session(id, now(now_ms));
                        work.remove(id);
                    }
                }
                Move::Advance { ms } => {
                    now_ms += ms;
                    work.promote(now(now_ms));
                    walked.promote(now(now_ms));
                }
                Move::Serve => {
                    let mut expected = Vec::new();
                    for (no, (owner, tags)) in &waiting {
                        let Some(id) = walked.pick(owner.as_deref(), tags) else { continue };
                        let owner: Option<Arc<str>> = owner.as_deref().map(Arc::from);
                        let session = owner.as_ref().map(|owner| (owner, ms(now_ms + 1_000)));
                        walked.lease(id, id as LeaseNo, session, now(now_ms)).unwrap();
                        expected.push((*no, id));
                    }
                    prop_assert_eq!(&serve(&mut fetches, &mut work, now_ms), &expected);
                    for (no, id) in expected {
                        waiting.remove(&no);
                        leased.push(id);
                    }
                    // Nobody without a session is kept waiting beside what only one with a session may have.
                    let soon = now_ms + 100;
                    for (no, (owner, tags)) in &waiting {
                        let hurried = fetches.deadline(*no).unwrap() <= ms(soon);
                        prop_assert!(hurried || owner.is_some() || !work.waits_in_session(tags));
                    }
                }
            }
        }
    }
}
