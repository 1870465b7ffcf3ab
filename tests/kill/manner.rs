//! How the process that will be killed behaves: as an honest one does, or in one of the ways by which the test
//! shows that it can fail. Those are arranged, not left to the instant of the kill: which of them is noticed
//! must not depend on how busy the machine is.

use crate::report::Report;

/// What a report tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Start,
    Letter,
    Turn,
    Done,
    /// The end of an order, or of a closure of the `Writer`.
    End,
}

impl Kind {
    pub(crate) fn of(report: &Report) -> Option<Self> {
        match report {
            Report::Start(..) => Some(Self::Start),
            Report::Letter(..) => Some(Self::Letter),
            Report::Turn(..) => Some(Self::Turn),
            Report::Done(..) => Some(Self::Done),
            Report::Seen(..) | Report::Resolved { .. } => Some(Self::End),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    Honest,
    /// Tells of things of this kind as acknowledged, and does not do them.
    Lies(Kind),
    /// Does not acknowledge the turn of one order and the activities of another, which stay in its hands.
    Holds,
}

const WORDS: [(&str, Manner); 7] = [
    ("honest", Manner::Honest),
    ("holds", Manner::Holds),
    ("lies-about-starts", Manner::Lies(Kind::Start)),
    ("lies-about-letters", Manner::Lies(Kind::Letter)),
    ("lies-about-turns", Manner::Lies(Kind::Turn)),
    ("lies-about-activities", Manner::Lies(Kind::Done)),
    ("lies-about-ends", Manner::Lies(Kind::End)),
];

impl Manner {
    /// The word for it, by which the child is told.
    pub(crate) fn word(self) -> &'static str {
        WORDS.iter().find(|(_, manner)| *manner == self).expect("each has a word").0
    }

    pub(crate) fn read(word: &str) -> Option<Self> {
        WORDS.iter().find(|(known, _)| *known == word).map(|(_, manner)| *manner)
    }

    pub(crate) fn lies_about(self, report: Option<&Report>) -> bool {
        report.and_then(Kind::of).is_some_and(|kind| self == Self::Lies(kind))
    }
}
