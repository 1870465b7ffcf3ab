//! Turns against a model that scans a flat list: both name the same next instance, whatever came before, and an
//! instance is looked at only when it would be next.

use super::*;
use semver::Version;

/// Instances of the model: the last one has no rows, the odd ones are pinned.
const INSTANCES: u8 = 5;

#[derive(Debug, Clone)]
enum Step {
    Push {
        instance: u8,
        kind: u8,
        delay_ms: u64,
    },
    Advance {
        ms: u64,
    },
    SetBack {
        ms: u64,
    },
    Fetch {
        accepts: u8,
    },
    Abandon {
        instance: u8,
        delay_ms: u64,
    },
    Acknowledge {
        instance: u8,
    },
    Forget {
        pick: usize,
    },
    Remove {
        instance: u8,
    },
    /// Somebody changed its rows behind memory.
    Unread {
        instance: u8,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let delay = || prop_oneof![3 => Just(0u64), 1 => 1u64..200];
    let instance = || 0..INSTANCES;
    prop_oneof![
        6 => (instance(), 0u8..3, delay())
            .prop_map(|(instance, kind, delay_ms)| Step::Push { instance, kind, delay_ms }),
        2 => (1u64..150).prop_map(|ms| Step::Advance { ms }),
        1 => (1u64..150).prop_map(|ms| Step::SetBack { ms }),
        4 => (0u8..3).prop_map(|accepts| Step::Fetch { accepts }),
        2 => (instance(), delay()).prop_map(|(instance, delay_ms)| Step::Abandon { instance, delay_ms }),
        2 => instance().prop_map(|instance| Step::Acknowledge { instance }),
        1 => any::<usize>().prop_map(|pick| Step::Forget { pick }),
        1 => instance().prop_map(|instance| Step::Remove { instance }),
        1 => instance().prop_map(|instance| Step::Unread { instance }),
    ]
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    instance: u8,
    kind: MessageKind,
    visible_at_ms: u64,
    leased: bool,
}

#[derive(Default)]
struct Model {
    messages: BTreeMap<MessageId, Waiting>,
    now_ms: u64,
}

fn name(instance: u8) -> String {
    format!("instance-{instance}")
}

fn pinned(instance: u8) -> Option<Version> {
    (instance % 2 == 1).then(|| Version::new(u64::from(instance), 0, 0))
}

/// What the rows of an instance say.
fn rows_of(instance: u8) -> RowCache<Rows> {
    if instance == INSTANCES - 1 {
        return RowCache::Absent;
    }
    RowCache::Present(Rows { is_runnable: true, pinned: pinned(instance) })
}

/// Everything; or what is pinned to nothing or to 3; or nothing at all.
fn accepts(code: u8) -> impl Fn(Option<&Version>) -> bool {
    move |pinned| match code {
        0 => true,
        1 => pinned.is_none_or(|version| version.major == 3),
        _ => false,
    }
}

impl Model {
    fn leased(&self, instance: u8) -> bool {
        self.messages.values().any(|message| message.leased && message.instance == instance)
    }

    fn of(&self, instance: u8, visible: bool) -> Vec<MessageId> {
        let is_its = |message: &Waiting| {
            message.instance == instance && !message.leased && (message.visible_at_ms == VISIBLE) == visible
        };
        self.messages.iter().filter(|(_, message)| is_its(message)).map(|(id, _)| *id).collect()
    }

    /// The next instance in the order of arrival; what is dropped on the way there.
    fn next(&self, accepts: impl Fn(Option<&Version>) -> bool) -> (Option<u8>, Vec<u8>) {
        let mut dropped = Vec::new();
        let free = (0..INSTANCES).filter(|instance| !self.leased(*instance));
        let mut heads: Vec<_> =
            free.filter_map(|instance| Some((*self.of(instance, true).first()?, instance))).collect();
        heads.sort_unstable();
        for (_, instance) in heads {
            if !accepts(pinned(instance).as_ref()) {
                continue;
            }
            let kinds = || self.of(instance, true).into_iter().map(|id| self.messages[&id].kind);
            if rows_of(instance) != RowCache::Absent || kinds().any(|kind| kind == MessageKind::Start) {
                return (Some(instance), dropped);
            }
            if kinds().all(|kind| kind == MessageKind::Event) {
                dropped.push(instance);
            }
        }
        (None, dropped)
    }
}

/// Takes out a message that is in no lease, visible or delayed; false if there is none such.
fn forget(turns: &mut Turns<Rows>, instance: &str, id: MessageId) -> bool {
    turns.take_delayed(instance, id).is_some()
        || turns.find(instance).is_some_and(|no| turns.take_message(no, id).is_some())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_turn_goes_to_the_oldest_ready_instance(steps in vec(step(), 1..150)) {
        let (mut turns, mut model) = (Turns::default(), Model { now_ms: 1_000, ..Model::default() });
        let mut held: BTreeMap<u8, BTreeMap<MessageId, Message>> = BTreeMap::new();
        let mut looked: HashSet<u8> = HashSet::new();
        for (id, step) in (1..).zip(steps) {
            match step {
                Step::Push { instance, kind, delay_ms } => {
                    let kind = [MessageKind::Start, MessageKind::Event, MessageKind::Other][usize::from(kind)];
                    let mut visible_at_ms = model.now_ms + delay_ms;
                    if delay_ms > 0 && kind == MessageKind::Other {
                        turns.delay(&name(instance), id, visible_at_ms);
                    } else {
                        let no = turns.instance(&name(instance));
                        let message = Message { visible_at_ms, attempt: 0, kind, body: None };
                        turns.push(no, id, message, now(model.now_ms));
                    }
                    if delay_ms == 0 {
                        visible_at_ms = VISIBLE;
                    }
                    model.messages.insert(id, Waiting { instance, kind, visible_at_ms, leased: false });
                }
                Step::Advance { ms } => {
                    model.now_ms += ms;
                    while let Some((hash, id)) = turns.pop_due(now(model.now_ms)) {
                        let message = model.messages.get_mut(&id).expect("it waits");
                        prop_assert!(!message.leased && message.visible_at_ms != VISIBLE);
                        prop_assert!(message.visible_at_ms <= model.now_ms);
                        message.visible_at_ms = VISIBLE;
                        prop_assert_eq!(hash, turns.hash(&name(message.instance)));
                        let no = turns.instance(&name(message.instance));
                        let pushed = Message { visible_at_ms: VISIBLE, attempt: 0, kind: message.kind, body: None };
                        turns.push(no, id, pushed, now(model.now_ms));
                    }
                    let now_ms = model.now_ms;
                    let due = |message: &Waiting| message.visible_at_ms != VISIBLE && message.visible_at_ms <= now_ms;
                    prop_assert!(!model.messages.values().any(due), "all that was due has come");
                }
                Step::SetBack { ms } => model.now_ms -= ms.min(model.now_ms),
                Step::Fetch { accepts: code } => {
                    let (expected, dropped) = model.next(accepts(code));
                    let head = expected.map(|instance| model.of(instance, true)[0]);
                    let mut orphaned = Vec::new();
                    let found = loop {
                        match turns.next(accepts(code)) {
                            Next::Nothing => break None,
                            Next::Ready(no) => break Some(no),
                            Next::Unread(no) => {
                                let id = turns.id(no).unwrap().to_string();
                                let instance = (0..INSTANCES).find(|instance| name(*instance) == id).unwrap();
                                prop_assert!(looked.insert(instance), "it was looked at before");
                                let its_head = model.of(instance, true)[0];
                                prop_assert!(head.is_none_or(|head| its_head <= head), "it would not be next");
                                turns.set_rows(no, rows_of(instance));
                            }
                            Next::Orphaned(no) => {
                                let id = turns.id(no).unwrap().to_string();
                                let instance = (0..INSTANCES).find(|instance| name(*instance) == id).unwrap();
                                let ids: Vec<MessageId> = turns.take_visible(no).into_keys().collect();
                                prop_assert_eq!(&ids, &model.of(instance, true));
                                model.messages.retain(|id, _| !ids.contains(id));
                                orphaned.push(instance);
                            }
                        }
                    };
                    prop_assert_eq!(orphaned, dropped);
                    let id = found.map(|no| turns.id(no).unwrap().to_string());
                    prop_assert_eq!(id, expected.map(name));
                    let (Some(no), Some(instance)) = (found, expected) else { continue };
                    let messages = turns.lease(no, id_of_lease(instance));
                    let visible = model.of(instance, true);
                    prop_assert_eq!(messages.keys().copied().collect::<Vec<_>>(), visible.clone());
                    visible.iter().for_each(|id| model.messages.get_mut(id).unwrap().leased = true);
                    held.insert(instance, messages);
                }
                Step::Abandon { instance, delay_ms } => {
                    let Some(messages) = held.remove(&instance) else { continue };
                    let no = turns.find(&name(instance)).unwrap();
                    prop_assert_eq!(turns.lease_of(no), Some(id_of_lease(instance)));
                    turns.release(no);
                    for (id, mut message) in messages {
                        let back = model.messages.get_mut(&id).unwrap();
                        back.leased = false;
                        if delay_ms > 0 {
                            message.visible_at_ms = model.now_ms + delay_ms;
                            back.visible_at_ms = message.visible_at_ms;
                        }
                        turns.push(no, id, message, now(model.now_ms));
                    }
                }
                Step::Acknowledge { instance } => {
                    if held.remove(&instance).is_none() { continue }
                    model.messages.retain(|_, message| !(message.leased && message.instance == instance));
                    turns.release(turns.find(&name(instance)).unwrap());
                }
                Step::Forget { pick } => {
                    let ids: Vec<MessageId> = model.messages.keys().copied().collect();
                    if ids.is_empty() { continue }
                    let id = ids[pick % ids.len()];
                    let message = model.messages[&id];
                    prop_assert_eq!(forget(&mut turns, &name(message.instance), id), !message.leased);
                    prop_assert!(!forget(&mut turns, &name(message.instance), id), "it is gone");
                    if !message.leased {
                        model.messages.remove(&id);
                    }
                }
                Step::Remove { instance } => {
                    let delayed = turns.delayed_of(&name(instance));
                    prop_assert_eq!(&delayed, &model.of(instance, false));
                    for id in delayed {
                        prop_assert!(forget(&mut turns, &name(instance), id));
                    }
                    let removed = turns.find(&name(instance)).map_or(Vec::new(), |no| turns.remove(no).into_keys().collect());
                    prop_assert_eq!(removed, model.of(instance, true));
                    model.messages.retain(|_, message| message.instance != instance);
                    held.remove(&instance);
                    looked.remove(&instance);
                }
                Step::Unread { instance } => {
                    if let Some(no) = turns.find(&name(instance)) {
                        turns.set_rows(no, RowCache::Unread);
                    }
                    looked.remove(&instance);
                }
            }
            let unleased = || model.messages.values().filter(|message| !message.leased);
            prop_assert_eq!(turns.len(), unleased().count());
            let due = unleased().map(|message| message.visible_at_ms).filter(|at| *at != VISIBLE).min();
            prop_assert_eq!(turns.next_due_ms(), due);
        }
    }
}

fn id_of_lease(instance: u8) -> LeaseNo {
    LeaseNo::from(instance) + 100
}
