//! The scheduling state against a model that scans a flat list: whatever the order of pushes, leases,
//! releases, removals and clock moves, both name the same next item.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use duroxide::providers::TagFilter;
use proptest::collection::vec;
use proptest::prelude::*;
use semver::Version;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Push { session: Option<u8>, tag: Option<u8>, delay_ms: u64 },
    Fetch { owner: Option<u8>, tags: u8, lock_ms: u64 },
    Release { pick: usize, delay_ms: Option<u64>, ignore_attempt: bool },
    Remove { pick: usize },
    Advance { ms: u64 },
    Renew { owner: u8, ms: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let delay = prop_oneof![3 => Just(0u64), 1 => 1u64..200];
    let small = || proptest::option::weighted(0.5, 0u8..3);
    prop_oneof![
        4 => (small(), small(), delay).prop_map(|(session, tag, delay_ms)| Step::Push { session, tag, delay_ms }),
        4 => (small(), 0u8..8, 1u64..300).prop_map(|(owner, tags, lock_ms)| Step::Fetch { owner, tags, lock_ms }),
        2 => (any::<usize>(), proptest::option::of(0u64..200), any::<bool>())
            .prop_map(|(pick, delay_ms, ignore_attempt)| Step::Release { pick, delay_ms, ignore_attempt }),
        2 => any::<usize>().prop_map(|pick| Step::Remove { pick }),
        2 => (1u64..150).prop_map(|ms| Step::Advance { ms }),
        1 => (0u8..3, 1u64..300).prop_map(|(owner, ms)| Step::Renew { owner, ms }),
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
    leased: bool,
}

/// What `Work` promises, said as plainly as possible.
#[derive(Default)]
struct Model {
    items: BTreeMap<WorkId, ModelItem>,
    owners: BTreeMap<String, (String, u64)>,
    now_ms: u64,
}

impl Model {
    fn owner(&self, session: &str) -> Option<&str> {
        self.owners.get(session).filter(|(_, until)| *until > self.now_ms).map(|(owner, _)| owner.as_str())
    }

    fn pick(&self, owner: Option<&str>, tags: &TagFilter) -> Option<WorkId> {
        let may_take = |item: &ModelItem| match &item.session {
            None => true,
            Some(session) => owner.is_some() && self.owner(session).is_none_or(|has| Some(has) == owner),
        };
        let found = self.items.iter().find(|(_, item)| {
            !item.leased
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
    let leased: Vec<WorkId> = model.items.iter().filter(|(_, item)| item.leased).map(|(id, _)| *id).collect();
    (!leased.is_empty()).then(|| leased[pick % leased.len()])
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
                    let item = WorkEntry {
                        instance: "instance".into(), execution: 1, activity: no as u64,
                        session: session.as_deref().map(Arc::from), tag: tag.as_deref().map(Arc::from),
                        schedule: Schedule { visible_at_ms, attempt: 0 }, lease: None, body: None,
                    };
                    work.push(no, item, now(model.now_ms));
                    model.items.insert(no, ModelItem { session, tag, visible_at_ms, attempt: 0, leased: false });
                }
                Step::Fetch { owner, tags, lock_ms } => {
                    let owner = owner.map(|n| format!("worker-{n}"));
                    let owner_id: Option<Arc<str>> = owner.as_deref().map(Arc::from);
                    let tags = filter(tags);
                    let expected = model.pick(owner.as_deref(), &tags);
                    prop_assert_eq!(work.pick(owner_id.as_ref(), &tags), expected);
                    let Some(id) = expected else { continue };
                    let until = model.now_ms + lock_ms;
                    let session = owner_id.as_ref().map(|owner| (owner, Duration::from_millis(until)));
                    let (schedule, _) = work.lease(id, no as LeaseNo, session, now(model.now_ms)).unwrap();
                    let item = model.items.get_mut(&id).unwrap();
                    item.leased = true;
                    item.attempt += 1;
                    prop_assert_eq!(schedule.attempt, item.attempt);
                    if let (Some(session), Some(owner)) = (item.session.clone(), owner) {
                        model.owners.insert(session, (owner, until));
                    }
                }
                Step::Release { pick, delay_ms, ignore_attempt } => {
                    let Some(id) = nth_leased(&model, pick) else { continue };
                    let at = delay_ms.map(|ms| model.now_ms + ms);
                    let schedule = work.release(id, at, ignore_attempt, now(model.now_ms)).unwrap();
                    let item = model.items.get_mut(&id).unwrap();
                    item.leased = false;
                    item.attempt -= u32::from(ignore_attempt);
                    item.visible_at_ms = at.unwrap_or(item.visible_at_ms);
                    prop_assert_eq!(schedule, Schedule { visible_at_ms: item.visible_at_ms, attempt: item.attempt });
                }
                Step::Remove { pick } => {
                    let ids: Vec<WorkId> = model.items.keys().copied().collect();
                    if ids.is_empty() { continue }
                    let id = ids[pick % ids.len()];
                    prop_assert_eq!(work.of_activity("instance", 1, id as u64), vec![id]);
                    prop_assert!(work.remove(id).is_some());
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
                Step::Renew { owner, ms } => {
                    let owner = format!("worker-{owner}");
                    let extend_for = Duration::from_millis(ms);
                    let renewed = work.renew_sessions(
                        std::slice::from_ref(&owner), extend_for, Duration::from_secs(3600), now(model.now_ms));
                    let mut expected = 0;
                    let now_ms = model.now_ms;
                    for (_, until) in model.owners.values_mut().filter(|(o, until)| *o == owner && *until > now_ms) {
                        *until = now_ms + ms;
                        expected += 1;
                    }
                    prop_assert_eq!(renewed, expected);
                }
            }
            prop_assert_eq!(work.unleased(), model.items.values().filter(|item| !item.leased).count());
            let leftovers = model.pick(None, &TagFilter::Any).is_some()
                || model.items.values().any(|item| !item.leased && item.visible_at_ms <= model.now_ms);
            prop_assert_eq!(work.has_ready(), leftovers);
        }
    }

    #[test]
    fn a_turn_goes_to_the_oldest_ready_instance(
        steps in vec((0u8..5, 0u8..6, 0u64..100, any::<bool>()), 1..150),
    ) {
        let mut turns = Turns::default();
        let mut model: BTreeMap<u8, ModelInstance> = BTreeMap::new();
        let mut now_ms = 1_000;
        let mut held: BTreeMap<u8, BTreeMap<MessageId, Message>> = BTreeMap::new();
        for (id, (instance, action, ms, flag)) in (1..).zip(steps) {
            let no = turns.instance(&format!("instance-{instance}"));
            let pinned = (instance % 2 == 1).then(|| Version::new(u64::from(instance), 0, 0));
            let entry = model.entry(instance).or_insert_with(|| (pinned.clone(), None, BTreeMap::new()));
            match action {
                0 | 1 => {
                    let visible_at_ms = if flag { now_ms } else { now_ms + ms };
                    let message = Message { visible_at_ms, attempt: 0, kind: MessageKind::Other, body: None };
                    turns.push(no, id, message, now(now_ms));
                    entry.2.insert(id, (visible_at_ms, false));
                }
                2 => {
                    now_ms += ms;
                    turns.promote(now(now_ms));
                }
                3 if entry.1.is_some() => {
                    // Abandoned: every message it held is back.
                    entry.1 = None;
                    turns.release(no);
                    for (id, message) in held.remove(&instance).unwrap() {
                        turns.push(no, id, message, now(now_ms));
                    }
                    entry.2.values_mut().for_each(|message| message.1 = false);
                }
                4 if entry.1.is_some() => {
                    // Acknowledged: what it held is gone.
                    entry.1 = None;
                    held.remove(&instance);
                    entry.2.retain(|_, message| !message.1);
                    turns.release(no);
                }
                _ => {
                    while let Some(unread) = turns.next_unread() {
                        let id = turns.id(unread).unwrap().to_string();
                        let n: u64 = id.trim_start_matches("instance-").parse().unwrap();
                        let pinned = (n % 2 == 1).then(|| Version::new(n, 0, 0));
                        let row = InstanceRow {
                            key: 1, name: Some(id), version: None, execution: 1, pinned,
                            has_execution: true, has_kv: false, runnable: true, last_event: None,
                        };
                        turns.set_standing(unread, Standing::Present(Arc::new(row)));
                    }
                    let accepts = |pinned: Option<&Version>| flag || pinned.is_none_or(|v| v.major == 3);
                    let oldest = model
                        .iter()
                        .filter(|(_, (pinned, lease, _))| lease.is_none() && accepts(pinned.as_ref()))
                        .filter_map(|(n, (_, _, messages))| {
                            let head = messages.iter().find(|(_, (at, _))| *at <= now_ms)?;
                            Some((*head.0, *n))
                        })
                        .min();
                    let picked = turns.pick(accepts);
                    let name = |no| turns.id(no).unwrap().to_string();
                    prop_assert_eq!(picked.map(name), oldest.map(|(_, n)| format!("instance-{n}")));
                    if let (Some(no), Some((_, n))) = (picked, oldest) {
                        let messages = turns.lease(no, id as LeaseNo);
                        let entry = model.get_mut(&n).unwrap();
                        entry.1 = Some(id as LeaseNo);
                        let mut visible = Vec::new();
                        for (id, message) in entry.2.iter_mut().filter(|(_, (at, _))| *at <= now_ms) {
                            message.1 = true;
                            visible.push(*id);
                        }
                        prop_assert_eq!(messages.keys().copied().collect::<Vec<_>>(), visible);
                        held.insert(n, messages);
                    }
                }
            }
            let waiting = model.values().flat_map(|(_, _, messages)| messages.values());
            prop_assert_eq!(turns.len(), waiting.filter(|(_, leased)| !leased).count());
        }
    }

    #[test]
    fn changes_are_the_net_effect_of_what_was_done(steps in vec((0i64..6, 0u8..4), 0..60)) {
        // What the table holds, and what it would hold if every step were a statement of its own.
        let mut table: BTreeMap<i64, Schedule> = (0..3).map(|id| (id, schedule(0))).collect();
        let mut expected = table.clone();
        let mut changes = Changes::<&str>::default();
        for (attempt, (id, action)) in (1u32..).zip(steps) {
            match (action, expected.contains_key(&id)) {
                // Ids are never used twice: the table's own are not inserted again.
                (0, false) if id >= 3 && !changes_mention(&changes, id) => {
                    changes.insert(id, "row", schedule(0));
                    expected.insert(id, schedule(0));
                }
                (1, true) => {
                    changes.set_attempt(id, schedule(attempt));
                    expected.insert(id, schedule(attempt));
                }
                (2, true) => {
                    changes.reschedule(id, schedule(attempt));
                    expected.insert(id, schedule(attempt));
                }
                (3, true) => {
                    changes.delete(id);
                    expected.remove(&id);
                }
                _ => {}
            }
        }
        for (id, change) in changes.drain() {
            match change {
                Change::Insert(_, schedule) => prop_assert!(table.insert(id, schedule).is_none()),
                Change::Update(schedule) => prop_assert!(table.insert(id, schedule).is_some()),
                Change::Delete => prop_assert!(table.remove(&id).is_some()),
            }
        }
        prop_assert_eq!(table, expected);
        prop_assert!(changes.is_empty() && changes.is_attempts_only());
    }
}

/// Pinned version, lease, and messages (visible at, leased).
type ModelInstance = (Option<Version>, Option<LeaseNo>, BTreeMap<MessageId, (u64, bool)>);

fn schedule(attempt: u32) -> Schedule {
    Schedule { visible_at_ms: 0, attempt }
}

fn changes_mention(changes: &Changes<&str>, id: i64) -> bool {
    changes.inserted(id).is_some()
}

#[test]
fn losing_the_power_may_cost_attempt_counts_alone() {
    let mut changes = Changes::<()>::default();
    changes.set_attempt(1, schedule(1));
    assert!(changes.is_attempts_only());
    changes.reschedule(1, schedule(1));
    assert!(!changes.is_attempts_only(), "a visibility that was promised is more than an attempt");
    let mut changes = Changes::<()>::default();
    changes.insert(1, (), schedule(0));
    changes.delete(1);
    assert!(changes.is_empty(), "came and went within one batch");
}

#[test]
fn a_full_budget_keeps_no_body_and_a_dropped_body_makes_room() {
    let item = || Box::new(WorkItem::CancelInstance { instance: "i".into(), reason: "r".into() });
    let budget = BodyBudget::new(10);
    let first = budget.keep(item(), 8).expect("there is room");
    assert!(budget.keep(item(), 8).is_none());
    assert_eq!(*first.into_item(), *item());
    assert!(budget.keep(item(), 8).is_some());
}

#[test]
fn instances_that_rest_are_forgotten_oldest_first() {
    let mut turns = Turns::default();
    for n in 0..5_000 {
        let no = turns.instance(&format!("instance-{n}"));
        turns.set_standing(no, Standing::Absent);
    }
    assert!(turns.find("instance-0").is_none());
    assert!(turns.find("instance-4999").is_some());
}
