//! Somebody else writes the engine's tables while it runs, which nobody may (docs/guarantees.md). Where that makes a
//! statement fail, the batch is rolled back whole, its callers are told so, and the engine goes on.

use duroxide::providers::Provider;
use forebay::Options;
use rusqlite::Connection;

use crate::engine_support::polled::{Hold, Polled};
use crate::engine_support::{
    Place, Turn, activity, begin, bounded, completed, enqueue, enqueue_work, fetch, fetch_work, heard,
    raised, start,
};

#[tokio::test]
async fn a_row_that_is_in_the_way_costs_the_batch_and_nothing_else() {
    let place = Place::new();
    let forebay = place.open(Options::default());
    begin(&forebay, "order", Turn::first("order")).await;
    enqueue(&forebay, raised("order", "bell")).await;
    enqueue_work(&forebay, activity("order", 2)).await;
    let (turn, work) = (fetch(&forebay).await.expect("a turn"), fetch_work(&forebay).await.expect("work"));
    // The next ids, whichever they are.
    let foreign = Connection::open(place.path()).expect("it opens");
    let squat =
        "INSERT INTO messages SELECT (SELECT max(id) FROM messages) + column1, 'nobody', 2, 0, 0, X'00'
                 FROM (VALUES (1), (2), (3), (4))";
    assert_eq!(foreign.execute(squat, []).expect("nobody keeps it from doing so"), 4);

    // The turn is written, and then the messages cannot be.
    let hold = Hold::on(&forebay);
    let calls = [
        Polled::submitted(Turn::of(1, vec![heard("order", 2, "ring")]).ack(&forebay, &turn.token)),
        Polled::submitted(forebay.ack_work_item(&work.token, Some(completed("order", 2)))),
        Polled::submitted(forebay.enqueue_for_orchestrator(start("other"), None)),
    ];
    hold.release();
    for call in calls {
        let error = call.finish().expect_err("the ids are taken");
        assert!(error.is_retryable(), "{error}");
        assert!(error.message.contains("rolled back") && error.message.contains("UNIQUE"), "{error}");
    }
    assert_eq!(bounded(forebay.read("order")).await.expect("it is read").len(), 1, "nothing of the turn");

    foreign.execute("DELETE FROM messages WHERE instance = 'nobody'", []).expect("it thinks better of it");
    let done = Turn::of(1, vec![heard("order", 2, "ring")]).ack(&forebay, &turn.token);
    bounded(done).await.expect("the turn is still leased");
    bounded(forebay.ack_work_item(&work.token, Some(completed("order", 2))))
        .await
        .expect("so is the activity");
    enqueue(&forebay, start("other")).await;
    let answered = fetch(&forebay).await.expect("the activity's answer");
    assert_eq!((&answered.item.messages[..], answered.attempt), (&[completed("order", 2)][..], 1));
    assert_eq!(fetch(&forebay).await.expect("the other").item.instance, "other");
    forebay.close().expect("it closes");
}
