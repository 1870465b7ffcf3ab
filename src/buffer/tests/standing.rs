//! Answers that are given whatever becomes of their batch.

use super::*;

/// Whatever fails, and however: those that neither write nor rely on what is written are not told of it.
#[test]
fn an_answer_that_stands_is_given_whatever_becomes_of_its_batch() {
    let unknown =
        [(Phase::Commit, Fault::Unknown), (Phase::Commit, Fault::Panic), (Phase::Settle, Fault::Panic)];
    let certain = [Phase::Apply, Phase::Settle, Phase::Commit].map(|phase| (phase, Fault::Error));
    for (phase, fault) in certain.into_iter().chain(unknown) {
        let bench = Bench::new();
        answer(bench.submit(Op::Add(7))).unwrap();
        let ops = vec![Op::Add(1), Op::Break(phase, fault), Op::Add(2), Op::RefuseForGood, Op::Ask];
        let answers = bench.one_batch(ops);
        let failed = |answer: &Result<u32, Error>| {
            matches!(answer, Err(Error::RolledBack { .. } | Error::OutcomeUnknown { .. }))
        };
        assert!(answers[..3].iter().all(failed), "{phase:?} {fault:?}: {answers:?}");
        let stands = matches!(answers[3..], [Err(Error::InvalidInput { .. }), Ok(7)]);
        assert!(stands, "{phase:?} {fault:?}: {answers:?}");
    }
}
