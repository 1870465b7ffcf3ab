//! Any bytes through the decoders of records: as they are, and again with a checksum that fits, so that what
//! lies behind it is reached. They give a value or an error, never a panic, and never take much more memory
//! than their input can account for. What decodes is a value that can be stored again and comes back equal.
#![no_main]

use forebay::hooks::{decode_events, decode_work_item, encode_events, encode_work_item};
use forebay_fuzz::allocated::{Counting, height_of};
use libfuzzer_sys::fuzz_target;

#[global_allocator]
static ALLOCATED: Counting = Counting;

/// What one byte of a record may cost: it is at most a fifth of an event, or half of a carried pair, each with
/// its Rust value in a list that doubles when it grows.
const BYTES_EACH_MAX: usize = 1024;

/// Error values, and bincode's own small buffers.
const BYTES_ALWAYS: usize = 16 << 10;

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    let mut stamped = vec![1];
    stamped.extend(crc32c::crc32c(bytes).to_le_bytes());
    stamped.extend(bytes);
    check(&stamped);
});

fn check(record: &[u8]) {
    // Every event gets a copy of the run's instance id and version, so a record can hold more text than bytes.
    let bytes_max = BYTES_ALWAYS + record.len() * (BYTES_EACH_MAX + record.len() / 4);

    let mut events = Vec::new();
    let (decoded, bytes) = height_of(|| decode_events(record, &mut events));
    assert!(bytes <= bytes_max, "{} bytes of record took {bytes}", record.len());
    match decoded {
        Ok(()) => {
            let again = encode_events(&events).expect("what decodes can be stored");
            let mut decoded = Vec::new();
            decode_events(&again, &mut decoded).expect("what was encoded decodes");
            assert_eq!(decoded, events);
        }
        Err(error) => {
            assert!(events.is_empty(), "an error leaves nothing behind");
            let _ = format!("{error:#}");
        }
    }

    let (decoded, bytes) = height_of(|| decode_work_item(record));
    assert!(bytes <= bytes_max, "{} bytes of record took {bytes}", record.len());
    if let Ok(item) = decoded {
        let again = encode_work_item(&item).expect("what decodes can be stored");
        assert_eq!(decode_work_item(&again).expect("what was encoded decodes"), item);
    }
}
