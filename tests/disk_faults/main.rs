//! The disk fails at every I/O operation of a load: whoever waits is told what happened, nobody waits for ever,
//! and the engine goes on or stays failed as `docs/design.md`, "When something fails", says. The disk is
//! simulated (`disk/`).
//!
//! Every so many operations by default; all of them with
//! `FOREBAY_FAULTS=all cargo test --release --test disk_faults -- --nocapture`.

#[cfg(feature = "duroxide")]
mod deletions;
#[path = "../disk/mod.rs"]
mod disk;
#[cfg(feature = "duroxide")]
#[path = "../engine_support/mod.rs"]
mod engine_support;
#[cfg(feature = "duroxide")]
mod fetches;
mod full_disk;
#[path = "../loads/mod.rs"]
mod loads;
mod opening;
mod trial;

/// The same faults for every load.
macro_rules! faults {
    ($module:ident, $load:expr) => {
        mod $module {
            use forebay::Durability;

            use crate::loads::assert_none;
            use crate::loads::manner::Heard;
            use crate::loads::record::Doubt;
            use crate::trial::{Outcome, Part, fail_everywhere};

            const NAME: &str = stringify!($module);

            fn everything(durability: Durability) -> Outcome {
                let name = format!("{NAME}, {durability:?}");
                fail_everywhere(&name, $load, durability, Doubt::Honest, Part::AsAsked)
            }

            #[test]
            fn every_fault_at_full() {
                let outcome = everything(Durability::Full);
                assert_none(&outcome.wrong);
                if outcome.trials > 100 {
                    for heard in [Heard::RolledBack, Heard::Unknown, Heard::Failed] {
                        assert!(outcome.heard.contains_key(&heard), "nobody was told {heard:?}");
                    }
                }
            }

            #[test]
            fn every_fault_at_normal() {
                assert_none(&everything(Durability::Normal).wrong);
            }

            /// These tests can fail: an engine that says "rolled back" where it does not know is caught.
            #[test]
            fn certainty_that_nobody_has_is_caught() {
                let name = format!("{NAME}, too certain");
                let outcome =
                    fail_everywhere(&name, $load, Durability::Full, Doubt::Unwarranted, Part::Syncs);
                let caught = outcome.wrong.iter().any(|what| what.contains("NOT TAKEN BACK"));
                assert!(caught, "nothing was noticed: {:?}", outcome.wrong);
            }
        }
    };
}

#[cfg(feature = "duroxide")]
faults!(engine, crate::loads::orders::Orders);
faults!(writer, crate::loads::numbers::Numbered);
