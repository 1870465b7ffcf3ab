//! One step of a sequence: what is done, with small numbers for who and what, so that steps collide often.
//!
//! Free of proptest, and made from bytes as well, so that a fuzzer can drive the same sequences.

use std::time::Duration;

/// Instances, sessions, workers, tags and names of key-values there are. A further instance is never there.
pub(crate) const INSTANCES: u8 = 4;
pub(crate) const SESSIONS: u8 = 2;
pub(crate) const WORKERS: u8 = 2;
pub(crate) const TAGS: u8 = 3;
pub(crate) const KEYS: u8 = 2;

/// A version of duroxide.
pub(crate) type Version = (u64, u64, u64);

/// What executions are pinned to, and the ranges that dispatchers say they can replay; bounds belong to them.
pub(crate) const PINS: [Version; 5] = [(0, 4, 2), (1, 4, 2), (1, 4, 3), (2, 0, 0), (2, 0, 1)];
pub(crate) const RANGES: [(Version, Version); 3] =
    [((0, 0, 0), (0, 99, 99)), ((1, 0, 0), (1, 4, 2)), ((1, 4, 3), (2, 0, 0))];

/// Some of a few numbered things: a bit for each.
pub(crate) type Set = u8;

pub(crate) fn members(set: Set) -> impl Iterator<Item = u8> {
    (0..8).filter(move |no| set >> no & 1 == 1)
}

/// What a turn does beyond hearing its messages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TurnPlan {
    /// Activities it schedules: session and tag of each.
    pub(crate) activity: Option<(Option<u8>, Option<u8>)>,
    /// A timer, due after so many seconds.
    pub(crate) timer_s: Option<u8>,
    /// Starts this instance as its child, if it is one of those with a greater number.
    pub(crate) child: Option<u8>,
    pub(crate) value: Option<Change>,
    /// Custom statuses it sets or clears, one after the other.
    pub(crate) statuses: [Option<Option<u8>>; 2],
    /// Pins its execution to one of [`PINS`].
    pub(crate) pin: Option<u8>,
    /// Cancels the oldest activity of its instance, whoever works on it.
    pub(crate) cancels: bool,
    /// Begins the next execution although the present one still runs.
    pub(crate) skips: bool,
    pub(crate) end: End,
    /// Writes an event id that is there already.
    pub(crate) duplicate: bool,
}

/// What happens to the key-values.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Change {
    Set(u8, u8),
    Clear(u8),
    ClearAll,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Runs,
    Completed,
    Failed,
    ContinuedAsNew,
}

/// Which of the tokens that were ever given out: counted back from the newest.
pub(crate) type Token = u8;

#[derive(Debug, Clone, Copy)]
pub(crate) enum Tags {
    DefaultOnly,
    Only(Set),
    DefaultAnd(Set),
    Any,
    None,
}

/// Which instances a bulk operation is about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Which {
    pub(crate) ids: Option<Set>,
    /// Completed more than so many seconds ago.
    pub(crate) before_s: Option<u8>,
    pub(crate) limit: Option<u8>,
}

/// Which executions are pruned.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keep {
    pub(crate) last: Option<u8>,
    pub(crate) before_s: Option<u8>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Op {
    Start {
        instance: u8,
        /// One of those with a smaller number, whether or not it is there.
        parent: Option<u8>,
    },
    Raise {
        instance: u8,
        delay_s: Option<u8>,
    },
    /// A queued event, which is lost if nothing has started that could take it.
    Queue {
        instance: u8,
    },
    Work {
        instance: u8,
        session: Option<u8>,
        tag: Option<u8>,
    },
    /// By a dispatcher that replays some of [`RANGES`] only, or all there is.
    FetchTurn {
        ranges: Option<Set>,
    },
    /// Submits a fetch, lets it be answered, and drops it unheard.
    DropTurn,
    AckTurn {
        token: Token,
        plan: TurnPlan,
    },
    /// Fetches and acknowledges, so that instances come to something.
    WholeTurn {
        plan: TurnPlan,
    },
    AbandonTurn {
        token: Token,
        delay_s: Option<u8>,
        ignore_attempt: bool,
    },
    RenewTurn {
        token: Token,
    },
    FetchWork {
        worker: Option<u8>,
        tags: Tags,
    },
    DropWork {
        worker: Option<u8>,
    },
    AckWork {
        token: Token,
        completes: bool,
    },
    AbandonWork {
        token: Token,
        delay_s: Option<u8>,
        ignore_attempt: bool,
    },
    RenewWork {
        token: Token,
    },
    RenewSessions {
        workers: Set,
    },
    SweepSessions,
    /// Adds an event by hand.
    Append {
        instance: u8,
        duplicate: bool,
    },
    /// With everything that comes from it.
    Delete {
        instance: u8,
        force: bool,
    },
    /// These and no others, whatever their place in a tree.
    DeleteThese {
        ids: Set,
        force: bool,
    },
    DeleteBulk(Which),
    Prune {
        instance: u8,
        keep: Keep,
    },
    PruneBulk(Which, Keep),
    /// Both clocks.
    Advance(Duration),
    /// The wall clock alone.
    SetBack,
    Reopen,
}

/// How far the wall clock is set back.
pub(crate) const SET_BACK: Duration = Duration::from_secs(60);

/// How long leases last. No sum of the steps of the clock equals it, so nothing runs out at the very instant.
pub(crate) const LOCK: Duration = Duration::from_millis(30_001);
pub(crate) const IDLE: Duration = Duration::from_millis(40_003);

/// Takes the bytes off a slice, one at a time; zeros when there are none left.
pub(crate) struct Bytes<'a>(pub(crate) &'a [u8]);

impl Bytes<'_> {
    fn next(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub(crate) fn below(&mut self, bound: u8) -> u8 {
        self.next() % bound
    }

    fn flag(&mut self) -> bool {
        self.below(2) == 1
    }

    fn maybe(&mut self, bound: u8) -> Option<u8> {
        self.flag().then(|| self.below(bound))
    }

    /// Tokens are mostly the newest.
    fn token(&mut self) -> Token {
        let any = self.next();
        if any < 160 { 0 } else { any % 4 }
    }

    fn delay_s(&mut self) -> Option<u8> {
        self.maybe(3).map(|which| [1, 10, 50][usize::from(which)])
    }

    fn plan(&mut self) -> TurnPlan {
        let (bits, more) = (self.next(), self.next());
        TurnPlan {
            activity: (bits & 3 != 0).then(|| (self.maybe(SESSIONS), self.maybe(TAGS))),
            timer_s: if bits & 12 == 0 { Some(self.delay_s().unwrap_or(20)) } else { None },
            value: (bits & 16 == 0).then(|| match self.below(6) {
                0 => Change::ClearAll,
                1 => Change::Clear(self.below(KEYS)),
                _ => Change::Set(self.below(KEYS), self.below(9)),
            }),
            statuses: match bits & 32 {
                0 => [self.flag().then(|| self.maybe(9)), self.flag().then(|| self.maybe(9))],
                _ => [None; 2],
            },
            pin: (bits & 65 == 0).then(|| self.below(PINS.len() as u8)),
            cancels: bits & 192 == 192,
            child: (more & 3 == 0).then(|| self.below(INSTANCES)),
            skips: more >> 5 == 7,
            end: match self.below(8) {
                0 | 1 => End::Completed,
                2 => End::Failed,
                3 => End::ContinuedAsNew,
                _ => End::Runs,
            },
            duplicate: self.below(16) == 0,
        }
    }

    fn tags(&mut self) -> Tags {
        match self.below(6) {
            0 => Tags::DefaultOnly,
            1 => Tags::Only(self.below(1 << TAGS)),
            2 => Tags::DefaultAnd(self.below(1 << TAGS)),
            3 => Tags::None,
            _ => Tags::Any,
        }
    }

    fn before_s(&mut self) -> Option<u8> {
        self.maybe(3).map(|which| [0, 7, 30][usize::from(which)])
    }

    fn which(&mut self) -> Which {
        let ids = self.flag().then(|| self.below(1 << (INSTANCES + 1)));
        Which { ids, before_s: self.before_s(), limit: self.maybe(3) }
    }

    fn keep(&mut self) -> Keep {
        Keep { last: self.maybe(4), before_s: self.before_s() }
    }
}

impl Op {
    /// The next step; `None` at the end.
    pub(crate) fn from_bytes(bytes: &mut Bytes<'_>) -> Option<Self> {
        if bytes.0.is_empty() {
            return None;
        }
        let instance = |bytes: &mut Bytes<'_>| bytes.below(INSTANCES);
        let anybody = |bytes: &mut Bytes<'_>| bytes.below(INSTANCES + 1);
        Some(match bytes.below(64) {
            0..=5 => {
                let instance = instance(bytes);
                let parent = if instance == 0 { None } else { bytes.maybe(instance) };
                Op::Start { instance, parent }
            }
            6 | 7 => Op::Raise { instance: instance(bytes), delay_s: bytes.delay_s() },
            8 => Op::Queue { instance: instance(bytes) },
            9 | 10 => {
                Op::Work { instance: instance(bytes), session: bytes.maybe(SESSIONS), tag: bytes.maybe(TAGS) }
            }
            11..=14 => {
                let some = bytes.below(3) == 0;
                Op::FetchTurn { ranges: some.then(|| bytes.below(1 << RANGES.len())) }
            }
            15 => Op::DropTurn,
            16..=20 => Op::AckTurn { token: bytes.token(), plan: bytes.plan() },
            21 => Op::AbandonTurn {
                token: bytes.token(),
                delay_s: bytes.delay_s(),
                ignore_attempt: bytes.flag(),
            },
            22 => Op::RenewTurn { token: bytes.token() },
            23..=26 => Op::FetchWork { worker: bytes.maybe(WORKERS), tags: bytes.tags() },
            27 => Op::DropWork { worker: bytes.maybe(WORKERS) },
            28..=30 => Op::AckWork { token: bytes.token(), completes: bytes.flag() },
            31 => Op::AbandonWork {
                token: bytes.token(),
                delay_s: bytes.delay_s(),
                ignore_attempt: bytes.flag(),
            },
            32 => Op::RenewWork { token: bytes.token() },
            33 => Op::RenewSessions { workers: bytes.below(1 << WORKERS) },
            34 => Op::SweepSessions,
            35 => Op::Append { instance: instance(bytes), duplicate: bytes.below(4) == 0 },
            36 => Op::Delete { instance: anybody(bytes), force: bytes.flag() },
            37 => Op::DeleteThese { ids: bytes.below(1 << (INSTANCES + 1)), force: bytes.flag() },
            38..=40 => Op::DeleteBulk(bytes.which()),
            41 | 48 => Op::Prune { instance: anybody(bytes), keep: bytes.keep() },
            42 | 43 => Op::PruneBulk(bytes.which(), bytes.keep()),
            44 | 45 => Op::Advance(Duration::from_secs([1, 7, 31][usize::from(bytes.below(3))])),
            46 => Op::SetBack,
            47 => Op::Reopen,
            _ => Op::WholeTurn { plan: bytes.plan() },
        })
    }
}
