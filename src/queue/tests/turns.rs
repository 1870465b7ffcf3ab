//! The rules of turns that its model does not reach: instances without rows, leases after a rebuild, removal, rest.

use super::super::delayed::Delayed;
use super::super::turns::RESTING_MAX;
use super::*;

/// The wall clock of these tests, in milliseconds.
const NOW_MS: u64 = 1_000;

fn push(turns: &mut Turns<Rows>, no: InstanceNo, id: MessageId, kind: MessageKind, visible_at_ms: u64) {
    turns.push(no, id, Message { visible_at_ms, attempt: 0, kind, body: None }, now(NOW_MS));
}

fn row(is_runnable: bool) -> Rows {
    Rows { is_runnable, pinned: None }
}

/// Makes known one instance after the other that rests at once.
fn flood(turns: &mut Turns<Rows>, instances: usize) {
    for n in 0..instances {
        let no = turns.instance(&format!("flood-{n}"));
        turns.set_rows(no, RowCache::Absent);
    }
}

#[test]
fn an_instance_without_rows_runs_on_its_start_and_on_nothing_else() {
    use MessageKind::{Event, Other, Start};
    let cases: [(&[MessageKind], bool, bool); 6] = [
        (&[Start], true, false),
        (&[Event, Start], true, false),
        (&[Other, Event, Start], true, false),
        (&[Other], false, false),
        (&[Event, Other], false, false),
        (&[Event, Event], false, true),
    ];
    for rows in [RowCache::Absent, RowCache::Present(row(false))] {
        for (kinds, runs, orphaned) in cases {
            let mut turns = Turns::<Rows>::default();
            turns.instance("another one");
            let no = turns.instance("instance");
            for (id, kind) in (1..).zip(kinds) {
                push(&mut turns, no, id, *kind, VISIBLE);
            }
            assert_eq!(turns.next(|_| true), Next::Unread(no));
            assert!(turns.has_candidates(), "{kinds:?}: nobody has looked yet");
            turns.set_rows(no, rows.clone());
            let next = match (runs, orphaned) {
                (true, _) => Next::Ready(no),
                (_, true) => Next::Orphaned(no),
                _ => Next::Nothing,
            };
            assert_eq!(turns.next(|_| true), next, "{kinds:?}");
            assert_eq!(turns.next(|_| false), Next::Nothing, "{kinds:?}");
            assert_eq!(turns.has_candidates(), runs || orphaned, "{kinds:?}");
            let ids: Vec<MessageId> = (1..).take(kinds.len()).collect();
            assert_eq!(turns.len(), ids.len());
            assert_eq!(turns.take_visible(no).into_keys().collect::<Vec<_>>(), ids);
            assert_eq!((turns.len(), turns.next(|_| true)), (0, Next::Nothing));
        }
    }
}

#[test]
fn queued_events_without_a_start_wait_for_what_is_older() {
    let mut turns = Turns::<Rows>::default();
    let [lost, older] = ["lost", "older"].map(|id| turns.instance(id));
    push(&mut turns, older, 1, MessageKind::Start, VISIBLE);
    push(&mut turns, lost, 2, MessageKind::Event, VISIBLE);
    for no in [lost, older] {
        turns.set_rows(no, RowCache::Absent);
    }
    assert_eq!(turns.next(|_| true), Next::Ready(older));
    turns.lease(older, 1);
    assert_eq!(turns.next(|_| true), Next::Orphaned(lost));
    push(&mut turns, lost, 3, MessageKind::Start, VISIBLE);
    assert_eq!(turns.next(|_| true), Next::Ready(lost), "its start came in time");
}

#[test]
fn an_instance_is_looked_at_when_it_would_be_next_and_not_before() {
    let mut turns = Turns::<Rows>::default();
    let numbers: Vec<InstanceNo> = (0..1_000).map(|n| turns.instance(&format!("instance-{n}"))).collect();
    for (id, no) in (1..).zip(&numbers) {
        push(&mut turns, *no, id, MessageKind::Start, VISIBLE);
    }
    assert_eq!(turns.take_newly_unread(), 1_000);
    for (granted, no) in numbers.iter().take(10).enumerate() {
        assert_eq!(turns.next(|_| true), Next::Unread(*no));
        turns.set_rows(*no, RowCache::Absent);
        assert_eq!(turns.next(|_| true), Next::Ready(*no));
        turns.lease(*no, 1);
        assert_eq!(turns.unread(), 1_000 - granted - 1, "no other was looked at");
    }
    assert_eq!(turns.take_newly_unread(), 0);
}

#[test]
fn news_is_what_makes_an_instance_a_candidate_and_nothing_else() {
    let mut turns = Turns::<Rows>::default();
    let no = turns.instance("instance");
    turns.set_rows(no, RowCache::Absent);
    assert!(!turns.take_news());
    push(&mut turns, no, 1, MessageKind::Other, VISIBLE);
    push(&mut turns, no, 2, MessageKind::Event, NOW_MS + 1);
    assert!(!turns.take_news(), "neither makes it run");
    push(&mut turns, no, 3, MessageKind::Start, VISIBLE);
    assert!(turns.take_news() && !turns.take_news());
    push(&mut turns, no, 4, MessageKind::Event, VISIBLE);
    assert!(!turns.take_news(), "it was one already");
    let held = turns.lease(no, 1);
    assert!(!turns.take_news());
    turns.release(no);
    for (id, message) in held {
        turns.push(no, id, message, now(NOW_MS));
    }
    assert!(turns.take_news());
    turns.set_rows(no, RowCache::Present(row(true)));
    turns.set_rows(no, RowCache::Unread);
    assert!(turns.take_news());
}

#[test]
fn a_delayed_message_makes_no_instance_known() {
    let mut turns = Turns::<Rows>::default();
    turns.delay("instance", 1, NOW_MS + 2);
    turns.delay_all(&[(turns.hash("instance"), 2, NOW_MS + 1), (turns.hash("other"), 3, NOW_MS + 1)]);
    assert_eq!((turns.known(), turns.len(), turns.next_due_ms()), (0, 3, Some(NOW_MS + 1)));
    assert_eq!(turns.delayed_of("instance"), [1, 2]);
    assert_eq!(turns.pop_due(now(NOW_MS)), None);
    assert_eq!(turns.pop_due(now(NOW_MS + 1)), Some((turns.hash("instance"), 2)));
    assert_eq!(turns.take_delayed("instance", 1), Some(NOW_MS + 2));
    assert_eq!((turns.take_delayed("instance", 1), turns.take_delayed("other", 2)), (None, None));
    assert_eq!((turns.len(), turns.delayed_of("instance"), turns.delayed_of("other")), (1, vec![], vec![3]));
}

#[test]
fn messages_of_instances_with_one_hash_are_told_apart_by_their_ids_alone() {
    let mut delayed = Delayed::default();
    delayed.extend(&[(7, 1, 50), (7, 2, 50), (8, 3, 40)]);
    assert_eq!(delayed.of(7).collect::<Vec<_>>(), [1, 2]);
    assert_eq!((delayed.remove(7, 1), delayed.remove(8, 1)), (Some(50), None));
    assert_eq!((delayed.len(), delayed.next_due_ms()), (2, Some(40)));
    assert_eq!(
        [delayed.pop_due(50), delayed.pop_due(50), delayed.pop_due(50)],
        [Some((8, 3)), Some((7, 2)), None]
    );
    assert_eq!((delayed.len(), delayed.of(7).count()), (0, 0));
}

#[test]
fn a_lease_that_stands_again_leaves_the_messages_where_they_are() {
    let mut turns = Turns::<Rows>::default();
    turns.instance("another one");
    let no = turns.instance("instance");
    for id in 1..=5 {
        push(&mut turns, no, id, MessageKind::Other, VISIBLE);
    }
    turns.lease_nothing(no, 7);
    assert_eq!((turns.lease_of(no), turns.len()), (Some(7), 5));
    assert!(!turns.has_candidates(), "under a lease there is no other turn");
    turns.release(no);
    assert_eq!((turns.lease_of(no), turns.next(|_| true)), (None, Next::Unread(no)));
}

#[test]
fn a_message_that_is_taken_had_never_come() {
    let mut turns = Turns::<Rows>::default();
    let no = turns.instance("instance");
    push(&mut turns, no, 1, MessageKind::Other, VISIBLE);
    push(&mut turns, no, 2, MessageKind::Start, VISIBLE);
    assert!(turns.take_message(no, 3).is_none());
    turns.set_rows(no, RowCache::Absent);
    assert_eq!(turns.next(|_| true), Next::Ready(no));
    assert!(turns.take_message(no, 2).is_some());
    assert_eq!((turns.len(), turns.next(|_| true)), (1, Next::Nothing));
    assert!(turns.take_message(no, 1).is_some());
    assert_eq!(turns.len(), 0);
}

#[test]
fn an_instance_that_is_reinstated_has_its_number_again() {
    let mut turns = Turns::<Rows>::default();
    let no = turns.instance("instance");
    let id = turns.id(no).cloned().unwrap();
    push(&mut turns, no, 1, MessageKind::Other, VISIBLE);
    turns.remove(no);
    let successor = turns.instance("instance");
    turns.reinstate(no, &id);
    assert_eq!((turns.find("instance"), turns.id(successor)), (Some(no), None));
    push(&mut turns, no, 2, MessageKind::Other, VISIBLE);
    turns.reinstate(no, &id);
    assert_eq!(turns.len(), 1, "one that is known stays as it is");
}

#[test]
fn a_removed_instance_gives_back_its_messages_and_is_listed_nowhere() {
    for rows in [RowCache::Unread, RowCache::Absent, RowCache::Present(row(true))] {
        let mut turns = Turns::<Rows>::default();
        turns.instance("another one");
        let no = turns.instance("instance");
        turns.set_rows(no, rows);
        push(&mut turns, no, 1, MessageKind::Event, VISIBLE);
        push(&mut turns, no, 2, MessageKind::Event, NOW_MS + 1);
        assert_eq!((turns.len(), turns.next_due_ms()), (2, Some(NOW_MS + 1)));
        assert_eq!(turns.remove(no).into_keys().collect::<Vec<_>>(), [1]);
        assert_eq!((turns.len(), turns.find("instance")), (1, None), "the delayed one is nobody's number's");
        assert!(!turns.has_candidates() && turns.id(no).is_none() && turns.lease_of(no).is_none());
        assert_eq!(turns.rows(no), &RowCache::Unread);
        assert_ne!(turns.instance("instance"), no, "a number is never used again");
    }
}

#[test]
fn what_was_due_when_it_came_stays_visible_when_the_clock_is_set_back() {
    let mut turns = Turns::<Rows>::default();
    let no = turns.instance("instance");
    push(&mut turns, no, 1, MessageKind::Other, NOW_MS);
    let held = turns.lease(no, 1);
    assert_eq!(held[&1].visible_at_ms, VISIBLE);
}

#[test]
fn what_is_known_of_an_instance_is_what_was_said_last() {
    let mut turns = Turns::<Rows>::default();
    let (first, second) = (turns.instance("first"), turns.instance("second"));
    assert_eq!((turns.instance("second"), turns.find("second")), (second, Some(second)));
    assert_ne!(first, second);
    turns.set_rows(second, RowCache::Present(row(true)));
    assert_eq!(turns.rows(second), &RowCache::Present(row(true)));
    assert_eq!(turns.rows(first), &RowCache::Unread);
}

#[test]
fn the_last_event_is_that_of_the_present_execution_alone() {}

#[test]
fn as_many_instances_rest_as_may_and_the_next_one_sends_away_the_oldest() {
    let mut turns = Turns::<Rows>::default();
    flood(&mut turns, RESTING_MAX);
    assert!(turns.find("flood-0").is_some(), "there is room");
    let last = turns.instance("one too many");
    turns.set_rows(last, RowCache::Absent);
    assert!(turns.find("flood-0").is_none() && turns.find("flood-1").is_some());
}

#[test]
fn what_has_work_is_not_at_rest() {
    let mut turns = Turns::<Rows>::default();
    let [leased, visible] = ["leased", "visible"].map(|id| turns.instance(id));
    // Both rest first, and wake up then.
    for no in [leased, visible] {
        turns.set_rows(no, RowCache::Absent);
    }
    turns.lease(leased, 1);
    push(&mut turns, visible, 1, MessageKind::Other, VISIBLE);
    flood(&mut turns, RESTING_MAX);
    for no in [leased, visible] {
        assert!(turns.id(no).is_some(), "{no}");
    }
    // At rest again, it goes when its time comes: behind those that rested before it.
    turns.release(leased);
    assert!(turns.find("leased").is_some() && turns.find("flood-0").is_none());
    flood(&mut turns, 2 * RESTING_MAX);
    assert!(turns.find("leased").is_none() && turns.find("visible").is_some());
}

#[test]
fn an_instance_that_rests_is_in_the_list_once_however_often_it_is_looked_at() {
    let mut turns = Turns::<Rows>::default();
    let oldest = turns.instance("oldest");
    for _ in 0..=RESTING_MAX {
        turns.set_rows(oldest, RowCache::Absent);
    }
    assert!(turns.find("oldest").is_some());
}
