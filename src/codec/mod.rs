//! Owns the bytes of a record: what a history row, a queued message and a queued work item hold.
//!
//! ```text
//! offset 0  format version  u8, 1
//!        1  crc32c          u32 LE, of everything that follows
//!        5  body            bincode 2, standard configuration (little endian, varint)
//!                           a work item: WorkItemRecord
//!                           a run of events: RunHeader, then RunHeader.events times EventRecord
//! ```
//!
//! Invariants:
//! - A value comes back exactly as it went in, or not at all. Damage of one bit is always seen, larger
//!   damage all but once in 2^32 times.
//! - Decoding never panics, whatever the bytes. It takes no more memory than [`RECORD_BYTES_MAX`], the
//!   record included, beside what `out` reserves to grow and a fixed scratch list (see `carried`).
//! - Whatever is written can be read: both ways keep to the same budget, so the refusal comes first, while
//!   the value is still in the hands of its owner. Only a single value is ever refused: a run says how many of
//!   its events fit, and the rest goes into the next record.
//! - The bytes are frozen by `tests/golden/records.txt`. bincode is finished and unmaintained; nothing
//!   outside this folder names it, and a replacement has to give the same bytes.
//!
//! A record does not say whether it holds events or a work item: its table does. Nor does it say whose history it
//! is a part of: a row of history is bound to that by its checksum (see [`bind`]).
//!
//! Rejected: bincode's limit as the only bound. It counts what is read, but every event gets a copy of the
//! run's instance id, so a small record can ask for any amount; and it is not enforced on writing.
//! Rejected: one bincode value for the whole run, which costs a second list of events either way.

mod carried;
mod details;
mod error;
mod event;
mod mirror;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod strategies;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod variants;
mod work_item;

use bincode::config::{self, Configuration, Limit, LittleEndian, Varint};
use bincode::serde::{borrow_decode_from_slice, encode_into_std_write};
use duroxide::Event;
use duroxide::providers::WorkItem;
use serde::Deserialize;

pub(crate) use error::{DecodeError, EncodeError};
use event::{EventRecord, RunHeader};
use mirror::Mirror;
use work_item::WorkItemRecord;

/// The first byte of every record written here. It is read before anything else, and never moves.
const FORMAT_VERSION: u8 = 1;

/// Format version and checksum.
const HEADER_BYTES: usize = 1 + size_of::<u32>();

/// The most memory that one decoded record takes, its own bytes included: the 256 MiB that an option may allow a
/// record, and what the values in it take beside their bytes. Far above any sane value, far below what ends a
/// process.
pub(crate) const RECORD_BYTES_MAX: usize = (256 << 20) + (1 << 20);

/// What one decoded event or work item is charged, beside its strings. A constant of the format, not
/// `size_of`, so that a record that was accepted stays readable when upstream's types grow a little.
const VALUE_BYTES: usize = 384;
const _: () = assert!(size_of::<Event>() <= VALUE_BYTES && size_of::<WorkItem>() <= VALUE_BYTES);

/// What one carried event is charged, beside its strings.
const CARRIED_BYTES: usize = 48;
const _: () = assert!(size_of::<(String, String)>() <= CARRIED_BYTES);

/// Room made at once for the bytes of an event or work item: most fit, a larger one grows its record once.
const ENCODED_BYTES_TYPICAL: usize = 64;

/// bincode charges eight bytes for a number that it reads from one. The charges above are higher still, so
/// its limit is never the first to be reached.
const CONFIG: Configuration<LittleEndian, Varint, Limit<RECORD_BYTES_MAX>> =
    config::standard().with_limit::<RECORD_BYTES_MAX>();

/// Encodes one run of events, in order, as one record of at most `record_max` bytes. An error tells how many of
/// the events fit, so that a long run can be cut where it has to be: it stops at the first that does not.
pub(crate) fn encode_events(events: &[Event], record_max: usize) -> Result<Vec<u8>, EncodeError> {
    encode_events_within(events, record_max, RECORD_BYTES_MAX)
}

/// Decodes one run of events that is bound to nothing, and appends it to `out`. After an error `out` holds what it held before.
#[cfg(any(test, feature = "test-hooks"))]
pub(crate) fn decode_events(record: &[u8], out: &mut Vec<Event>) -> Result<(), DecodeError> {
    decode_events_within(record, Binding::NONE, out, RECORD_BYTES_MAX)
}

/// Encodes one work item as one record.
pub(crate) fn encode_work_item(item: &WorkItem) -> Result<Vec<u8>, EncodeError> {
    encode_work_item_within(item, RECORD_BYTES_MAX)
}

/// Decodes one work item.
pub(crate) fn decode_work_item(record: &[u8]) -> Result<WorkItem, DecodeError> {
    decode_work_item_within(record, RECORD_BYTES_MAX)
}

/// Binds a record of events to the history it is a row of: its checksum is mixed with that of the history's name, so a
/// record that is read as a part of another does not decode. Done twice it is undone.
///
/// Not part of encoding: which instance a turn belongs to is known to the writer alone, and events need not
/// say (duroxide's own validations store events of one instance under another).
pub(crate) fn bind(record: &mut [u8], instance: &str, execution: u64) {
    let checksum = record.iter_mut().take(HEADER_BYTES).skip(1);
    let mixed_in = Binding::to(instance, execution).0.to_le_bytes();
    checksum.zip(mixed_in).for_each(|(byte, mixed_in)| *byte ^= mixed_in);
}

/// Decodes one run of events that is bound to this history, and appends it to `out`. After an error `out` holds what it
/// held before.
pub(crate) fn decode_bound_events(
    record: &[u8],
    instance: &str,
    execution: u64,
    out: &mut Vec<Event>,
) -> Result<(), DecodeError> {
    decode_events_within(record, Binding::to(instance, execution), out, RECORD_BYTES_MAX)
}

/// Whether a record is undamaged, and bound to this history.
pub(crate) fn is_bound_to(record: &[u8], instance: &str, execution: u64) -> bool {
    open(record, Binding::to(instance, execution), &mut Budget::new(RECORD_BYTES_MAX)).is_ok()
}

/// Whether a record is undamaged, and bound to nothing.
pub(crate) fn is_intact(record: &[u8]) -> bool {
    open(record, Binding::NONE, &mut Budget::new(RECORD_BYTES_MAX)).is_ok()
}

/// What the checksum of a record is mixed with.
#[derive(Clone, Copy)]
struct Binding(u32);

impl Binding {
    const NONE: Self = Self(0);

    fn to(instance: &str, execution: u64) -> Self {
        Self(crc32c::crc32c_append(crc32c::crc32c(&execution.to_le_bytes()), instance.as_bytes()))
    }
}

// The four again, with the limit as an argument: so that a test need not fill 256 MiB to reach it.

fn encode_events_within(
    events: &[Event],
    record_max: usize,
    bytes_max: usize,
) -> Result<Vec<u8>, EncodeError> {
    let run = RunHeader::of(events);
    let mut budget = Budget::new(bytes_max);
    let mut record = unsealed(events.len());
    encode_into_std_write(&run, &mut record, CONFIG)?;
    for (fits, event) in events.iter().enumerate() {
        let event = EventRecord::of(event, &run);
        encode_into_std_write(&event, &mut record, CONFIG)?;
        if record.len() > record_max {
            return Err(EncodeError::TooLarge { fits, bytes: record.len(), bytes_max: record_max });
        }
        // One at a time, and together with the bytes so far: a long run is not encoded to its end in vain.
        let charged = budget.charge(1, VALUE_BYTES + run.origin.string_bytes());
        let charged = charged.and_then(|()| budget.charge(event.carried(), CARRIED_BYTES));
        if charged.is_err() || budget.left < record.len() {
            return Err(EncodeError::TooLarge { fits, bytes: record.len(), bytes_max });
        }
    }
    seal(record, budget)
}

fn decode_events_within(
    record: &[u8],
    binding: Binding,
    out: &mut Vec<Event>,
    bytes_max: usize,
) -> Result<(), DecodeError> {
    let held = out.len();
    let decoded = append_events(record, binding, out, bytes_max);
    if decoded.is_err() {
        out.truncate(held);
    }
    decoded
}

fn append_events(
    record: &[u8],
    binding: Binding,
    out: &mut Vec<Event>,
    bytes_max: usize,
) -> Result<(), DecodeError> {
    let mut budget = Budget::new(bytes_max);
    let mut body = open(record, binding, &mut budget)?;
    let run: RunHeader<'_> = take(&mut body)?;
    // IMPORTANT: the charge comes before the room, or a record of twenty bytes reserves what it likes.
    let events = usize::try_from(run.events).unwrap_or(usize::MAX);
    budget.charge(events, VALUE_BYTES + run.origin.string_bytes())?;
    out.reserve(events.min(body.len()));
    for _ in 0..events {
        let event: EventRecord<'_> = take(&mut body)?;
        budget.charge(event.carried(), CARRIED_BYTES)?;
        out.push(event.into_event(&run));
    }
    end(body)
}

fn encode_work_item_within(item: &WorkItem, bytes_max: usize) -> Result<Vec<u8>, EncodeError> {
    let item = WorkItemRecord::of(item);
    let mut record = unsealed(1);
    encode_into_std_write(&item, &mut record, CONFIG)?;
    let mut budget = Budget::new(bytes_max);
    let charged = budget.charge(1, VALUE_BYTES).and_then(|()| budget.charge(item.carried(), CARRIED_BYTES));
    if charged.is_err() || budget.left < record.len() {
        return Err(EncodeError::TooLarge { fits: 0, bytes: record.len(), bytes_max });
    }
    seal(record, budget)
}

fn decode_work_item_within(record: &[u8], bytes_max: usize) -> Result<WorkItem, DecodeError> {
    let mut budget = Budget::new(bytes_max);
    let mut body = open(record, Binding::NONE, &mut budget)?;
    budget.charge(1, VALUE_BYTES)?;
    let item: WorkItemRecord<'_> = take(&mut body)?;
    budget.charge(item.carried(), CARRIED_BYTES)?;
    end(body)?;
    Ok(item.into_value())
}

/// A record with the room for its header, to append a body to.
fn unsealed(values: usize) -> Vec<u8> {
    let mut record = Vec::with_capacity(HEADER_BYTES + (values + 1) * ENCODED_BYTES_TYPICAL);
    record.extend_from_slice(&[0; HEADER_BYTES]);
    record
}

/// Completes the header of a record whose body is complete.
fn seal(mut record: Vec<u8>, mut budget: Budget) -> Result<Vec<u8>, EncodeError> {
    if budget.charge(record.len(), 1).is_err() {
        return Err(EncodeError::TooLarge { fits: 0, bytes: record.len(), bytes_max: budget.bytes_max });
    }
    let (header, body) = record.split_at_mut(HEADER_BYTES);
    header[0] = FORMAT_VERSION;
    header[1..].copy_from_slice(&crc32c::crc32c(body).to_le_bytes());
    Ok(record)
}

/// Checks a record and gives its body.
fn open<'a>(record: &'a [u8], binding: Binding, budget: &mut Budget) -> Result<&'a [u8], DecodeError> {
    let too_short = DecodeError::TooShort { found: record.len() };
    // IMPORTANT: the version decides what the rest means, so nothing else is looked at before it.
    let Some((&found, rest)) = record.split_first() else {
        return Err(too_short);
    };
    if found != FORMAT_VERSION {
        return Err(DecodeError::UnknownFormat { found, supported: FORMAT_VERSION });
    }
    let Some((stored, body)) = rest.split_first_chunk() else {
        return Err(too_short);
    };
    budget.charge(record.len(), 1)?;
    let (stored, computed) = (u32::from_le_bytes(*stored) ^ binding.0, crc32c::crc32c(body));
    if stored != computed {
        return Err(DecodeError::Checksum { stored, computed });
    }
    Ok(body)
}

/// Decodes the next value of a body and moves past it.
fn take<'a, T: Deserialize<'a>>(body: &mut &'a [u8]) -> Result<T, DecodeError> {
    let (value, read) = borrow_decode_from_slice(body, CONFIG)?;
    *body = body.get(read..).unwrap_or_default();
    Ok(value)
}

fn end(body: &[u8]) -> Result<(), DecodeError> {
    match body.len() {
        0 => Ok(()),
        unread => Err(DecodeError::TrailingBytes { unread }),
    }
}

/// What a record may still cost of its limit.
struct Budget {
    bytes_max: usize,
    left: usize,
}

struct TooLarge {
    bytes_max: usize,
}

impl Budget {
    fn new(bytes_max: usize) -> Self {
        Self { bytes_max, left: bytes_max }
    }

    fn charge(&mut self, count: usize, bytes_each: usize) -> Result<(), TooLarge> {
        let left = count.checked_mul(bytes_each).and_then(|bytes| self.left.checked_sub(bytes));
        self.left = left.ok_or(TooLarge { bytes_max: self.bytes_max })?;
        Ok(())
    }
}
