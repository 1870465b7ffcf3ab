//! The net effect of a batch on the rows of a queue, against a table that is told of every step.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn changes_are_the_net_effect_of_what_was_done(steps in vec((0i64..6, 0u8..7, 0u32..4), 0..120)) {
        // What the table holds, and what it would hold if every step were a statement of its own.
        let mut table: BTreeMap<i64, Schedule> = (0..3).map(|id| (id, schedule(0))).collect();
        let (mut expected, mut committed) = (table.clone(), table.clone());
        let mut next = 3;
        let mut changes = Changes::<&str>::default();
        for (id, action, attempt) in steps {
            match (action, expected.contains_key(&id)) {
                // Ids are never used twice.
                (0, _) => {
                    changes.insert(next, "row", schedule(0));
                    expected.insert(next, schedule(0));
                    next += 1;
                }
                (1 | 2, true) => {
                    changes.set_attempt(id, schedule(attempt));
                    expected.insert(id, schedule(attempt));
                }
                (3, true) => {
                    changes.reschedule(id, schedule(attempt));
                    expected.insert(id, schedule(attempt));
                }
                (4, true) => {
                    changes.delete(id);
                    expected.remove(&id);
                }
                (5, _) => {
                    write(&mut table, &mut changes);
                    changes.committed();
                    committed.clone_from(&expected);
                    prop_assert!(says(&table, &expected, true), "{table:?} for {expected:?}");
                }
                (6, _) => {
                    write(&mut table.clone(), &mut changes);
                    changes.rolled_back();
                    expected.clone_from(&committed);
                    prop_assert!(changes.is_empty());
                }
                _ => {}
            }
        }
        write(&mut table, &mut changes);
        changes.committed();
        changes.put_attempts_right(Duration::ZERO, true);
        write(&mut table, &mut changes);
        prop_assert!(says(&table, &expected, false), "{table:?} for {expected:?}");
        prop_assert!(changes.is_empty());
    }
}

/// What the statements of a batch do.
fn write(table: &mut BTreeMap<i64, Schedule>, changes: &mut Changes<&str>) {
    for (id, change) in changes.drain(Duration::ZERO) {
        match change {
            Change::Insert(_, schedule) => assert!(table.insert(id, schedule).is_none()),
            Change::Update(schedule) => assert!(table.insert(id, schedule).is_some()),
            Change::Delete => assert!(table.remove(&id).is_some()),
        }
    }
}

/// Whether the rows are as they should be; with `ahead`, a first attempt may be counted before it is made.
fn says(table: &BTreeMap<i64, Schedule>, expected: &BTreeMap<i64, Schedule>, ahead: bool) -> bool {
    let is_so =
        |row: &Schedule, said: &Schedule| row == said || (ahead && (row.attempt, said.attempt) == (1, 0));
    table.keys().eq(expected.keys())
        && table.values().zip(expected.values()).all(|(row, said)| is_so(row, said))
}

fn schedule(attempt: u32) -> Schedule {
    Schedule { visible_at_ms: 0, attempt }
}

#[test]
fn a_bounded_number_of_rows_is_ahead() {
    let mut changes = Changes::default();
    (1..=3000).for_each(|id| changes.insert(id, "row", schedule(0)));
    let ahead = changes
        .drain(Duration::ZERO)
        .filter(|(_, change)| *change == Change::Insert("row", schedule(1)))
        .count();
    assert_eq!(ahead, 1024);
    changes.committed();
    assert_eq!(changes.next_deadline(), Some(Duration::from_millis(300)));
    changes.put_attempts_right(Duration::from_millis(299), false);
    assert!(changes.is_empty(), "they may be taken yet");
    changes.put_attempts_right(Duration::from_millis(300), false);
    assert_eq!(changes.drain(Duration::ZERO).count(), 1024, "they are put right, and nothing else is");
}

#[test]
fn what_comes_and_goes_within_a_batch_is_nothing() {
    let mut changes = Changes::<()>::default();
    changes.insert(1, (), schedule(0));
    changes.delete(1);
    assert!(changes.is_empty());
}

#[test]
fn a_row_is_there_for_a_reader_from_its_insert_to_the_end_of_its_batch() {
    let mut changes = Changes::default();
    changes.insert(1, "row", schedule(0));
    changes.set_attempt(1, schedule(1));
    changes.set_attempt(2, schedule(1));
    assert_eq!((changes.inserted(1), changes.inserted(2), changes.inserted(3)), (Some(&"row"), None, None));
    assert!(!changes.is_empty());
    let staged: Vec<_> = changes.drain(Duration::ZERO).collect();
    assert_eq!(staged, [(1, Change::Insert("row", schedule(1))), (2, Change::Update(schedule(1)))]);
    assert!(changes.is_empty() && changes.inserted(1).is_none());
}
