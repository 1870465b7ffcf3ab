//! What the children of one file were told, over all their lives, and what therefore must be found in it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::found::Found;
use crate::report::{Activity, Report, Turn};
use crate::reporting::{activity_of, hash_of, turn_of};

#[derive(Default)]
pub(crate) struct Ledger {
    starts: BTreeSet<String>,
    letters: BTreeSet<(String, String)>,
    seen: BTreeMap<String, String>,
    offered: HashSet<Turn>,
    turns: BTreeSet<Turn>,
    done: BTreeSet<Activity>,
    /// The highest attempt a message was handed out as, by instance and hash.
    message_attempts: HashMap<(String, u64), u32>,
    work_attempts: BTreeMap<Activity, u32>,
}

impl Ledger {
    pub(crate) fn note(&mut self, reports: Vec<Report>) {
        for report in reports {
            match report {
                Report::Ready => {}
                Report::Start(instance) => drop(self.starts.insert(instance)),
                Report::Letter(instance, letter) => drop(self.letters.insert((instance, letter))),
                Report::Seen(instance, output) => drop(self.seen.insert(instance, output)),
                Report::Offer(turn) => drop(self.offered.insert(turn)),
                Report::Turn(turn) => drop(self.turns.insert(turn)),
                Report::Done(activity) => drop(self.done.insert(activity)),
                Report::TurnGranted { instance, attempt, messages } => {
                    for message in messages {
                        let known = self.message_attempts.entry((instance.clone(), message)).or_default();
                        *known = attempt.max(*known);
                    }
                }
                Report::WorkGranted { activity, attempt } => {
                    let known = self.work_attempts.entry(activity).or_default();
                    *known = attempt.max(*known);
                }
                Report::Resolved { .. } => panic!("that belongs to the other load"),
            }
        }
    }

    /// How much was acknowledged: starts, letters, turns, activities, ends seen by clients.
    pub(crate) fn counts(&self) -> [usize; 5] {
        [self.starts.len(), self.letters.len(), self.turns.len(), self.done.len(), self.seen.len()]
    }

    /// What is wrong with what was found.
    pub(crate) fn judge(&self, found: &Found) -> Vec<String> {
        let mut wrong = Vec::new();
        for instance in &self.starts {
            if !found.instances.contains_key(instance) && !found.start_waits(instance) {
                wrong.push(format!("LOST start of {instance}"));
            }
        }
        for (instance, letter) in &self.letters {
            if found.letters(instance, letter) == 0 {
                wrong.push(format!("LOST letter {letter} to {instance}"));
            }
        }
        for (instance, output) in &self.seen {
            if found.output(instance) != Some(output) {
                wrong.push(format!("LOST end of {instance}, which a client had seen"));
            }
        }
        for turn in &self.turns {
            let events = found.events(turn);
            if turn_of(events).as_ref() != Some(turn) {
                wrong.push(format!("LOST turn {turn:?}: {} events are there", events.len()));
            }
        }
        for turn in &found.rows {
            let whole = turn_of(found.events(turn)).filter(|turn| self.offered.contains(turn));
            if whole.is_none() {
                wrong.push(format!("HALF: nobody wrote a turn like {turn:?}"));
            }
        }
        for (item, attempt) in &found.work {
            let activity = activity_of(item);
            if self.done.contains(&activity) {
                wrong.push(format!("LOST end of {activity:?}"));
            }
            let known = self.work_attempts.get(&activity).copied().unwrap_or(0);
            if *attempt <= known {
                wrong.push(format!("UNCOUNTED {activity:?}: attempt {attempt} after {known}"));
            }
        }
        for turn in &found.turns {
            for message in &turn.messages {
                let key = (turn.instance.clone(), hash_of(message));
                let known = self.message_attempts.get(&key).copied().unwrap_or(0);
                if turn.attempt <= known {
                    wrong.push(format!("UNCOUNTED {message:?}: attempt {} after {known}", turn.attempt));
                }
            }
        }
        wrong
    }
}
