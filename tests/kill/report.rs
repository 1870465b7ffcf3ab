//! What the process that will be killed says: one line for each thing it was told, in words without spaces.
//!
//! A line is written whole, with its end, in one call. What the kill has cut off has no end and says nothing.

use std::io::Write;
use std::str::{FromStr, SplitAsciiWhitespace};

/// The events of one turn.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Turn {
    pub(crate) instance: String,
    pub(crate) execution: u64,
    pub(crate) first_event: u64,
    pub(crate) last_event: u64,
    /// Of all its events.
    pub(crate) hash: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Activity {
    pub(crate) instance: String,
    pub(crate) execution: u64,
    pub(crate) id: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Report {
    /// The database is open and the load begins.
    Ready,
    /// A start was acknowledged.
    Start(String),
    /// An event was acknowledged.
    Letter(String, String),
    /// A client saw that the instance had completed, with this output.
    Seen(String, String),
    /// A turn is about to be acknowledged.
    Offer(Turn),
    /// It was.
    Turn(Turn),
    /// The acknowledgement of an activity was acknowledged.
    Done(Activity),
    /// A turn was handed out, with these messages, as this attempt.
    TurnGranted { instance: String, attempt: u32, messages: Vec<u64> },
    /// An activity was handed out, as this attempt.
    WorkGranted { activity: Activity, attempt: u32 },
    /// The ticket of a thread's closure has resolved.
    Resolved { thread: u64, number: u64 },
}

impl Report {
    /// Writes the line. A parent that is gone is the end of this process.
    pub(crate) fn tell(&self) {
        let line = self.line();
        if std::io::stdout().lock().write_all(line.as_bytes()).is_err() {
            std::process::exit(1);
        }
    }

    fn line(&self) -> String {
        match self {
            Self::Ready => "\n@ready\n".into(),
            Self::Start(instance) => format!("@start {instance}\n"),
            Self::Letter(instance, letter) => format!("@letter {instance} {letter}\n"),
            Self::Seen(instance, output) => format!("@seen {instance} {output}\n"),
            Self::Offer(turn) => format!("@offer {}\n", turn.words()),
            Self::Turn(turn) => format!("@turn {}\n", turn.words()),
            Self::Done(activity) => format!("@done {}\n", activity.words()),
            Self::TurnGranted { instance, attempt, messages } => {
                let messages: Vec<String> = messages.iter().map(u64::to_string).collect();
                format!("@turn-granted {instance} {attempt} {}\n", messages.join(" "))
            }
            Self::WorkGranted { activity, attempt } => {
                format!("@work-granted {} {attempt}\n", activity.words())
            }
            Self::Resolved { thread, number } => format!("@resolved {thread} {number}\n"),
        }
    }

    /// `None` for what is not a report: the test harness of the child talks too.
    pub(crate) fn read(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix('@')?.split_ascii_whitespace();
        let words = &mut words;
        let report = match words.next()? {
            "ready" => Self::Ready,
            "start" => Self::Start(word(words)),
            "letter" => Self::Letter(word(words), word(words)),
            "seen" => Self::Seen(word(words), word(words)),
            "offer" => Self::Offer(Turn::read(words)),
            "turn" => Self::Turn(Turn::read(words)),
            "done" => Self::Done(Activity::read(words)),
            "turn-granted" => Self::TurnGranted {
                instance: word(words),
                attempt: word(words),
                messages: words.by_ref().map(|message| message.parse().expect("a hash")).collect(),
            },
            "work-granted" => Self::WorkGranted { activity: Activity::read(words), attempt: word(words) },
            "resolved" => Self::Resolved { thread: word(words), number: word(words) },
            other => panic!("{other:?} is no report"),
        };
        assert_eq!(words.next(), None, "{line:?} has words too many");
        Some(report)
    }
}

impl Turn {
    fn words(&self) -> String {
        let Self { instance, execution, first_event, last_event, hash } = self;
        format!("{instance} {execution} {first_event} {last_event} {hash}")
    }

    fn read(words: &mut SplitAsciiWhitespace<'_>) -> Self {
        Self {
            instance: word(words),
            execution: word(words),
            first_event: word(words),
            last_event: word(words),
            hash: word(words),
        }
    }
}

impl Activity {
    fn words(&self) -> String {
        let Self { instance, execution, id } = self;
        format!("{instance} {execution} {id}")
    }

    fn read(words: &mut SplitAsciiWhitespace<'_>) -> Self {
        Self { instance: word(words), execution: word(words), id: word(words) }
    }
}

fn word<T: FromStr>(words: &mut SplitAsciiWhitespace<'_>) -> T {
    let word = words.next().expect("a line that has its end has all its words");
    word.parse().unwrap_or_else(|_| panic!("{word:?} is not what belongs there"))
}

#[test]
fn what_is_told_is_what_is_read() {
    let activity = Activity { instance: "order-1".into(), execution: 2, id: 3 };
    let turn =
        Turn { instance: "order-1".into(), execution: 1, first_event: 2, last_event: 5, hash: u64::MAX };
    let granted = |messages| Report::TurnGranted { instance: "order-1".into(), attempt: 7, messages };
    let all = [
        Report::Ready,
        Report::Start("order-1".into()),
        Report::Letter("order-1".into(), "a".into()),
        Report::Seen("order-1".into(), "1,2".into()),
        Report::Offer(turn.clone()),
        Report::Turn(turn),
        Report::Done(activity.clone()),
        granted(vec![]),
        granted(vec![1, u64::MAX]),
        Report::WorkGranted { activity, attempt: 4 },
        Report::Resolved { thread: 1, number: 2 },
    ];
    for report in all {
        assert_eq!(Report::read(report.line().trim()).as_ref(), Some(&report));
    }
    assert_eq!(Report::read("test engine::the_child ... ok"), None);
}
