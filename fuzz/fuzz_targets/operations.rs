//! Arbitrary sequences of the provider's methods, against the model of `tests/provider_model/`.
#![no_main]
// The part of the test from several threads stays unused here.
#![allow(dead_code)]

#[path = "../../tests/provider_model/answer.rs"]
mod answer;
#[path = "../../tests/provider_model/engine.rs"]
mod engine;
#[path = "../../tests/engine_support/mod.rs"]
mod engine_support;
#[path = "../../tests/provider_model/model/mod.rs"]
mod model;
#[path = "../../tests/provider_model/op.rs"]
mod op;
#[path = "../../tests/provider_model/pair.rs"]
mod pair;
#[path = "../../tests/provider_model/planned.rs"]
mod planned;
#[path = "../../tests/provider_model/seen.rs"]
mod seen;

use engine::Engine;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| pair::run(Engine::in_memory(), bytes));
