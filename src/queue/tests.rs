//! The scheduling state against a model that scans a flat list: whatever the order of pushes, leases,
//! releases, removals and clock moves, both name the same next item. The rules that need no model have a file each.

mod alike;
mod bodies;
mod leases;
mod parked;
mod sessions;
mod turn_model;
mod turns;
mod work_fetches;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use duroxide::providers::TagFilter;
use proptest::collection::vec;
use proptest::prelude::*;
use semver::Version;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Push {
        session: Option<u8>,
        tag: Option<u8>,
        delay_ms: u64,
    },
    /// `lost`: the grant never reaches its worker and comes back.
    Fetch {
        owner: Option<u8>,
        tags: u8,
        lock_ms: u64,
        lost: bool,
    },
    /// `given_back`: the worker says so; otherwise the lease ran out.
    Release {
        pick: usize,
        delay_ms: Option<u64>,
        ignore_attempt: bool,
        given_back: bool,
    },
    Remove {
        pick: usize,
    },
    Advance {
        ms: u64,
    },
    /// Work goes on under a lease.
    Touch {
        pick: usize,
    },
    Renew {
        owner: u8,
        ms: u64,
        idle_ms: u64,
    },
    Sweep,
    /// Memory is rebuilt from the rows, around the leases that are out.
    PutBack,
}

fn step() -> impl Strategy<Value = Step> {
    let delay = prop_oneof![3 => Just(0u64), 1 => 1u64..200];
    let small = || proptest::option::weighted(0.5, 0u8..3);
    prop_oneof![
        4 => (small(), small(), delay).prop_map(|(session, tag, delay_ms)| Step::Push { session, tag, delay_ms }),
        4 => (small(), 0u8..8, 1u64..300, proptest::bool::weighted(0.2))
            .prop_map(|(owner, tags, lock_ms, lost)| Step::Fetch { owner, tags, lock_ms, lost }),
        2 => (any::<usize>(), proptest::option::of(0u64..200), any::<bool>(), any::<bool>()).prop_map(
            |(pick, delay_ms, ignore_attempt, given_back)| {
                Step::Release { pick, delay_ms, ignore_attempt, given_back }
            },
        ),
        2 => any::<usize>().prop_map(|pick| Step::Remove { pick }),
        2 => (1u64..150).prop_map(|ms| Step::Advance { ms }),
        1 => any::<usize>().prop_map(|pick| Step::Touch { pick }),
        2 => (0u8..3, 1u64..300, 1u64..300).prop_map(|(owner, ms, idle_ms)| Step::Renew { owner, ms, idle_ms }),
        1 => Just(Step::Sweep),
        1 => Just(Step::PutBack),
    ]
}

fn filter(code: u8) -> TagFilter {
    let tags = |codes: &[u8]| codes.iter().map(|code| format!("tag-{code}")).collect::<HashSet<_>>();
    match code {
        0 | 1 => TagFilter::DefaultOnly,
        2 => TagFilter::Tags(tags(&[0])),
        3 => TagFilter::Tags(tags(&[1, 2])),
        4 => TagFilter::DefaultAnd(tags(&[1])),
        5 => TagFilter::None,
        _ => TagFilter::Any,
    }
}

struct ModelItem {
    session: Option<String>,
    tag: Option<String>,
    visible_at_ms: u64,
    attempt: u32,
    lease: Option<LeaseNo>,
}

struct ModelClaim {
    owner: String,
    until: u64,
    active_at: u64,
    /// The leases granted under it, until one of them is known to have been worked under.
    untried: Option<BTreeSet<LeaseNo>>,
}

/// What `Work` promises, said as plainly as possible.
#[derive(Default)]
struct Model {
    items: BTreeMap<WorkId, ModelItem>,
    claims: BTreeMap<String, ModelClaim>,
    now_ms: u64,
}

impl Model {
    fn owner(&self, session: &str) -> Option<&str> {
        let claim = self.claims.get(session)?;
        (claim.until > self.now_ms).then_some(claim.owner.as_str())
    }

    /// The claim, if it stands, of the session that an item is in.
    fn claim_of(&mut self, id: WorkId) -> Option<&mut ModelClaim> {
        let now_ms = self.now_ms;
        let session = self.items[&id].session.as_ref()?;
        self.claims.get_mut(session).filter(|claim| claim.until > now_ms)
    }

    fn set_tried(&mut self, id: WorkId) {
        let Some(lease) = self.items[&id].lease else { return };
        if let Some(claim) = self.claim_of(id) {
            claim.untried = claim.untried.take().filter(|untried| !untried.contains(&lease));
        }
    }

    fn unclaim(&mut self, id: WorkId, lease: LeaseNo) {
        let Some(untried) = self.claim_of(id).and_then(|claim| claim.untried.as_mut()) else { return };
        if untried.remove(&lease) && untried.is_empty() {
            let session = self.items[&id].session.clone().unwrap();
            self.claims.remove(&session);
        }
    }

    /// Whether an item is ready whose tag fits and that belongs to a session.
    fn waits_in_session(&self, tags: &TagFilter) -> bool {
        self.items.values().any(|item| {
            let ready = item.lease.is_none() && item.visible_at_ms <= self.now_ms;
            ready && item.session.is_some() && tags.matches(item.tag.as_deref())
        })
    }

    fn pick(&self, owner: Option<&str>, tags: &TagFilter) -> Option<WorkId> {
        let may_take = |item: &ModelItem| match &item.session {
            None => true,
            Some(session) => owner.is_some() && self.owner(session).is_none_or(|has| Some(has) == owner),
        };
        let found = self.items.iter().find(|(_, item)| {
            item.lease.is_none()
                && item.visible_at_ms <= self.now_ms
                && tags.matches(item.tag.as_deref())
                && may_take(item)
        });
        found.map(|(id, _)| *id)
    }
}

fn now(ms: u64) -> Now {
    Now { monotonic: Duration::from_millis(ms), wall_ms: ms }
}

fn nth_leased(model: &Model, pick: usize) -> Option<WorkId> {
    let leased = model.items.iter().filter(|(_, item)| item.lease.is_some());
    let leased: Vec<WorkId> = leased.map(|(id, _)| *id).collect();
    (!leased.is_empty()).then(|| leased[pick % leased.len()])
}

/// A row of the model, as memory learns it.
fn entry(id: WorkId, item: &ModelItem) -> WorkEntry {
    WorkEntry {
        activity: Activity {
            instance: "instance".into(),
            execution: 1,
            id: id as u64,
            session: item.session.as_deref().map(Arc::from),
            tag: item.tag.as_deref().map(Arc::from),
        },
        schedule: Schedule { visible_at_ms: item.visible_at_ms, attempt: item.attempt },
        lease: item.lease,
        body: None,
        scheduled_in: 0,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn work_names_the_same_next_item_as_a_scan(steps in vec(step(), 1..200)) {
        let (mut work, mut model) = (Work::default(), Model { now_ms: 1_000, ..Model::default() });
        for (no, step) in (1..).zip(steps) {
            match step {
                Step::Push { session, tag, delay_ms } => {
                    let session = session.map(|n| format!("session-{n}"));
                    let tag = tag.map(|n| format!("tag-{n}"));
                    let visible_at_ms = model.now_ms + delay_ms;
                    let item = ModelItem { session, tag, visible_at_ms, attempt: 0, lease: None };
                    work.push(no, entry(no, &item), now(model.now_ms));
                    model.items.insert(no, item);
                }
                Step::Fetch { owner, tags, lock_ms, lost } => {
                    let owner = owner.map(|n| format!("worker-{n}"));
                    let owner_id: Option<Arc<str>> = owner.as_deref().map(Arc::from);
                    let tags = filter(tags);
                    let expected = model.pick(owner.as_deref(), &tags);
                    prop_assert_eq!(work.pick(owner.as_deref(), &tags), expected);
                    let Some(id) = expected else { continue };
                    let until = model.now_ms + lock_ms;
                    let session = owner_id.as_ref().map(|owner| (owner, Duration::from_millis(until)));
                    let lease = no as LeaseNo;
                    let (schedule, _) = work.lease(id, lease, session, now(model.now_ms)).unwrap();
                    let attempt = model.items[&id].attempt;
                    prop_assert_eq!(schedule.attempt, attempt + 1);
                    let claims = model.items[&id].session.clone().zip(owner);
                    if let Some((session, owner)) = claims {
                        let untried = match model.owner(&session) {
                            Some(_) => model.claims[&session].untried.clone(),
                            None => Some(BTreeSet::new()),
                        };
                        let mut claim = ModelClaim { owner, until, active_at: model.now_ms, untried };
                        claim.untried.as_mut().map(|untried| untried.insert(lease));
                        model.claims.insert(session, claim);
                    }
                    if lost {
                        let schedule = work.take_back(id, lease, now(model.now_ms)).unwrap();
                        prop_assert_eq!(schedule.attempt, attempt);
                        model.unclaim(id, lease);
                    } else {
                        let item = model.items.get_mut(&id).unwrap();
                        item.lease = Some(lease);
                        item.attempt += 1;
                    }
                }
                Step::Release { pick, delay_ms, ignore_attempt, given_back } => {
                    let Some(id) = nth_leased(&model, pick) else { continue };
                    let at = delay_ms.map(|ms| model.now_ms + ms);
                    let now = now(model.now_ms);
                    let schedule = if given_back {
                        model.unclaim(id, model.items[&id].lease.unwrap());
                        work.give_back(id, at, ignore_attempt, now).unwrap()
                    } else {
                        model.set_tried(id);
                        work.release(id, at, ignore_attempt, now).unwrap()
                    };
                    let item = model.items.get_mut(&id).unwrap();
                    item.lease = None;
                    item.attempt -= u32::from(ignore_attempt);
                    item.visible_at_ms = at.unwrap_or(item.visible_at_ms);
                    prop_assert_eq!(schedule, Schedule { visible_at_ms: item.visible_at_ms, attempt: item.attempt });
                }
                Step::Remove { pick } => {
                    let ids: Vec<WorkId> = model.items.keys().copied().collect();
                    if ids.is_empty() { continue }
                    let id = ids[pick % ids.len()];
                    prop_assert_eq!(work.of_activity("instance", 1, id as u64), vec![id]);
                    prop_assert_eq!(work.get(id).map(|item| item.activity.id), Some(id as u64));
                    prop_assert!(work.remove(id).is_some() && work.get(id).is_none());
                    model.set_tried(id);
                    model.items.remove(&id);
                }
                Step::Advance { ms } => {
                    let before = model.now_ms;
                    model.now_ms += ms;
                    work.promote(now(model.now_ms));
                    for item in model.items.values_mut() {
                        if item.visible_at_ms > before && item.visible_at_ms <= model.now_ms {
                            item.visible_at_ms = VISIBLE;
                        }
                    }
                }
                Step::Touch { pick } => {
                    let Some(id) = nth_leased(&model, pick) else { continue };
                    work.touch_session(id, now(model.now_ms));
                    let now_ms = model.now_ms;
                    model.set_tried(id);
                    if let Some(claim) = model.claim_of(id) {
                        claim.active_at = now_ms;
                    }
                }
                Step::Renew { owner, ms, idle_ms } => {
                    let owner = format!("worker-{owner}");
                    let (extend_for, idle) = (Duration::from_millis(ms), Duration::from_millis(idle_ms));
                    let owners = std::slice::from_ref(&owner);
                    let renewed = work.renew_sessions(owners, extend_for, idle, now(model.now_ms));
                    let mut expected = 0;
                    let now_ms = model.now_ms;
                    let held = |claim: &&mut ModelClaim| claim.owner == owner && claim.until > now_ms;
                    for claim in model.claims.values_mut().filter(held) {
                        if claim.active_at + idle_ms > now_ms {
                            claim.until = now_ms + ms;
                            claim.untried = None;
                            expected += 1;
                        }
                    }
                    prop_assert_eq!(renewed, expected);
                }
                Step::Sweep => {
                    let (items, now_ms, before) = (&model.items, model.now_ms, model.claims.len());
                    let has_items = |session: &str| items.values().any(|item| item.session.as_deref() == Some(session));
                    model.claims.retain(|session, claim| claim.until > now_ms || has_items(session));
                    prop_assert_eq!(work.sweep_sessions(), before - model.claims.len());
                }
                Step::PutBack => {
                    // As after a batch that was rolled back: gone, and back with the lease it had. What was ended
                    // counts as worked under, also if that is undone.
                    for id in model.items.keys().copied().collect::<Vec<_>>() {
                        model.set_tried(id);
                    }
                    for (id, item) in &model.items {
                        work.remove(*id);
                        work.push(*id, entry(*id, item), now(model.now_ms));
                    }
                }
            }
            let unleased: Vec<_> = model.items.values().filter(|item| item.lease.is_none()).collect();
            prop_assert_eq!(work.unleased(), unleased.len());
            for tags in (0..8).map(filter) {
                prop_assert_eq!(work.waits_in_session(&tags), model.waits_in_session(&tags));
            }
            let ready = unleased.iter().any(|item| item.visible_at_ms <= model.now_ms);
            prop_assert_eq!(work.has_ready(), ready);
            let due = unleased.iter().map(|item| item.visible_at_ms).filter(|at| *at > model.now_ms).min();
            prop_assert_eq!(work.next_due_ms(), due);
            let ends = model.claims.values().map(|claim| claim.until).filter(|until| *until > model.now_ms).min();
            prop_assert_eq!(work.next_session_deadline(), ends.map(Duration::from_millis));
            prop_assert_eq!(work.of_instance("instance"), model.items.keys().copied().collect::<Vec<_>>());
        }
    }
}

/// What is kept with an instance in these tests.
#[derive(Debug, Clone, PartialEq)]
struct Rows {
    is_runnable: bool,
    pinned: Option<Version>,
}

impl Runs for Rows {
    fn is_runnable(&self) -> bool {
        self.is_runnable
    }

    fn pinned(&self) -> Option<&Version> {
        self.pinned.as_ref()
    }
}
