//! What a load did to its database, and what may therefore be found in it.
//!
//! A load notes every state its database goes through, and up to which of them it was acknowledged. What is
//! found afterwards must be one of those states, whole: then nothing is half there and there is no hole.

use std::fmt::Debug;

use forebay::Durability;

use super::Likeness;
use super::manner::{Heard, Stopped};

/// What a load looks like from outside, and everything it went through.
pub(crate) struct Record<P> {
    states: Vec<State<P>>,
    acknowledged: usize,
    closed: usize,
    /// Why it did not go on to its end.
    pub(crate) stopped: Option<Stopped>,
    /// What contradicts the promises although nobody has looked at the disk yet.
    pub(crate) wrong: Vec<String>,
    /// What it was told on the way, each with how often.
    pub(crate) heard: Vec<Heard>,
}

struct State<P> {
    picture: P,
    /// Whether coming to it has to survive a power loss at `Full`.
    matters: bool,
}

impl<P> Record<P> {
    pub(crate) fn new(before: P) -> Self {
        let states = vec![State { picture: before, matters: false }];
        Self { states, acknowledged: 0, closed: 0, stopped: None, wrong: Vec::new(), heard: Vec::new() }
    }

    /// The state to come, if what is about to be submitted works.
    pub(crate) fn submit(&mut self, picture: P, matters: bool) {
        self.states.push(State { picture, matters });
    }

    /// What was submitted last was refused for certain, or in part.
    pub(crate) fn withdraw(&mut self) {
        assert!(self.states.len() > self.acknowledged + 1, "it was not acknowledged");
        self.states.pop();
    }

    /// What was submitted was answered with success.
    pub(crate) fn acknowledge(&mut self) {
        self.acknowledged = self.states.len() - 1;
    }

    /// Closing was answered with success.
    pub(crate) fn close(&mut self) {
        self.acknowledge();
        self.closed = self.acknowledged;
    }

    /// The oldest state that may be found after a power loss.
    fn oldest(&self, promised: Durability) -> usize {
        let up_to_now = &self.states[..=self.acknowledged];
        match promised {
            Durability::Full => {
                up_to_now.iter().rposition(|state| state.matters).unwrap_or(0).max(self.closed)
            }
            Durability::Normal => self.closed,
        }
    }

    /// The newest state that may be found: what was submitted last may have happened, unless its caller was
    /// told that it did not. `doubt` is whether somebody is to be believed who says so.
    fn newest(&self, doubt: Doubt) -> usize {
        let told = self.stopped.as_ref().map(|stopped| stopped.heard);
        match (told, doubt) {
            (Some(Heard::RolledBack | Heard::Failed | Heard::Own), _) => self.acknowledged,
            (Some(Heard::Unknown), Doubt::Unwarranted) => self.acknowledged,
            (Some(Heard::Unknown) | None, _) => self.states.len() - 1,
        }
    }
}

/// How "outcome unknown" is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doubt {
    Honest,
    /// As if it said "rolled back": wrong, and there to show that it would be noticed.
    Unwarranted,
}

impl<P: Likeness + Debug> Record<P> {
    /// What is found after a power loss.
    pub(crate) fn judge_after_power_loss(&self, found: &P, promised: Durability) -> Result<(), String> {
        self.judge(found, self.oldest(promised), self.newest(Doubt::Honest))
    }

    /// What is found when nothing that was written has been lost.
    pub(crate) fn judge_after_restart(&self, found: &P, doubt: Doubt) -> Result<(), String> {
        self.judge(found, self.acknowledged, self.newest(doubt))
    }

    /// What is found when nothing has gone wrong.
    pub(crate) fn judge_all(&self, found: &P) -> Result<(), String> {
        let last = self.states.len() - 1;
        self.judge(found, last, last)?;
        if self.states[last].picture == *found { Ok(()) } else { Err(self.nearest(found)) }
    }

    fn judge(&self, found: &P, oldest: usize, newest: usize) -> Result<(), String> {
        if self.states[oldest..=newest].iter().any(|state| state.picture.allows(found)) {
            return Ok(());
        }
        if let Some(older) = self.states[..oldest].iter().rposition(|state| state.picture.allows(found)) {
            return Err(format!("LOST: found state {older}, state {oldest} was acknowledged"));
        }
        if self.states[newest + 1..].iter().any(|state| state.picture.allows(found)) {
            return Err(format!("NOT TAKEN BACK: found what was refused after state {newest}"));
        }
        Err(self.nearest(found))
    }

    fn nearest(&self, found: &P) -> String {
        let differences = self.states.iter().map(|state| differences(found, &state.picture));
        let (nearest, differences) =
            differences.enumerate().min_by_key(|(_, lines)| lines.len()).unwrap_or_default();
        let differences = differences.join("\n");
        format!("HALF OR HOLE: like no state; from {nearest}, the nearest, it differs in\n{differences}")
    }
}

/// The lines between the first and the last in which two pictures differ, `+` for those that were found.
fn differences(found: &impl Debug, expected: &impl Debug) -> Vec<String> {
    let (found, expected) = (format!("{found:#?}"), format!("{expected:#?}"));
    let (mut found, mut expected): (Vec<_>, Vec<_>) = (found.lines().collect(), expected.lines().collect());
    for _ in 0..2 {
        let same = found.iter().zip(&expected).take_while(|(one, other)| one == other).count();
        found.drain(..same);
        expected.drain(..same);
        found.reverse();
        expected.reverse();
    }
    let signed = |sign: char, lines: Vec<&str>| -> Vec<String> {
        lines.into_iter().map(|line| format!("{sign} {:.120}", line.trim_start())).collect()
    };
    [signed('+', found), signed('-', expected)].concat()
}
