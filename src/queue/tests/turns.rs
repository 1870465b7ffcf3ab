//! The rules of turns that its model does not reach: instances without rows, leases after a rebuild, removal, rest.

use super::super::turns::RESTING_MAX;
use super::*;

/// The wall clock of these tests, in milliseconds.
const NOW_MS: u64 = 1_000;

fn push(turns: &mut Turns, no: InstanceNo, id: MessageId, kind: MessageKind, visible_at_ms: u64) {
    turns.push(no, id, Message { visible_at_ms, attempt: 0, kind, body: None }, now(NOW_MS));
}

fn row(runnable: bool) -> InstanceRow {
    InstanceRow {
        key: 1,
        name: None,
        version: None,
        execution: 2,
        pinned: None,
        has_execution: true,
        has_kv: false,
        runnable,
        last_event: Some(9),
    }
}

/// Makes known one instance after the other that rests at once.
fn flood(turns: &mut Turns, instances: usize) {
    for n in 0..instances {
        let no = turns.instance(&format!("flood-{n}"));
        turns.set_standing(no, Standing::Absent);
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
    for standing in [Standing::Absent, Standing::Present(Arc::new(row(false)))] {
        for (kinds, runs, orphaned) in cases {
            let mut turns = Turns::default();
            turns.instance("another one");
            let no = turns.instance("instance");
            for (id, kind) in (1..).zip(kinds) {
                push(&mut turns, no, id, *kind, VISIBLE);
            }
            assert_eq!(turns.next_unread(), Some(no));
            assert!(turns.has_candidates(), "{kinds:?}: nobody has looked yet");
            turns.set_standing(no, standing.clone());
            assert_eq!(turns.next_unread(), None);
            assert_eq!(turns.pick(|_| true), runs.then_some(no), "{kinds:?}");
            assert_eq!(turns.has_candidates(), runs || orphaned, "{kinds:?}");
            let ids: Vec<MessageId> = (1..).take(kinds.len()).collect();
            let orphans = turns.take_orphans();
            let orphans = orphans.map(|(no, messages)| (no, messages.into_keys().collect::<Vec<_>>()));
            assert_eq!(orphans, orphaned.then_some((no, ids)), "{kinds:?}");
            assert_eq!(turns.len(), if orphaned { 0 } else { kinds.len() }, "{kinds:?}");
            assert!(turns.take_orphans().is_none());
        }
    }
}

#[test]
fn a_lease_that_stands_again_leaves_the_messages_where_they_are() {
    let mut turns = Turns::default();
    turns.instance("another one");
    let no = turns.instance("instance");
    for id in 1..=5 {
        push(&mut turns, no, id, MessageKind::Other, VISIBLE);
    }
    turns.lease_nothing(no, 7);
    assert_eq!((turns.lease_of(no), turns.len()), (Some(7), 5));
    assert!(!turns.has_candidates(), "under a lease there is no other turn");
    turns.release(no);
    assert_eq!((turns.lease_of(no), turns.next_unread()), (None, Some(no)));
}

#[test]
fn a_message_that_is_taken_had_never_come() {
    let mut turns = Turns::default();
    let no = turns.instance("instance");
    push(&mut turns, no, 1, MessageKind::Other, VISIBLE);
    push(&mut turns, no, 2, MessageKind::Other, NOW_MS + 5);
    assert!(turns.take_message(no, 3).is_none());
    assert_eq!(turns.take_message(no, 2).map(|message| message.visible_at_ms), Some(NOW_MS + 5));
    assert_eq!((turns.len(), turns.next_due_ms()), (1, None));
    assert!(turns.take_message(no, 1).is_some());
    assert_eq!((turns.len(), turns.next_unread()), (0, None));
}

#[test]
fn an_instance_that_is_reinstated_has_its_number_again() {
    let mut turns = Turns::default();
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
    for standing in [Standing::Unread, Standing::Absent, Standing::Present(Arc::new(row(true)))] {
        let mut turns = Turns::default();
        turns.instance("another one");
        let no = turns.instance("instance");
        turns.set_standing(no, standing);
        push(&mut turns, no, 1, MessageKind::Event, VISIBLE);
        push(&mut turns, no, 2, MessageKind::Event, NOW_MS + 1);
        assert_eq!((turns.len(), turns.next_due_ms()), (2, Some(NOW_MS + 1)));
        assert_eq!(turns.remove(no).into_keys().collect::<Vec<_>>(), [1, 2]);
        assert_eq!((turns.len(), turns.next_due_ms(), turns.find("instance")), (0, None, None));
        assert!(!turns.has_candidates() && turns.id(no).is_none() && turns.lease_of(no).is_none());
        assert_eq!(turns.standing(no), &Standing::Unread);
        assert_ne!(turns.instance("instance"), no, "a number is never used again");
    }
}

#[test]
fn what_has_fallen_due_stays_visible_when_the_clock_is_set_back() {
    let mut turns = Turns::default();
    let no = turns.instance("instance");
    push(&mut turns, no, 1, MessageKind::Other, NOW_MS + 5);
    turns.promote(now(NOW_MS + 4));
    assert_eq!(turns.next_unread(), None);
    turns.promote(now(NOW_MS + 5));
    assert_eq!(turns.next_unread(), Some(no));
    let held = turns.lease(no, 1);
    assert_eq!(held[&1].visible_at_ms, VISIBLE);
}

#[test]
fn what_is_known_of_an_instance_is_what_was_said_last() {
    let mut turns = Turns::default();
    let (first, second) = (turns.instance("first"), turns.instance("second"));
    assert_eq!((turns.instance("second"), turns.find("second")), (second, Some(second)));
    assert_ne!(first, second);
    turns.set_standing(second, Standing::Present(Arc::new(row(true))));
    assert_eq!(turns.standing(second), &Standing::Present(Arc::new(row(true))));
    assert_eq!(turns.standing(first), &Standing::Unread);
}

#[test]
fn the_last_event_is_that_of_the_present_execution_alone() {
    assert_eq!((row(true).last_event_of(2), row(true).last_event_of(1)), (Some(9), None));
}

#[test]
fn as_many_instances_rest_as_may_and_the_next_one_sends_away_the_oldest() {
    let mut turns = Turns::default();
    flood(&mut turns, RESTING_MAX);
    assert!(turns.find("flood-0").is_some(), "there is room");
    let last = turns.instance("one too many");
    turns.set_standing(last, Standing::Absent);
    assert!(turns.find("flood-0").is_none() && turns.find("flood-1").is_some());
}

#[test]
fn what_has_work_is_not_at_rest() {
    let mut turns = Turns::default();
    let [leased, visible, delayed] = ["leased", "visible", "delayed"].map(|id| turns.instance(id));
    // All three rest first, and wake up then.
    for no in [leased, visible, delayed] {
        turns.set_standing(no, Standing::Absent);
    }
    turns.lease(leased, 1);
    push(&mut turns, visible, 1, MessageKind::Other, VISIBLE);
    push(&mut turns, delayed, 2, MessageKind::Other, NOW_MS + 1);
    flood(&mut turns, RESTING_MAX);
    for no in [leased, visible, delayed] {
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
    let mut turns = Turns::default();
    let oldest = turns.instance("oldest");
    for _ in 0..=RESTING_MAX {
        turns.set_standing(oldest, Standing::Absent);
    }
    assert!(turns.find("oldest").is_some());
}
