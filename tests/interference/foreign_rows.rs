//! Somebody else writes the engine's tables while it runs, which nobody may (docs/guarantees.md). Where that makes a
//! statement fail, the batch is rolled back whole, its callers are told so, and the engine goes on.

use duroxide::providers::Provider;
use forebay::Options;
use rusqlite::Connection;

use crate::at_work::AtWork;
use crate::engine_support::{Place, bounded, completed, enqueue, fetch, start};

#[tokio::test]
async fn a_row_that_is_in_the_way_costs_the_batch_and_nothing_else() {
    let place = Place::new();
    let forebay = place.open(Options::default());
    let held = AtWork::on(&forebay).await;
    // The next ids, whichever they are.
    let foreign = Connection::open(place.path()).expect("it opens");
    let squat =
        "INSERT INTO messages SELECT (SELECT max(id) FROM messages) + column1, 'nobody', 2, 0, 0, X'00'
                 FROM (VALUES (1), (2), (3), (4))";
    assert_eq!(foreign.execute(squat, []).expect("nobody keeps it from doing so"), 4);

    // The turn is written, and then the messages cannot be.
    held.is_rolled_back(&forebay, "UNIQUE");
    assert_eq!(bounded(forebay.read("order")).await.expect("it is read").len(), 1, "nothing of the turn");

    foreign.execute("DELETE FROM messages WHERE instance = 'nobody'", []).expect("it thinks better of it");
    let done = AtWork::done().ack(&forebay, &held.turn.token);
    bounded(done).await.expect("the turn is still leased");
    bounded(forebay.ack_work_item(&held.work.token, Some(completed("order", 2))))
        .await
        .expect("so is the activity");
    enqueue(&forebay, start("other")).await;
    let answered = fetch(&forebay).await.expect("the activity's answer");
    assert_eq!((&answered.item.messages[..], answered.attempt), (&[completed("order", 2)][..], 1));
    assert_eq!(fetch(&forebay).await.expect("the other").item.instance, "other");
    forebay.close().expect("it closes");
}
