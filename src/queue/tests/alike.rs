//! Fetches that are alike: one look answers for all of them, in the order in which they came.

use super::*;

const FETCHES: u64 = 10_000;

/// As many fetches as may wait, of two groups in turn.
fn many() -> ParkedAlike<&'static str, FetchNo> {
    let mut parked = ParkedAlike::default();
    for no in 0..FETCHES {
        parked.park(no, Duration::MAX, if no % 2 == 0 { "even" } else { "odd" }, no);
    }
    parked
}

/// Looks for each group that may be in for something, and finds nothing.
fn look_in_vain(parked: &mut ParkedAlike<&'static str, FetchNo>) -> u64 {
    let mut looks = 0;
    while let Some((no, _)) = parked.next_hopeful(None) {
        parked.found_nothing(no);
        looks += 1;
    }
    looks
}

#[test]
fn what_nobody_may_take_costs_a_look_a_group_however_many_wait() {
    let mut parked = many();
    assert_eq!(look_in_vain(&mut parked), 2);
    assert_eq!(look_in_vain(&mut parked), 0, "without news there is nothing to look for");
    parked.park(FETCHES, Duration::MAX, "even", FETCHES);
    assert_eq!(look_in_vain(&mut parked), 0, "who joins a group knows what it knows");
    parked.park(FETCHES + 1, Duration::MAX, "neither", FETCHES + 1);
    assert_eq!(look_in_vain(&mut parked), 1);
    parked.news();
    assert_eq!(look_in_vain(&mut parked), 3);
}

#[test]
fn the_first_to_come_is_served_first_whatever_its_group() {
    let mut parked = many();
    look_in_vain(&mut parked);
    parked.news();
    for no in 0..FETCHES {
        let (first, accepts) = parked.next_hopeful(None).expect("the next one of its group");
        assert_eq!((first, *accepts), (no, if no % 2 == 0 { "even" } else { "odd" }));
        assert_eq!(parked.take(first), Some(no));
    }
    assert!(parked.next_hopeful(None).is_none() && parked.len() == 0);
    parked.park(1, Duration::MAX, "even", 1);
    assert_eq!(parked.next_hopeful(None), Some((1, &"even")), "of what left with a group nothing is left");
}

#[test]
fn a_group_stands_where_its_first_fetch_does_when_fetches_come_out_of_order() {
    let mut parked = ParkedAlike::default();
    for no in [5, 3, 4] {
        parked.park(no, Duration::from_millis(no), "group", no);
    }
    parked.park(2, Duration::MAX, "other", 2);
    assert_eq!(parked.next_hopeful(None), Some((2, &"other")));
    assert_eq!(parked.next_hopeful(Some(2)), Some((3, &"group")));
    assert_eq!(parked.next_hopeful(Some(3)), None, "the others of its group follow it");
    assert_eq!(parked.pop_unserved(Duration::from_millis(3), false), Some(3));
    assert_eq!(parked.next_hopeful(Some(2)), Some((4, &"group")));
    parked.found_nothing(4);
    parked.park(1, Duration::MAX, "group", 1);
    assert_eq!(parked.next_hopeful(None), Some((2, &"other")), "nobody has brought news");
    assert_eq!(parked.drain().collect::<Vec<_>>(), [1, 2, 4, 5]);
    assert!(parked.len() == 0 && parked.next_hopeful(None).is_none());
}
