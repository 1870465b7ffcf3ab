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
    let (mut sessions, session) = (Sessions::default(), "session".into());
    sessions.add_item(&session);
    sessions.add_item(&session);
    sessions.set_ready("session", 7, true);
    sessions.remove_item("session");
    assert_eq!(sessions.ready_items("session"), [7], "one item is left");
    sessions.remove_item("session");
    assert_eq!(sessions.sweep(), 0, "nothing is left to sweep");
}
