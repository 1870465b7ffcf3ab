//! What decoded items take in memory is counted as it is, and bounded.

use duroxide::providers::WorkItem;

use super::*;

fn activity(input: &str) -> Box<WorkItem> {
    Box::new(WorkItem::ActivityExecute {
        instance: "instance".into(),
        execution_id: 1,
        id: 2,
        name: "Charge".into(),
        input: input.into(),
        session_id: None,
        tag: Some("gpu".into()),
    })
}

#[test]
fn a_full_budget_keeps_no_body_and_a_dropped_body_makes_room() {
    // Room for two small ones, not for three.
    let budget = BodyBudget::new(1_500);
    let first = budget.keep(activity("")).expect("there is room");
    let second = budget.keep(activity("")).expect("there is room for this and no more");
    assert!(budget.keep(activity(&"x".repeat(1_000))).is_none());
    assert_eq!(first.into_item(), activity(""));
    assert!(budget.keep(activity(&"x".repeat(1_500))).is_none(), "not that much is free");
    let third = budget.keep(activity(""));
    assert!(third.is_some());
    drop((second, third));
    assert!(budget.keep(activity(&"x".repeat(1_000))).is_some());
}

/// A record of some bytes becomes an item of many.
#[test]
fn small_items_are_counted_with_all_they_take() {
    let bytes_max = 1 << 20;
    let budget = BodyBudget::new(bytes_max);
    let kept: Vec<Body> = std::iter::from_fn(|| budget.keep(activity("{}"))).collect();
    let strings = ["instance", "Charge", "{}", "gpu"];
    let least = size_of::<Body>() + size_of::<WorkItem>() + strings.map(str::len).iter().sum::<usize>();
    assert!(kept.len() * least <= bytes_max, "{} items of {least} bytes and more", kept.len());
    assert!(kept.len() * 3 * least > bytes_max, "the count is not wildly more than is taken");
}

#[test]
fn a_list_that_is_carried_along_is_counted() {
    let carried = |pairs: usize| {
        Box::new(WorkItem::ContinueAsNew {
            instance: "instance".into(),
            orchestration: "Orders".into(),
            input: String::new(),
            version: None,
            parent_instance: None,
            parent_id: None,
            parent_execution_id: None,
            carry_forward_events: vec![(String::new(), String::new()); pairs],
            initial_custom_status: None,
        })
    };
    let budget = BodyBudget::new(10_000);
    assert!(budget.keep(carried(1_000)).is_none(), "an empty pair takes 48 bytes");
    assert!(budget.keep(carried(100)).is_some());
}
