//! The one place time comes from.
//!
//! Leases and session locks run on [`Clock::monotonic`], so a jump of the wall clock can neither expire them
//! all at once nor keep them for ever. Timers and delayed visibility are wall time, because that is what
//! duroxide promises ("fire at this millisecond"), and what has to mean the same after a restart.
//!
//! Public with the feature `test-util` alone: tests of what is built on forebay give [`Options::clock`](crate::Options::clock)
//! a [`ManualClock`], and never sleep.

use std::fmt;
#[cfg(any(test, feature = "test-util"))]
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

#[cfg(any(test, feature = "test-util"))]
use parking_lot::Mutex;

/// A source of time. The default is [`SystemClock`]; tests hand an engine a [`ManualClock`], or one of their own that does
/// what a clock may do.
pub trait Clock: Send + Sync + fmt::Debug + 'static {
    /// Time since an arbitrary origin; never goes back, whatever the wall clock does.
    fn monotonic(&self) -> Duration;

    /// Milliseconds since the Unix epoch, as the machine believes them to be right now.
    fn wall_ms(&self) -> u64;

    /// Asks to be told when this clock jumps, which only a clock moved by hand can know. `wake` returns
    /// `false` once nobody listens any more.
    fn on_jump(&self, wake: JumpListener) {
        drop(wake);
    }
}

/// Called after a clock moved by hand has moved; answers `false` when it can be forgotten.
pub type JumpListener = Box<dyn Fn() -> bool + Send + Sync>;

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock {
    origin: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self { origin: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn monotonic(&self) -> Duration {
        self.origin.elapsed()
    }

    fn wall_ms(&self) -> u64 {
        // A machine set before 1970 reads as 1970: timers fire at once, which is loud; nothing is lost.
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, duration_ms)
    }
}

/// A clock that moves only when told to. Clones share the same time.
///
/// ```
/// use std::time::Duration;
/// use forebay::clock::{Clock, ManualClock};
///
/// let clock = ManualClock::new(1_000);
/// clock.advance(Duration::from_secs(30));
/// assert_eq!(clock.wall_ms(), 31_000);
/// ```
#[cfg(any(test, feature = "test-util"))]
#[derive(Clone)]
pub struct ManualClock {
    inner: Arc<Mutex<ManualTime>>,
}

#[cfg(any(test, feature = "test-util"))]
struct ManualTime {
    monotonic: Duration,
    wall_ms: u64,
    listeners: Vec<JumpListener>,
}

#[cfg(any(test, feature = "test-util"))]
impl ManualClock {
    /// A clock whose wall time is `wall_ms` milliseconds since the Unix epoch, standing still.
    pub fn new(wall_ms: u64) -> Self {
        let time = ManualTime { monotonic: Duration::ZERO, wall_ms, listeners: Vec::new() };
        Self { inner: Arc::new(Mutex::new(time)) }
    }

    /// Moves both the monotonic and the wall clock forward, as far as they go, and wakes every engine that runs on this clock.
    pub fn advance(&self, by: Duration) {
        self.change(|time| {
            time.monotonic = time.monotonic.saturating_add(by);
            time.wall_ms = time.wall_ms.saturating_add(duration_ms(by));
        });
    }

    /// Sets the wall clock alone, forward or back: what an administrator or a time server does to a machine.
    pub fn set_wall_ms(&self, wall_ms: u64) {
        self.change(|time| time.wall_ms = wall_ms);
    }

    fn change(&self, change: impl FnOnce(&mut ManualTime)) {
        let mut time = self.inner.lock();
        change(&mut time);
        time.listeners.retain(|wake| wake());
    }
}

#[cfg(any(test, feature = "test-util"))]
impl Clock for ManualClock {
    fn monotonic(&self) -> Duration {
        self.inner.lock().monotonic
    }

    fn wall_ms(&self) -> u64 {
        self.inner.lock().wall_ms
    }

    fn on_jump(&self, wake: JumpListener) {
        self.inner.lock().listeners.push(wake);
    }
}

#[cfg(any(test, feature = "test-util"))]
impl fmt::Debug for ManualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = self.inner.lock();
        f.debug_struct("ManualClock")
            .field("monotonic", &time.monotonic)
            .field("wall_ms", &time.wall_ms)
            .finish_non_exhaustive()
    }
}

/// A duration in whole milliseconds, saturating instead of wrapping.
pub(crate) fn duration_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
