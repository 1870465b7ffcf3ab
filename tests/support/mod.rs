//! Where the engine under test comes from. This file alone knows its name; everything else in these
//! tests speaks to `Arc<dyn Provider>` through duroxide's own Runtime and Client.

use std::sync::Arc;

use duroxide::providers::Provider;
use forebay::{Forebay, Options};
use tempfile::TempDir;

pub(crate) mod host;
pub(crate) mod probe;

/// Where a scenario keeps its data. A file goes with its directory when the place is dropped.
pub(crate) enum Place {
    File(TempDir),
    Memory,
    /// In memory, with a limit that a test can exceed.
    SmallRecords,
}

/// The limit of [`Place::SmallRecords`].
pub(crate) const SMALL_RECORD: usize = 16 << 10;

impl Place {
    pub(crate) fn file() -> Place {
        Place::File(tempfile::tempdir().unwrap())
    }

    pub(crate) fn memory() -> Place {
        Place::Memory
    }

    pub(crate) async fn open(&self) -> Engine {
        let file = match self {
            Place::File(directory) => Some(directory.path().join("app.db")),
            Place::Memory | Place::SmallRecords => None,
        };
        let mut options = Options::default();
        if matches!(self, Place::SmallRecords) {
            options = options.record_bytes_max(SMALL_RECORD);
        }
        let open = move || match file {
            Some(file) => options.open(file),
            None => options.in_memory(),
        };
        Engine(tokio::task::spawn_blocking(open).await.unwrap().unwrap())
    }
}

/// An open engine.
pub(crate) struct Engine(Forebay);

impl Engine {
    pub(crate) fn provider(&self) -> Arc<dyn Provider> {
        Arc::new(self.0.clone())
    }

    /// Writes out what is buffered and lets go of the file.
    pub(crate) async fn close(self) {
        tokio::task::spawn_blocking(move || self.0.close()).await.unwrap().unwrap();
    }
}

/// Runs a scenario, `async fn(Place)`, on a file and in memory.
macro_rules! everywhere {
    ($($scenario:ident),+ $(,)?) => {$(
        mod $scenario {
            use crate::support::{Place, probe::in_time};

            #[tokio::test(flavor = "multi_thread")]
            async fn on_a_file() {
                in_time(super::$scenario(Place::file())).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn in_memory() {
                in_time(super::$scenario(Place::memory())).await;
            }
        }
    )+};
}

/// Runs a scenario that restarts, which takes a file to come back to.
macro_rules! across_a_restart {
    ($($scenario:ident),+ $(,)?) => {$(
        mod $scenario {
            use crate::support::{Place, probe::in_time};

            #[tokio::test(flavor = "multi_thread")]
            async fn on_a_file() {
                in_time(super::$scenario(Place::file())).await;
            }
        }
    )+};
}
