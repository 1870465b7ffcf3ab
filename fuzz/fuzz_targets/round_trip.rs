//! What is encoded comes back as it went in, and the record is the only one that gives it (encoded again, it
//! has the same bytes).
#![no_main]

use arbitrary::Unstructured;
use forebay::hooks::{decode_events, decode_work_item, encode_events, encode_work_item};
use forebay_fuzz::values;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut u = Unstructured::new(bytes);
    if let Ok(events) = values::events(&mut u) {
        let record = encode_events(&events).expect("nothing the fuzzer can make is too large");
        // What is in the list already stays.
        let mut decoded = events.clone();
        decode_events(&record, &mut decoded).expect("what was encoded decodes");
        assert_eq!(decoded[..events.len()], events[..]);
        assert_eq!(decoded[events.len()..], events[..]);
        assert_eq!(encode_events(&decoded[events.len()..]).expect("again"), record);
    }
    if let Ok(item) = values::item(&mut u) {
        let record = encode_work_item(&item).expect("nothing the fuzzer can make is too large");
        let decoded = decode_work_item(&record).expect("what was encoded decodes");
        assert_eq!(decoded, item);
        assert_eq!(encode_work_item(&decoded).expect("again"), record);
    }
});
