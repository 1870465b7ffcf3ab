//! What the model has found, as the shortest sequence that shows it.

use crate::engine::Engine;
use crate::op::{End, Op, TurnPlan, Which};
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
