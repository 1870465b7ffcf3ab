//! The rules of leases: over at the deadline, moved by a renewal, ended once.

use super::*;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn a_lease_is_over_at_its_deadline_and_not_before() {
    let mut leases = Leases::default();
    leases.grant(1, ms(100), "first");
    leases.grant(2, ms(50), "second");
    assert_eq!(leases.next_deadline(), Some(ms(50)));
    assert_eq!(leases.pop_expired(ms(49)), None);
    assert_eq!(leases.pop_expired(ms(50)), Some((2, "second")));
    assert_eq!(leases.pop_expired(ms(50)), None);
    assert_eq!(leases.pop_expired(ms(200)), Some((1, "first")));
    assert_eq!(leases.next_deadline(), None);
}

#[test]
fn a_renewed_lease_has_its_new_deadline_alone() {
    let mut leases = Leases::default();
    leases.grant(1, ms(50), "renewed");
    assert!(leases.renew(1, ms(80)));
    assert!(!leases.renew(2, ms(80)), "nobody has it");
    assert_eq!(leases.next_deadline(), Some(ms(80)));
    assert_eq!(leases.pop_expired(ms(79)), None);
    assert_eq!(leases.pop_expired(ms(80)), Some((1, "renewed")));
    assert!(!leases.renew(1, ms(100)), "what is over is not renewed");
}

#[test]
fn an_ended_lease_gives_back_what_it_held_once() {
    let mut leases = Leases::default();
    leases.grant(1, ms(50), "held");
    assert_eq!((leases.get(1), leases.get(2)), (Some(&"held"), None));
    assert_eq!(leases.end(2), None);
    assert_eq!(leases.end(1), Some((ms(50), "held")));
    assert_eq!((leases.end(1), leases.get(1), leases.next_deadline()), (None, None, None));
}

#[test]
fn a_lease_is_held_until_its_deadline_and_not_at_it() {
    let mut leases = Leases::default();
    leases.grant(1, ms(50), "first");
    assert!(leases.is_held(1, ms(49)) && !leases.is_held(1, ms(50)) && !leases.is_held(2, ms(0)));
    leases.renew(1, ms(70));
    assert!(leases.is_held(1, ms(69)));
    leases.end(1);
    assert!(!leases.is_held(1, ms(0)));
}
