//! The rules of parked fetches: walked in order, told "nothing" at their deadline, held when that may be untrue.

use super::*;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Three fetches; the second one's time is up first.
fn parked() -> Parked<&'static str> {
    let mut parked = Parked::default();
    parked.park(1, ms(100), "first");
    parked.park(2, ms(50), "second");
    parked.park(3, ms(100), "third");
    parked
}

#[test]
fn fetches_are_walked_in_the_order_they_were_made_while_some_are_taken() {
    let mut parked = parked();
    assert_eq!(parked.next_after(None), Some((1, &"first")));
    assert_eq!(parked.next_after(Some(1)), Some((2, &"second")));
    assert_eq!(parked.take(2), Some("second"));
    assert_eq!(parked.take(2), None);
    assert_eq!(parked.next_after(Some(1)), Some((3, &"third")));
    assert_eq!(parked.next_after(Some(2)), Some((3, &"third")));
    assert_eq!(parked.next_after(Some(3)), None);
    assert!(!parked.is_empty());
    assert_eq!((parked.take(1), parked.take(3)), (Some("first"), Some("third")));
    assert!(parked.is_empty() && parked.next_deadline().is_none());
}

#[test]
fn a_fetch_hears_of_nothing_at_its_deadline_and_not_before() {
    let mut parked = parked();
    assert_eq!(parked.next_deadline(), Some(ms(50)));
    assert_eq!(parked.pop_unserved(ms(49), false), None);
    assert_eq!(parked.pop_unserved(ms(50), false), Some("second"));
    assert_eq!(parked.pop_unserved(ms(50), false), None);
    assert_eq!(parked.pop_unserved(ms(100), false), Some("first"));
    assert_eq!(parked.pop_unserved(ms(100), false), Some("third"));
    assert_eq!((parked.pop_unserved(ms(100), false), parked.next_deadline()), (None, None));
    assert!(parked.is_empty());
}

#[test]
fn a_held_fetch_is_told_nothing_yet_and_can_still_be_served() {
    let mut parked = parked();
    assert!(!parked.holds());
    assert_eq!(parked.pop_unserved(ms(60), true), None);
    assert!(parked.holds());
    assert_eq!(parked.next_deadline(), Some(ms(100)), "its own deadline wakes nobody twice");
    assert_eq!(parked.next_after(Some(1)), Some((2, &"second")), "it keeps its place");
    assert_eq!(parked.take(2), Some("second"));
    assert!(!parked.holds());
    assert_eq!(parked.pop_unserved(ms(100), true), None);
    assert_eq!(parked.pop_unserved(ms(100), false), Some("first"), "no longer held");
}

#[test]
fn drained_fetches_come_in_order_and_leave_nothing_behind() {
    let mut parked = parked();
    assert_eq!(parked.pop_unserved(ms(60), true), None);
    assert_eq!(parked.drain().collect::<Vec<_>>(), ["first", "second", "third"]);
    assert!(parked.is_empty() && !parked.holds() && parked.next_deadline().is_none());
}
