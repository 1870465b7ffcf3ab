//! Owns the proof that a record gives back what went in, refuses everything else, and keeps its bytes.
//!
//! `FOREBAY_BLESS=1 cargo test codec` writes `tests/golden/records.txt` anew. A sample that is added there
//! is a new line; a line that *changes* is a new format, and needs a new `FORMAT_VERSION` and a migration.

#![allow(clippy::unwrap_used)]

use std::error::Error;
use std::fmt::Write;

use duroxide::EventKind;
use proptest::prelude::*;

use super::carried::{CARRIED_MAX, Carried};
use super::samples::{self, Sample};
use super::{strategies, variants, *};

const GOLDEN: &str = include_str!("../../tests/golden/records.txt");
const GOLDEN_PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/records.txt");

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

fn unhex(hex: &str) -> Vec<u8> {
    hex.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// A record with this body and the header that belongs to it, so that what is tested is the body.
fn record_of(body: &[u8]) -> Vec<u8> {
    let mut record = vec![FORMAT_VERSION];
    record.extend(crc32c::crc32c(body).to_le_bytes());
    record.extend(body);
    record
}

fn decode_run(record: &[u8]) -> Result<Vec<Event>, DecodeError> {
    let mut events = Vec::new();
    decode_events(record, &mut events)?;
    Ok(events)
}

fn continue_as_new(carried: usize) -> WorkItem {
    WorkItem::ContinueAsNew {
        instance: String::new(),
        orchestration: String::new(),
        input: String::new(),
        version: None,
        parent_instance: None,
        parent_id: None,
        parent_execution_id: None,
        carry_forward_events: vec![Default::default(); carried],
        initial_custom_status: None,
    }
}

#[test]
fn every_variant_has_a_sample() {
    for (all, found) in variants::occurring() {
        let missing: Vec<_> = all.iter().filter(|variant| !found.contains(variant)).collect();
        assert!(missing.is_empty(), "no sample of {missing:?}");
    }
}

#[test]
fn every_sample_comes_back() {
    for (name, sample) in samples::all() {
        assert_eq!(sample.decode(&sample.encode().unwrap()).unwrap(), sample, "{name}");
    }
}

#[test]
fn golden_bytes_hold() {
    let samples = samples::all();
    if std::env::var_os("FOREBAY_BLESS").is_some_and(|set| set == "1") {
        let lines =
            samples.iter().map(|(name, sample)| format!("{name} {}\n", hex(&sample.encode().unwrap())));
        std::fs::write(GOLDEN_PATH, lines.collect::<String>()).unwrap();
        return;
    }
    let golden: Vec<_> = GOLDEN.lines().filter_map(|line| line.split_once(' ')).collect();
    let names = |all: &mut dyn Iterator<Item = &str>| all.map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(
        names(&mut samples.iter().map(|(name, _)| name.as_str())),
        names(&mut golden.iter().map(|(name, _)| *name)),
        "samples and golden lines differ"
    );
    for ((name, sample), (_, golden)) in samples.iter().zip(golden) {
        assert_eq!(hex(&sample.encode().unwrap()), golden, "{name} is written in other bytes than before");
        assert_eq!(sample.decode(&unhex(golden)).unwrap(), *sample, "{name} is read as something else");
    }
}

#[test]
fn a_turn_shares_what_its_events_have_in_common() {
    let seven = samples::seven_events();
    let one = encode_events(&seven[..1], usize::MAX).unwrap().len();
    let two = encode_events(&[seven[0].clone(), seven[0].clone()], usize::MAX).unwrap().len();
    // Id, absent source, absent origin, clock, kind, and the string behind its length.
    assert_eq!(two - one, 5 + 1 + r#"{"ok":true}"#.len());
}

#[test]
fn decoding_appends_and_an_error_leaves_the_rest_alone() {
    let run = samples::seven_events();
    let record = encode_events(&run, usize::MAX).unwrap();
    let mut out = run[..2].to_vec();
    decode_events(&record, &mut out).unwrap();
    assert_eq!(out, [&run[..2], &run[..]].concat());

    // Six events are read before the body ends.
    let cut = record_of(&record[HEADER_BYTES..record.len() - 1]);
    let error = decode_events(&cut, &mut out).unwrap_err();
    assert!(matches!(error, DecodeError::Body(_)), "{error:?}");
    assert_eq!(out, [&run[..2], &run[..]].concat());
}

#[test]
fn every_damaged_bit_is_refused() {
    for (name, sample) in samples::all() {
        let mut record = sample.encode().unwrap();
        for bit in 0..record.len() * 8 {
            record[bit / 8] ^= 1 << (bit % 8);
            let refused = sample.decode(&record).unwrap_err();
            match bit {
                0..8 => assert!(matches!(refused, DecodeError::UnknownFormat { .. }), "{name}, bit {bit}"),
                _ => assert!(matches!(refused, DecodeError::Checksum { .. }), "{name}, bit {bit}"),
            }
            record[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

#[test]
fn every_truncation_is_refused_even_with_a_right_checksum() {
    for (name, sample) in samples::all() {
        let record = sample.encode().unwrap();
        for len in 0..record.len() {
            let refused = sample.decode(&record[..len]).unwrap_err();
            match len {
                0..HEADER_BYTES => {
                    assert!(matches!(refused, DecodeError::TooShort { .. }), "{name} at {len}")
                }
                _ => assert!(matches!(refused, DecodeError::Checksum { .. }), "{name} at {len}"),
            }
        }
        let body = &record[HEADER_BYTES..];
        for len in 0..body.len() {
            let refused = sample.decode(&record_of(&body[..len])).unwrap_err();
            assert!(matches!(refused, DecodeError::Body(_)), "{name}, body cut at {len}: {refused:?}");
        }
    }
}

#[test]
fn bytes_after_the_end_are_refused() {
    for (name, sample) in samples::all() {
        let body = [&sample.encode().unwrap()[HEADER_BYTES..], &[0, 0]].concat();
        let refused = sample.decode(&record_of(&body)).unwrap_err();
        assert!(matches!(refused, DecodeError::TrailingBytes { unread: 2 }), "{name}: {refused:?}");
    }
}

#[test]
fn a_newer_format_is_named_before_anything_else_is_looked_at() {
    let refused = decode_run(&[2]).unwrap_err();
    assert_eq!(refused.to_string(), "record format 2 is unknown, this version reads format 1");
}

#[test]
fn what_can_be_written_under_a_limit_can_be_read_under_it() {
    for (name, sample) in samples::all() {
        let record = sample.encode().unwrap();
        let fits = |bytes_max| match &sample {
            Sample::Run(run) => (
                encode_events_within(run, usize::MAX, bytes_max).is_ok(),
                decode_events_within(&record, Binding::NONE, &mut Vec::new(), bytes_max).is_ok(),
            ),
            Sample::Item(item) => (
                encode_work_item_within(item, bytes_max).is_ok(),
                decode_work_item_within(&record, bytes_max).is_ok(),
            ),
        };
        let budget = record.len() + memory(&sample);
        assert_eq!(fits(budget), (true, true), "{name}");
        assert!((0..budget).all(|bytes_max| fits(bytes_max) == (false, false)), "{name}");
    }
}

/// Cut where it has to be and nowhere else, each piece is a record of its own; only a single value is refused.
#[test]
fn a_run_tells_how_much_of_it_fits() {
    let run = samples::seven_events();
    let whole = encode_events(&run, usize::MAX).unwrap().len();
    let largest = run.iter().map(|one| encode_events(std::slice::from_ref(one), usize::MAX).unwrap().len());
    let largest = largest.max().unwrap();
    for record_max in 0..=whole {
        for bytes_max in [usize::MAX, 2_000] {
            let (mut rest, mut read) = (&run[..], Vec::new());
            while !rest.is_empty() {
                let part = match encode_events_within(rest, record_max, bytes_max) {
                    Ok(_) => rest.len(),
                    Err(EncodeError::TooLarge { fits: 0, bytes, bytes_max }) => {
                        assert!(record_max < largest && bytes > record_max && bytes_max == record_max);
                        break;
                    }
                    Err(EncodeError::TooLarge { fits, .. }) => fits,
                    Err(other) => panic!("{other}"),
                };
                let (head, tail) = rest.split_at(part);
                let record = encode_events_within(head, record_max, bytes_max).unwrap();
                assert!(record.len() <= record_max);
                decode_events_within(&record, Binding::NONE, &mut read, bytes_max).unwrap();
                rest = tail;
            }
            assert!(record_max < largest || read == run, "{record_max}, {bytes_max}");
        }
    }
}

/// What a decoded sample is charged beside the bytes of its record.
fn memory(sample: &Sample) -> usize {
    let carried = match sample {
        Sample::Run(run) => run.iter().map(carried_by_event).sum(),
        Sample::Item(WorkItem::ContinueAsNew { carry_forward_events, .. }) => carry_forward_events.len(),
        Sample::Item(_) => 0,
    };
    let values = match sample {
        Sample::Run(run) => run.first().map_or(0, |first| {
            run.len() * (VALUE_BYTES + first.instance_id.len() + first.duroxide_version.len())
        }),
        Sample::Item(_) => VALUE_BYTES,
    };
    values + carried * CARRIED_BYTES
}

fn carried_by_event(event: &Event) -> usize {
    match &event.kind {
        EventKind::OrchestrationStarted { carry_forward_events: Some(carried), .. } => carried.len(),
        _ => 0,
    }
}

#[test]
fn a_small_record_cannot_ask_for_much_memory() {
    let mut event = samples::seven_events().remove(0);
    event.instance_id = "i".repeat(1 << 20);
    for (events, room) in [(256, false), (200, true), (u64::MAX, false), (1 << 40, false)] {
        let one = std::slice::from_ref(&event);
        let mut run = RunHeader::of(one);
        run.events = events;
        let mut body = Vec::new();
        encode_into_std_write(&run, &mut body, CONFIG).unwrap();
        let mut out = Vec::new();
        let refused = decode_events(&record_of(&body), &mut out).unwrap_err();
        match room {
            true => assert!(matches!(refused, DecodeError::Body(_)), "{events}: {refused:?}"),
            false => assert!(matches!(refused, DecodeError::TooLarge { .. }), "{events}: {refused:?}"),
        }
        assert!(out.capacity() <= 200);
    }
}

#[test]
fn a_carried_list_has_an_end() {
    let longest = continue_as_new(CARRIED_MAX);
    let record = encode_work_item(&longest).unwrap();
    assert_eq!(decode_work_item(&record).unwrap(), longest);

    let refused = encode_work_item(&continue_as_new(CARRIED_MAX + 1)).unwrap_err();
    assert!(refused.source().unwrap().to_string().contains("10001 carried events"));

    // The same list, written by someone who does not count: its length is two bytes, 0x2710 and one more.
    let mut body = record[HEADER_BYTES..].to_vec();
    let at = body.windows(3).position(|bytes| bytes == [251, 0x10, 0x27]).unwrap();
    body[at + 1] += 1;
    let refused = decode_work_item(&record_of(&body)).unwrap_err();
    assert!(refused.source().unwrap().to_string().contains("10001 carried events"));
}

#[test]
fn what_is_no_carried_list_is_refused_by_what_was_wanted() {
    // bincode never asks what was expected; a replacement that knows types of its own would.
    let refused = serde_json::from_str::<Carried<'_>>("5").err().unwrap();
    assert!(refused.to_string().contains("expected at most 10000 carried events"), "{refused}");
}

#[test]
fn errors_say_what_was_found() {
    assert_eq!(
        decode_run(&[]).unwrap_err().to_string(),
        "too short for a record: 0 bytes, its header alone is 5"
    );
    assert_eq!(
        decode_run(&[1, 0, 0, 0, 0, 0]).unwrap_err().to_string(),
        "record is damaged, or belongs to another row: its checksum is 00000000, its bytes give 527d5351"
    );
    let run = samples::seven_events();
    assert_eq!(
        encode_events_within(&run, usize::MAX, 1_000).unwrap_err().to_string(),
        "too large for a record: 133 bytes and more, decoded it may take 1000"
    );
    let record = encode_events_within(&run, usize::MAX, 1 << 20).unwrap();
    assert_eq!(
        decode_events_within(&record, Binding::NONE, &mut Vec::new(), 1_000).unwrap_err().to_string(),
        "too large for a record: it may take 1000 bytes when decoded"
    );
    let longer = record_of(&[&record[HEADER_BYTES..], &[0, 0]].concat());
    assert_eq!(decode_run(&longer).unwrap_err().to_string(), "record has 2 bytes after its end");
    let unknown_variant = record_of(&[255]);
    let refused = decode_work_item(&unknown_variant).unwrap_err();
    assert_eq!(refused.to_string(), "record is intact but cannot be decoded");
    assert!(refused.source().is_some());
}

/// The numbers are frozen: they are in every file of format 2.
#[test]
fn what_a_record_is_bound_to_is_its_instance_and_execution() {
    let name = |instance, execution| {
        let mut header = [FORMAT_VERSION, 0, 0, 0, 0, 7];
        bind(&mut header, instance, execution);
        assert_eq!((header[0], header[5]), (FORMAT_VERSION, 7), "only the checksum is mixed");
        u32::from_le_bytes([header[1], header[2], header[3], header[4]])
    };
    assert_eq!(
        [name("order-1", 1), name("order-1", 2), name("", 1)],
        [0xc25f_cb10, 0x6acc_cc13, 0xc514_cfad]
    );
    bind(&mut [FORMAT_VERSION, 0], "too short to be a record", 1);
}

proptest! {
    #[test]
    fn what_is_bound_comes_back_where_it_was_bound_and_nowhere_else(
        run in strategies::run(),
        here in any::<(String, u64)>(),
        there in any::<(String, u64)>(),
    ) {
        let mut record = encode_events(&run, usize::MAX).unwrap();
        prop_assert!(is_intact(&record));
        bind(&mut record, &here.0, here.1);
        prop_assert!(!is_intact(&record));
        prop_assert!(is_bound_to(&record, &here.0, here.1));
        let read_in = |(instance, execution): &(String, u64)| {
            let mut events = Vec::new();
            decode_bound_events(&record, instance, *execution, &mut events).map(|()| events)
        };
        prop_assert_eq!(read_in(&here).unwrap(), run);
        prop_assert_eq!(read_in(&there).is_ok(), here == there);
    }

    #[test]
    fn any_run_comes_back(run in strategies::run()) {
        let record = encode_events(&run, usize::MAX).unwrap();
        prop_assert_eq!(decode_run(&record).unwrap(), run);
    }

    #[test]
    fn any_work_item_comes_back(item in strategies::item()) {
        let record = encode_work_item(&item).unwrap();
        prop_assert_eq!(decode_work_item(&record).unwrap(), item);
    }

    #[test]
    fn any_damaged_bit_is_refused(run in strategies::run(), bit in any::<prop::sample::Index>()) {
        let mut record = encode_events(&run, usize::MAX).unwrap();
        let bit = bit.index(record.len() * 8);
        record[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(decode_run(&record).is_err());
    }

    #[test]
    fn any_bytes_are_no_reason_to_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        // As they are, and behind a right header: the second gets as far as bincode.
        for record in [bytes.clone(), record_of(&bytes)] {
            let _ = decode_run(&record);
            let _ = decode_work_item(&record);
        }
    }

    #[test]
    fn damage_behind_a_right_checksum_is_no_reason_to_panic(
        run in strategies::run(),
        item in strategies::item(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let run = encode_events(&run, usize::MAX).unwrap();
        let item = encode_work_item(&item).unwrap();
        for record in [run, item] {
            let mut body = record[HEADER_BYTES..].to_vec();
            for (at, byte) in &damage {
                let at = at.index(body.len());
                body[at] = *byte;
            }
            let record = record_of(&body);
            let _ = decode_run(&record);
            let _ = decode_work_item(&record);
        }
    }
}
