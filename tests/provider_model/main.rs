//! The provider against a model: random sequences of its methods, moved clocks, dropped futures and reopening
//! included; after every step the answers agree, and in the end everything that can be read and taken does.
//! And the same from several threads at once, where some order of the calls has to explain the answers.
//!
//! `PROPTEST_CASES=20000 cargo test --release --test provider_model -- --nocapture` for more.
#![cfg(feature = "duroxide")]

mod answer;
mod concurrent;
mod engine;
#[path = "../engine_support/mod.rs"]
mod engine_support;
mod model;
mod op;
mod pair;
mod planned;
mod regressions;
mod seen;

use engine::Engine;
use forebay::Durability;
use proptest::prelude::*;

/// Everything is read after every step, so a case is a thousand calls: fewer of them unless more are asked for.
fn config() -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig { cases: asked.unwrap_or(48), failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn in_memory(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        pair::run(Engine::in_memory(), &bytes);
    }

    #[test]
    fn over_maps(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        pair::run(Engine::over_maps(), &bytes);
    }

    #[test]
    fn over_maps_where_every_batch_is_rolled_back_first(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        pair::run(Engine::over_maps().failing_first(), &bytes);
    }

    #[test]
    fn on_a_file(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        pair::run(Engine::on_a_file(Durability::Full), &bytes);
    }

    /// A batch that is rolled back leaves nothing behind, in the file or in memory: nobody can tell afterwards.
    #[test]
    fn in_memory_where_every_batch_is_rolled_back_first(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        pair::run(Engine::in_memory().failing_first(), &bytes);
    }

    #[test]
    fn on_a_file_where_every_batch_is_rolled_back_first(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        pair::run(Engine::on_a_file(Durability::Normal).failing_first(), &bytes);
    }

    #[test]
    fn from_several_threads_in_memory(bytes in proptest::collection::vec(any::<u8>(), concurrent::BYTES)) {
        concurrent::check(&Engine::in_memory(), &bytes);
    }

    #[test]
    fn from_several_threads_on_a_file(bytes in proptest::collection::vec(any::<u8>(), concurrent::BYTES)) {
        concurrent::check(&Engine::on_a_file(Durability::Full), &bytes);
        concurrent::check(&Engine::on_a_file(Durability::Normal), &bytes);
    }
}
