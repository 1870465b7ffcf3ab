//! What the model has found, as the shortest sequence that shows it; and what chance comes to so rarely that an
//! engine broken on purpose was not caught.

use crate::engine::Engine;
use crate::op::{End, Keep, Op, TurnPlan, Which};
use crate::pair;

const PLAN: TurnPlan = TurnPlan {
    activity: None,
    timer_s: None,
    child: None,
    value: None,
    statuses: [None; 2],
    pin: None,
    cancels: false,
    skips: false,
    end: End::Runs,
    duplicate: false,
};

const COMPLETES: TurnPlan = TurnPlan { end: End::Completed, ..PLAN };

/// A bulk deletion took as many finished roots as its limit says and only then left out those with a child that
/// still runs. So the oldest of them stood in the way of all the others: however often it was repeated, a
/// deletion in portions deleted nothing more. The limit is applied last (`ProviderAdmin::delete_instance_bulk`).
#[test]
fn a_tree_that_still_runs_does_not_use_up_the_limit_of_a_bulk_deletion() {
    let portion = Which { ids: None, before_s: None, limit: Some(1) };
    pair::run_steps(
        Engine::in_memory(),
        [
            Op::Start { instance: 0, parent: None },
            Op::WholeTurn { plan: TurnPlan { child: Some(1), ..COMPLETES } },
            Op::WholeTurn { plan: PLAN },
            Op::Start { instance: 2, parent: None },
            Op::WholeTurn { plan: COMPLETES },
            Op::DeleteBulk(portion),
        ],
    );
}

/// Its next execution begins with a turn that names somebody else.
#[test]
fn the_parent_of_an_instance_stays_who_it_was_at_first() {
    pair::run_steps(
        Engine::in_memory(),
        [
            Op::Start { instance: 2, parent: Some(0) },
            Op::WholeTurn { plan: TurnPlan { end: End::ContinuedAsNew, ..PLAN } },
            Op::Start { instance: 2, parent: Some(1) },
            Op::WholeTurn { plan: PLAN },
        ],
    );
}

/// Nor is it pruned when it is no longer the current one.
#[test]
fn an_execution_that_still_runs_is_not_pruned() {
    pair::run_steps(
        Engine::in_memory(),
        [
            Op::Start { instance: 0, parent: None },
            Op::WholeTurn { plan: PLAN },
            Op::Raise { instance: 0, delay_s: None },
            Op::WholeTurn { plan: TurnPlan { skips: true, ..PLAN } },
            Op::Prune { instance: 0, keep: Keep { last: None, before_s: None } },
        ],
    );
}
