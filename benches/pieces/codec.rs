//! Records: the first turn of a fan-out (6 events), and one queued activity.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use forebay::hooks;

use crate::fan_out::FanOut;

pub(crate) fn benches(criterion: &mut Criterion) {
    let fan_out = FanOut::numbered(7);
    let mut group = criterion.benchmark_group("codec");

    let events = fan_out.first_turn();
    let record = hooks::encode_events(&events).expect("a turn encodes");
    group.throughput(Throughput::Elements(events.len() as u64));
    group.bench_function("encode a turn of 6 events", |bencher| {
        bencher.iter(|| hooks::encode_events(black_box(&events)).expect("a turn encodes"));
    });
    let mut decoded = Vec::new();
    hooks::decode_events(&record, &mut decoded).expect("a record decodes");
    assert_eq!(decoded, events);
    group.bench_function("decode a turn of 6 events", |bencher| {
        bencher.iter(|| {
            decoded.clear();
            hooks::decode_events(black_box(&record), &mut decoded).expect("a record decodes");
        });
    });

    let item = fan_out.activities().swap_remove(0);
    let record = hooks::encode_work_item(&item).expect("an item encodes");
    group.throughput(Throughput::Elements(1));
    group.bench_function("encode a work item", |bencher| {
        bencher.iter(|| hooks::encode_work_item(black_box(&item)).expect("an item encodes"));
    });
    group.bench_function("decode a work item", |bencher| {
        bencher.iter(|| hooks::decode_work_item(black_box(&record)).expect("a record decodes"));
    });
    group.finish();
}
