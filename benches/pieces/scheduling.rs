//! The scheduling state, with nothing and with much else waiting: what a fetch costs must not depend on it.

use std::sync::Arc;

use criterion::{BenchmarkId, Criterion};
use forebay::hooks::scheduling::Scheduling;

const WAITING: [usize; 2] = [1, 10_000];

pub(crate) fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("scheduling");
    for waiting in WAITING {
        let instances: Vec<Arc<str>> = (0..waiting).map(|n| Arc::from(format!("load-{n}"))).collect();

        let mut state = Scheduling::default();
        instances.iter().for_each(|instance| state.push_turn(instance));
        let mut next = instances.iter().cycle();
        group.bench_function(BenchmarkId::new("turn: push, match, lease, release", waiting), |bencher| {
            // The oldest goes and comes back last, so as many wait after it as before.
            bencher.iter(|| {
                assert!(state.run_turn(), "one waits");
                state.push_turn(next.next().expect("it goes round"));
            });
        });

        let mut state = Scheduling::default();
        instances.iter().for_each(|instance| state.push_work(instance));
        let mut next = instances.iter().cycle();
        group.bench_function(BenchmarkId::new("activity: push, match, lease, remove", waiting), |bencher| {
            bencher.iter(|| {
                assert!(state.run_work(), "one waits");
                state.push_work(next.next().expect("it goes round"));
            });
        });
    }
    group.finish();
}
