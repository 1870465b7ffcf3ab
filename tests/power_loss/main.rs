//! Power is lost at every I/O operation of a load, and at thousands of random ones: what was acknowledged is
//! there, nothing is there by halves, and the file is sound. The disk is simulated (`disk/`); what was not
//! synced is dropped, reordered and torn.
//!
//! `FOREBAY_CUTS=100000 cargo test --release --test power_loss -- --nocapture random`; `FOREBAY_SEED` for
//! another series.

#[path = "../disk/mod.rs"]
mod disk;
#[cfg(feature = "duroxide")]
#[path = "../engine_support/mod.rs"]
mod engine_support;
#[path = "../loads/mod.rs"]
mod loads;
#[cfg(feature = "duroxide")]
mod observer;
mod trial;

/// The same cuts for every load.
macro_rules! cuts {
    ($module:ident, $load:expr) => {
        mod $module {
            use forebay::Durability;

            use crate::disk::Lies;
            use crate::loads::assert_none;
            use crate::trial::{Setting, cut_at_random, cut_everywhere, cuts};

            const NAME: &str = stringify!($module);

            #[test]
            fn everywhere_at_full() {
                let setting = Setting::honest(Durability::Full);
                assert_none(&cut_everywhere(&format!("{NAME}, full"), $load, setting));
            }

            #[test]
            fn everywhere_at_normal() {
                let setting = Setting::honest(Durability::Normal);
                assert_none(&cut_everywhere(&format!("{NAME}, normal"), $load, setting));
            }

            #[test]
            fn random_at_full() {
                let setting = Setting::honest(Durability::Full);
                assert_none(&cut_at_random(&format!("{NAME}, full, random"), $load, setting, cuts(300)));
            }

            #[test]
            fn random_at_normal() {
                let setting = Setting::honest(Durability::Normal);
                assert_none(&cut_at_random(&format!("{NAME}, normal, random"), $load, setting, cuts(300)));
            }

            /// These tests can fail: an engine that leaves out the fsync of a commit is caught.
            #[test]
            fn an_engine_without_fsync_is_caught() {
                let setting = Setting { promised: Durability::Full, ..Setting::honest(Durability::Normal) };
                let wrong = cut_at_random(&format!("{NAME}, no fsync"), $load, setting, 60);
                assert!(wrong.iter().any(|what| what.contains("LOST")), "nothing was noticed");
            }

            /// And a disk whose syncs do nothing is caught, whatever the engine does.
            #[test]
            fn a_disk_that_lies_is_caught() {
                let setting = Setting { lies: Lies::EverySync, ..Setting::honest(Durability::Full) };
                let wrong = cut_at_random(&format!("{NAME}, lies"), $load, setting, 60);
                assert!(wrong.iter().any(|what| what.contains("LOST")), "nothing was noticed");
            }

            /// The promise of `Normal`, never a hole, rests on checkpoints that sync: without that it is
            /// broken, and that is caught too.
            #[test]
            fn a_checkpoint_that_does_not_sync_is_caught() {
                let setting = Setting { lies: Lies::DatabaseSync, ..Setting::honest(Durability::Normal) };
                let wrong = cut_at_random(&format!("{NAME}, unsynced checkpoints"), $load, setting, 120);
                assert!(!wrong.is_empty(), "nothing was noticed");
            }
        }
    };
}

#[cfg(feature = "duroxide")]
cuts!(engine, crate::loads::orders::Orders);
cuts!(writer, crate::loads::numbers::Numbered);
