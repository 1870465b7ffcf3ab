//! One step of a sequence: what is done, with small numbers for who and what, so that steps collide often.
//!
//! Free of proptest, and made from bytes as well, so that a fuzzer can drive the same sequences.

use std::time::Duration;

/// Instances, sessions, workers and tags there are.
pub(crate) const INSTANCES: u8 = 3;
pub(crate) const SESSIONS: u8 = 2;
pub(crate) const WORKERS: u8 = 2;
pub(crate) const TAGS: u8 = 2;

/// What a turn does beyond hearing its messages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TurnPlan {
    /// Activities it schedules: session and tag of each.
    pub(crate) activity: Option<(Option<u8>, Option<u8>)>,
    /// A timer, due after so many seconds.
    pub(crate) timer_s: Option<u8>,
    /// Sets a value, or clears it.
    pub(crate) value: Option<Option<u8>>,
    pub(crate) status: Option<u8>,
    /// Pins its execution to a major version of duroxide.
    pub(crate) pin: Option<u8>,
    /// Cancels the oldest activity of its instance, whoever works on it.
    pub(crate) cancels: bool,
    pub(crate) end: End,
    /// Writes an event id that is there already.
    pub(crate) duplicate: bool,
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
    Only(u8),
    DefaultAnd(u8),
    Any,
    None,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Op {
    Start {
        instance: u8,
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
    /// By a dispatcher that replays one major version of duroxide only, or all of them.
    FetchTurn {
        major: Option<u8>,
    },
    /// Submits a fetch, lets it be answered, and drops it unheard.
    DropTurn,
    AckTurn {
        token: Token,
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
        worker: u8,
    },
    SweepSessions,
    /// Adds an event by hand.
    Append {
        instance: u8,
        duplicate: bool,
    },
    Delete {
        instance: u8,
        force: bool,
    },
    Prune {
        instance: u8,
        keep_last: u8,
    },
    /// Of the first so many instances.
    DeleteBulk {
        instances: u8,
    },
    PruneBulk {
        instances: u8,
        keep_last: u8,
    },
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
        let bits = self.next();
        TurnPlan {
            activity: (bits & 3 != 0).then(|| (self.maybe(SESSIONS), self.maybe(TAGS))),
            timer_s: if bits & 12 == 0 { Some(self.delay_s().unwrap_or(20)) } else { None },
            value: if bits & 16 == 0 { Some(self.maybe(9)) } else { None },
            status: if bits & 32 == 0 { self.maybe(9) } else { None },
            pin: if bits & 65 == 0 { Some(self.below(2)) } else { None },
            cancels: bits & 192 == 192,
            end: match self.below(12) {
                0 => End::Completed,
                1 => End::Failed,
                2 => End::ContinuedAsNew,
                _ => End::Runs,
            },
            duplicate: self.below(16) == 0,
        }
    }

    fn tags(&mut self) -> Tags {
        match self.below(6) {
            0 => Tags::DefaultOnly,
            1 => Tags::Only(self.below(TAGS)),
            2 => Tags::DefaultAnd(self.below(TAGS)),
            3 => Tags::None,
            _ => Tags::Any,
        }
    }
}

impl Op {
    /// The next step; `None` at the end.
    pub(crate) fn from_bytes(bytes: &mut Bytes<'_>) -> Option<Self> {
        if bytes.0.is_empty() {
            return None;
        }
        let instance = |bytes: &mut Bytes<'_>| bytes.below(INSTANCES);
        Some(match bytes.below(40) {
            0..=3 => Op::Start { instance: instance(bytes) },
            4 | 5 => Op::Raise { instance: instance(bytes), delay_s: bytes.delay_s() },
            6 => Op::Queue { instance: instance(bytes) },
            7 => {
                Op::Work { instance: instance(bytes), session: bytes.maybe(SESSIONS), tag: bytes.maybe(TAGS) }
            }
            8..=12 => Op::FetchTurn { major: if bytes.below(4) == 0 { Some(bytes.below(2)) } else { None } },
            13 => Op::DropTurn,
            14..=18 => Op::AckTurn { token: bytes.token(), plan: bytes.plan() },
            19 => Op::AbandonTurn {
                token: bytes.token(),
                delay_s: bytes.delay_s(),
                ignore_attempt: bytes.flag(),
            },
            20 => Op::RenewTurn { token: bytes.token() },
            21..=24 => Op::FetchWork { worker: bytes.maybe(WORKERS), tags: bytes.tags() },
            25 => Op::DropWork { worker: bytes.maybe(WORKERS) },
            26..=28 => Op::AckWork { token: bytes.token(), completes: bytes.flag() },
            29 => Op::AbandonWork {
                token: bytes.token(),
                delay_s: bytes.delay_s(),
                ignore_attempt: bytes.flag(),
            },
            30 => Op::RenewWork { token: bytes.token() },
            31 => Op::RenewSessions { worker: bytes.below(WORKERS) },
            32 => Op::SweepSessions,
            33 => Op::Append { instance: instance(bytes), duplicate: bytes.below(4) == 0 },
            34 => Op::Delete { instance: instance(bytes), force: bytes.flag() },
            35 => Op::Prune { instance: instance(bytes), keep_last: bytes.below(3) },
            36 | 37 => Op::Advance(Duration::from_secs([1, 7, 31][usize::from(bytes.below(3))])),
            38 => match bytes.below(3) {
                0 => Op::DeleteBulk { instances: bytes.below(INSTANCES + 1) },
                1 => Op::PruneBulk { instances: bytes.below(INSTANCES + 1), keep_last: bytes.below(3) },
                _ => Op::SetBack,
            },
            _ => Op::Reopen,
        })
    }
}
