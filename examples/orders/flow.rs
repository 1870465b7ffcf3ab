//! The order: reserve stock, charge the card, pick five lines at once, pack, wait for an approval, ship.
//!
//! Every value follows from the order's number, so `receipt` can say what an order must end with, and a
//! step that was lost, repeated or mixed up with another order's shows in the result.
//!
//! A step may run twice (the process dies after it ran and before that was recorded). So each activity is
//! idempotent: here it only computes; a real one would hand the order's number to the other side as its
//! idempotency key.

use std::time::Duration;

use duroxide::runtime::registry::ActivityRegistry;
use duroxide::{ActivityContext, OrchestrationContext, OrchestrationRegistry};

use crate::bells::Bells;

pub const RUN: &str = "run";
pub const ORDER: &str = "order";
const SHIPMENT: &str = "shipment";
/// The queue an order takes its approval from.
pub const APPROVAL: &str = "approval";
pub const APPROVED: &str = "approved";

/// The lines of an order; each is one picking task, and they are picked side by side.
pub const LINES: u64 = 5;
/// Activities the order itself schedules: reserve, charge and the lines. The shipment has its own.
pub const ORDER_ACTIVITIES: usize = 2 + LINES as usize;
/// The time to pack: a durable timer, short because someone is watching.
const PACK: Duration = Duration::from_millis(20);

/// The instance whose result is the number of orders in this run.
pub const RUN_ID: &str = "orders-run";

pub fn order_id(order: u64) -> String {
    format!("order-{order}")
}

/// The other way round; `None` for the run, the shipments, and whatever else a file may hold.
pub fn order_of(instance: &str) -> Option<u64> {
    instance.strip_prefix("order-")?.parse().ok()
}

pub fn shipment_id(order: u64) -> String {
    format!("shipment-{order}")
}

pub fn orchestrations() -> OrchestrationRegistry {
    OrchestrationRegistry::builder()
        .register(RUN, |_ctx, orders: String| async move { Ok(orders) })
        .register(ORDER, order)
        .register(SHIPMENT, shipment)
        .build()
}

async fn order(ctx: OrchestrationContext, input: String) -> Result<String, String> {
    let order = number(&input)?;
    let hold: String = ctx.schedule_activity_typed("reserve", &order).await?;
    let charge: String = ctx.schedule_activity_typed("charge", &(order, total_cents(order))).await?;

    let picks =
        (0..LINES).map(|line| ctx.schedule_activity_typed::<_, u64>("pick", &(order, line, &hold))).collect();
    let mut picked_cents = 0;
    for picked in ctx.join(picks).await {
        picked_cents += picked?;
    }

    ctx.schedule_timer(PACK).await;

    // A queue, not `schedule_wait`: an event raised before its order waits for it is dropped, and the
    // approval usually comes while the stock is still being reserved. A queue keeps it. A second approval
    // stays in the queue unread.
    let approval = ctx.dequeue_event(APPROVAL).await;
    if approval != APPROVED {
        return Err(format!("order {order} was turned down: {approval}"));
    }

    let parcel = ctx.schedule_sub_orchestration_with_id(SHIPMENT, shipment_id(order), input).await?;
    Ok(receipt_text(picked_cents, &hold, &charge, &parcel))
}

async fn shipment(ctx: OrchestrationContext, input: String) -> Result<String, String> {
    let order = number(&input)?;
    let label: String = ctx.schedule_activity_typed("label", &order).await?;
    ctx.schedule_activity_typed("dispatch", &(order, label)).await
}

pub fn activities(bells: &Bells) -> ActivityRegistry {
    let bells = bells.clone();
    ActivityRegistry::builder()
        .register_typed("reserve", |_: ActivityContext, order: u64| async move { Ok(hold_code(order)) })
        .register_typed("charge", |_: ActivityContext, (order, cents): (u64, u64)| async move {
            Ok(charge_code(order, cents))
        })
        .register_typed("pick", |_: ActivityContext, (order, line, hold): (u64, u64, String)| async move {
            if hold != hold_code(order) {
                return Err(format!("{hold} holds no stock for order {order}"));
            }
            Ok(line_cents(order, line))
        })
        .register_typed("label", |_: ActivityContext, order: u64| async move { Ok(label_code(order)) })
        .register_typed("dispatch", move |_: ActivityContext, (order, label): (u64, String)| {
            bells.ring(order);
            async move { Ok(label) }
        })
        .build()
}

/// What the order must end with.
pub fn receipt(order: u64) -> String {
    let cents = total_cents(order);
    receipt_text(cents, &hold_code(order), &charge_code(order, cents), &label_code(order))
}

fn receipt_text(cents: u64, hold: &str, charge: &str, parcel: &str) -> String {
    format!("total {}.{:02}, stock {hold}, payment {charge}, parcel {parcel}", cents / 100, cents % 100)
}

fn total_cents(order: u64) -> u64 {
    (0..LINES).map(|line| line_cents(order, line)).sum()
}

fn line_cents(order: u64, line: u64) -> u64 {
    let dice = mix(order * LINES + line);
    let (quantity, unit_cents) = (1 + dice % 3, 199 + (dice >> 8) % 9_800);
    quantity * unit_cents
}

fn hold_code(order: u64) -> String {
    format!("st-{order}-{:04x}", mix(order) & 0xffff)
}

fn charge_code(order: u64, cents: u64) -> String {
    format!("ch-{order}-{:08x}", mix(order ^ (cents << 24)) & 0xffff_ffff)
}

fn label_code(order: u64) -> String {
    format!("FB-{order:06}-{:04X}", mix(!order) & 0xffff)
}

/// Looks random and is not (the last step of SplitMix64).
fn mix(seed: u64) -> u64 {
    let mut x = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn number(input: &str) -> Result<u64, String> {
    input.parse().map_err(|_| format!("{input:?} is not an order's number"))
}
