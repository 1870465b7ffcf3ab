//! How a database comes to harm: byte by byte, page by page, cell by cell.

use std::fs;

use arbitrary::{Result, Unstructured};
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use crate::written::{Tables, Written, folder};

/// More would leave nothing.
const HARMS_MAX: usize = 12;

pub struct Damaged {
    pub main: Vec<u8>,
    pub log: Vec<u8>,
    pub touched: Tables,
}

/// A copy of what was written, spoilt as the fuzzer's bytes say.
pub fn damaged(written: &Written, u: &mut Unstructured<'_>) -> Result<Damaged> {
    let mut damaged = Damaged { main: written.main.clone(), log: written.log.clone(), touched: Tables::NONE };
    // Cells first, while SQLite can still find them; where there is a log it would be gone afterwards.
    if written.log.is_empty() && u.arbitrary()? {
        damaged.cells(u)?;
    }
    // With the cells the pages may have moved.
    let moved = damaged.touched != Tables::NONE;
    for _ in 0..HARMS_MAX {
        if u.is_empty() {
            break;
        }
        let in_log = !damaged.log.is_empty() && u.arbitrary()?;
        let (from, to) = damaged.bytes(in_log, u)?;
        damaged.touched = damaged.touched.and(if in_log || moved {
            Tables::ALL
        } else {
            (from / written.page_bytes..=to / written.page_bytes)
                .fold(Tables::NONE, |all, page| all.and(written.table_of(page * written.page_bytes)))
        });
    }
    Ok(damaged)
}

impl Damaged {
    /// Returns the first and the last byte that may have changed.
    fn bytes(&mut self, in_log: bool, u: &mut Unstructured<'_>) -> Result<(usize, usize)> {
        let file = if in_log { &mut self.log } else { &mut self.main };
        let end = file.len().saturating_sub(1);
        if file.is_empty() {
            return Ok((0, 0));
        }
        let at = u.int_in_range(0..=end)?;
        Ok(match u.int_in_range(0..=5_u8)? {
            0 | 1 => {
                file[at] ^= u.arbitrary::<u8>()?;
                (at, at)
            }
            2 => {
                let to = (at + usize::from(u.arbitrary::<u8>()?)).min(end);
                file[at..=to].fill(u.arbitrary()?);
                (at, to)
            }
            3 => {
                let bytes: [u8; 4] = u.arbitrary()?;
                let to = (at + 3).min(end);
                file[at..=to].copy_from_slice(&bytes[..=to - at]);
                (at, to)
            }
            // A sector that was written in another place.
            4 => {
                let sector = |at: usize| at / 512 * 512;
                let from = sector(u.int_in_range(0..=end)?);
                let to = sector(at);
                let bytes = 512.min(file.len() - from).min(file.len() - to);
                file.copy_within(from..from + bytes, to);
                (to, to + bytes - 1)
            }
            _ => {
                file.truncate(at);
                (at, end)
            }
        })
    }

    /// Changes, moves and removes cells, as damage would that leaves the tree of pages whole.
    fn cells(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let path = folder().join("cells.db");
        fs::write(&path, &self.main).expect("there is room");
        let connection = Connection::open(&path).expect("it opens");
        for _ in 0..u.int_in_range(1..=3_u8)? {
            let table = u.choose(&TABLES)?;
            if cell(&connection, table, u)? {
                self.touched = self.touched.and(table.tables);
            }
        }
        connection.close().expect("it closes");
        self.main = fs::read(&path).expect("it is there");
        Ok(())
    }
}

struct Table {
    name: &'static str,
    key: &'static str,
    columns: &'static [(&'static str, Kind)],
    tables: Tables,
}

#[derive(Clone, Copy)]
enum Kind {
    Number,
    Text,
    Record,
}
use Kind::{Number, Record, Text};

const TABLES: [Table; 6] = [
    Table {
        name: "instances",
        key: "key",
        columns: &[
            ("key", Number),
            ("id", Text),
            ("name", Text),
            ("version", Text),
            ("execution", Number),
            ("parent", Text),
            ("custom_status", Text),
            ("custom_status_version", Number),
            ("created_at_ms", Number),
        ],
        tables: Tables::INSTANCES,
    },
    Table {
        name: "executions",
        key: "instance, execution",
        columns: &[
            ("instance", Number),
            ("execution", Number),
            ("status", Text),
            ("output", Text),
            ("pinned", Text),
            ("started_at_ms", Number),
            ("completed_at_ms", Number),
        ],
        tables: Tables::EXECUTIONS,
    },
    Table {
        name: "history",
        key: "instance, execution, first_event",
        columns: &[
            ("instance", Number),
            ("execution", Number),
            ("first_event", Number),
            ("last_event", Number),
            ("written_at_ms", Number),
            ("record", Record),
        ],
        tables: Tables::HISTORY,
    },
    Table {
        name: "messages",
        key: "id",
        columns: &[
            ("id", Number),
            ("instance", Text),
            ("kind", Number),
            ("visible_at_ms", Number),
            ("attempt", Number),
            ("record", Record),
        ],
        tables: Tables::MESSAGES,
    },
    Table {
        name: "work",
        key: "id",
        columns: &[
            ("id", Number),
            ("instance", Text),
            ("execution", Number),
            ("activity", Number),
            ("session", Text),
            ("tag", Text),
            ("visible_at_ms", Number),
            ("attempt", Number),
            ("record", Record),
        ],
        tables: Tables::WORK,
    },
    Table {
        name: "kv",
        key: "instance, key",
        columns: &[
            ("instance", Number),
            ("key", Text),
            ("base", Text),
            ("base_at_ms", Number),
            ("delta_kind", Number),
            ("delta", Text),
            ("delta_at_ms", Number),
        ],
        tables: Tables::KV,
    },
];

/// False if the table would not have it.
fn cell(connection: &Connection, table: &Table, u: &mut Unstructured<'_>) -> Result<bool> {
    let Table { name, key, columns, .. } = table;
    let row = u.int_in_range(0..=7_u8)?;
    let place = format!("({key}) = (SELECT {key} FROM {name} LIMIT 1 OFFSET {row})");
    if u.int_in_range(0..=7_u8)? == 0 {
        let changed = connection.execute(&format!("DELETE FROM {name} WHERE {place}"), []);
        return Ok(changed.is_ok_and(|rows| rows > 0));
    }
    let (column, kind) = u.choose(columns)?;
    let (to, values) = match kind {
        Number => {
            let number = match u.int_in_range(0..=8_u8)? {
                0 => i64::MAX,
                1 => i64::MIN,
                2 => -1,
                3 => 1 << 32,
                4 => u.arbitrary()?,
                _ => i64::from(u.int_in_range(0..=6_u8)?),
            };
            ("?1", vec![Value::Integer(number)])
        }
        Text => match u.int_in_range(0..=9_u8)? {
            0 => ("NULL", vec![]),
            1 => ("CAST(x'ff61' AS TEXT)", vec![]),
            2 => ("CAST(x'610062' AS TEXT)", vec![]),
            _ => {
                let words =
                    ["", "ada", "bob", "eve", "dan", "Running", "Completed", "gpu", "0.1.32", "1.0.0"];
                ("?1", vec![Value::Text((*u.choose(&words)?).to_owned())])
            }
        },
        Record => {
            let other = *u.choose(&["history", "messages", "work"])?;
            let from = u.int_in_range(0..=7_u8)?;
            let sql = format!("SELECT record FROM {other} LIMIT 1 OFFSET {from}");
            let record = connection.query_row(&sql, [], |row| row.get::<_, Vec<u8>>(0));
            ("?1", vec![Value::Blob(record.unwrap_or_default())])
        }
    };
    let sql = format!("UPDATE {name} SET {column} = {to} WHERE {place}");
    Ok(connection.execute(&sql, params_from_iter(values)).is_ok_and(|rows| rows > 0))
}
