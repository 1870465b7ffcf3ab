//! What this crate's own fuzz targets and micro-benchmarks need of its inside: the codec, the scheduling state,
//! the stores without the writer thread. Not part of the public interface.

pub mod by_hand;
pub mod scheduling;

use std::error::Error;

use duroxide::Event;
use duroxide::providers::WorkItem;

use crate::codec;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// What an engine over maps leaves to the next one: what a file is to SQLite.
#[derive(Clone, Default)]
pub struct Maps(crate::rows::maps::Kept);

impl Maps {
    /// duroxide's storage over plain maps: the same engine without SQLite.
    ///
    /// # Errors
    /// The options are not for a database in memory.
    pub fn open(&self, options: crate::Options) -> std::result::Result<crate::Forebay, crate::Error> {
        crate::provider::open_maps(&self.0, options)
    }

    /// Damages the history of an instance behind the back of an engine over maps; tells how many rows that was.
    ///
    /// # Errors
    /// The engine is closed, or is not over maps.
    pub fn corrupt_history(
        forebay: &crate::Forebay,
        instance: &str,
    ) -> std::result::Result<usize, crate::Error> {
        let instance = instance.to_owned();
        let corrupt = forebay.on_store(move |store| store.maps().map(|maps| maps.corrupt_history(&instance)));
        corrupt?.ok_or(crate::Error::Closed)
    }

    /// How often the message of an instance was tried that was tried most often.
    ///
    /// # Errors
    /// The engine is closed, or is not over maps.
    pub fn attempts(forebay: &crate::Forebay, instance: &str) -> std::result::Result<u32, crate::Error> {
        let instance = instance.to_owned();
        let attempts = forebay.on_store(move |store| store.maps().map(|maps| maps.attempts(&instance)));
        attempts?.ok_or(crate::Error::Closed)
    }

    /// From here on no batch can be written; or every one can be again.
    pub fn refuse_writes(&self, refuse: bool) {
        self.0.refuse_writes(refuse);
    }
}

/// One run of events as a record.
///
/// # Errors
/// The record would be too large.
pub fn encode_events(events: &[Event]) -> Result<Vec<u8>> {
    Ok(codec::encode_events(events, usize::MAX)?)
}

/// Appends the events of a record to `out`.
///
/// # Errors
/// It is no record of events; `out` is as it was.
pub fn decode_events(record: &[u8], out: &mut Vec<Event>) -> Result<()> {
    Ok(codec::decode_events(record, out)?)
}

/// One work item as a record.
///
/// # Errors
/// The record would be too large.
pub fn encode_work_item(item: &WorkItem) -> Result<Vec<u8>> {
    Ok(codec::encode_work_item(item)?)
}

/// The work item of a record.
///
/// # Errors
/// It is no record of a work item.
pub fn decode_work_item(record: &[u8]) -> Result<WorkItem> {
    Ok(codec::decode_work_item(record)?)
}
