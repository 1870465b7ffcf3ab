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
