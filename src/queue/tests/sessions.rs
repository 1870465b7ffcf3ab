//! The rules of sessions that the model of `Work` does not reach.

use super::super::sessions::Sessions;
use super::*;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn a_claim_made_again_has_its_new_deadline_alone() {
    let (mut sessions, session, owner) = (Sessions::default(), "session".into(), "worker".into());
    sessions.claim(&session, &owner, ms(50), ms(0), 1);
    sessions.claim(&session, &owner, ms(80), ms(10), 2);
    assert_eq!(sessions.next_deadline(), Some(ms(80)));
    assert_eq!(sessions.pop_expired(ms(79)), None);
    assert_eq!(sessions.owner("session"), Some(Arc::clone(&owner)));
    assert_eq!(sessions.pop_expired(ms(80)), Some((session, owner)));
    assert_eq!((sessions.owner("session"), sessions.next_deadline()), (None, None));
}

#[test]
fn only_the_grant_that_claimed_a_session_gives_it_back() {
    let (mut sessions, session, owner) = (Sessions::default(), "session".into(), "worker".into());
    sessions.claim(&session, &owner, ms(50), ms(0), 1);
    assert_eq!(sessions.unclaim(&session, 2), None, "another grant");
    assert_eq!(sessions.owner("session"), Some(Arc::clone(&owner)));
    assert_eq!(sessions.unclaim(&session, 1), Some(Arc::clone(&owner)));
    assert_eq!((sessions.owner("session"), sessions.next_deadline()), (None, None));

    sessions.claim(&session, &owner, ms(50), ms(0), 3);
    assert_eq!(sessions.renew(&["worker".into()], ms(90), ms(1000), ms(0)), 1);
    assert_eq!(sessions.unclaim(&session, 3), None, "extended since, so somebody works on it");
}

#[test]
fn a_session_that_ran_out_is_counted_by_one_sweep_and_cannot_be_touched() {
    let (mut sessions, session, owner) = (Sessions::default(), "session".into(), "worker".into());
    sessions.claim(&session, &owner, ms(50), ms(0), 1);
    assert_eq!(sessions.sweep(), 0, "still owned");
    sessions.pop_expired(ms(50)).expect("it ran out");
    sessions.touch("session", ms(50));
    assert_eq!(sessions.renew(&["worker".into()], ms(90), ms(1000), ms(50)), 0);
    assert_eq!(sessions.sweep(), 1);
    assert_eq!(sessions.sweep(), 0);
}

#[test]
fn a_session_nobody_claimed_is_forgotten_with_its_last_item() {
    let mut sessions = Sessions::default();
    sessions.add_item(&mut "session".into());
    sessions.add_item(&mut "session".into());
    sessions.set_ready("session", 7, true);
    sessions.remove_item("session");
    assert_eq!(sessions.ready_items("session"), [7], "one item is left");
    sessions.remove_item("session");
    assert_eq!(sessions.sweep(), 0, "nothing is left to sweep");
}

#[test]
fn the_last_grant_given_back_takes_the_claim_along() {
    let (mut sessions, session, owner) = (Sessions::default(), "session".into(), "worker".into());
    sessions.claim(&session, &owner, ms(50), ms(0), 1);
    sessions.claim(&session, &owner, ms(60), ms(10), 2);
    assert_eq!(sessions.unclaim(&session, 1), None, "the other may be at work");
    assert_eq!(sessions.unclaim(&session, 2), Some(Arc::clone(&owner)));

    sessions.claim(&session, &owner, ms(50), ms(0), 3);
    sessions.claim(&session, &owner, ms(60), ms(10), 4);
    sessions.set_tried("session", Some(1));
    assert_eq!(sessions.unclaim(&session, 3), None);
    sessions.set_tried("session", Some(4));
    assert_eq!(sessions.unclaim(&session, 4), None, "it has been worked on");
    assert_eq!(sessions.owner("session"), Some(owner));
}

#[test]
fn a_renewal_is_for_the_owners_named_and_a_forgotten_place_for_another_session() {
    let (mut sessions, [left, right]) = (Sessions::default(), ["left", "right"].map(Arc::<str>::from));
    for n in 0..40u64 {
        let (session, owner) = (format!("session-{n}").into(), if n < 30 { &left } else { &right });
        sessions.claim(&session, owner, ms(50 + n), ms(n), n);
    }
    assert_eq!(sessions.renew(&["right".into(), "right".into()], ms(200), ms(1_000), ms(40)), 10);
    assert_eq!(sessions.renew(&["left".into()], ms(100), ms(20), ms(40)), 9, "the others are idle");
    assert_eq!(sessions.renew(&["nobody".into()], ms(100), ms(1_000), ms(40)), 0);
    let expired: Vec<_> = std::iter::from_fn(|| sessions.pop_expired(ms(99))).collect();
    assert_eq!(expired.len(), 21);
    assert!(expired.iter().all(|(_, owner)| *owner == left));
    assert_eq!(sessions.sweep(), 21);
    sessions.claim(&"another".into(), &left, ms(150), ms(99), 100);
    assert_eq!(sessions.owner("another"), Some(Arc::clone(&left)));
    assert_eq!(sessions.owner("session-0"), None);
    assert_eq!(std::iter::from_fn(|| sessions.pop_expired(ms(100))).count(), 9);
    assert_eq!(sessions.next_deadline(), Some(ms(150)));
    sessions.pop_expired(ms(150)).expect("the other");
    assert_eq!(std::iter::from_fn(|| sessions.pop_expired(ms(200))).count(), 10);
    assert_eq!((sessions.sweep(), sessions.next_deadline()), (20, None));
}
