//! Table `kv`: one row a key of an instance, with its base and its delta.

use duroxide::providers::KvEntry;
use rusqlite::{Connection, params};

use super::{SqlResult, time};
use crate::rows::kv::{KvDelta, KvRow, KvRows};
use crate::rows::{InstanceKey, KvOp};

/// `kv.delta_kind`: what the running execution did to a key.
const UNTOUCHED: i64 = 0;
pub(super) const SET: i64 = 1;
pub(super) const CLEARED: i64 = 2;

pub(super) fn apply(connection: &Connection, instance: InstanceKey, op: &KvOp) -> SqlResult<()> {
    match op {
        KvOp::Set { key, value, at_ms } => {
            let mut statement = connection.prepare_cached(
                "INSERT INTO kv (instance, key, delta_kind, delta, delta_at_ms) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT DO UPDATE SET delta_kind = ?3, delta = ?4, delta_at_ms = ?5",
            )?;
            statement.execute(params![instance, key, SET, value, time(*at_ms)])?;
        }
        KvOp::Clear { key, at_ms } => clear(connection, instance, Some(key), *at_ms)?,
        KvOp::ClearAll { at_ms } => clear(connection, instance, None, *at_ms)?,
        KvOp::Fold => fold(connection, instance)?,
    }
    Ok(())
}

/// Clears one key, or all of them.
fn clear(connection: &Connection, instance: InstanceKey, key: Option<&str>, at_ms: u64) -> SqlResult<()> {
    let mut statement = connection.prepare_cached(
        "UPDATE kv SET delta_kind = ?3, delta = NULL, delta_at_ms = ?4
         WHERE instance = ?1 AND key = coalesce(?2, key)",
    )?;
    statement.execute(params![instance, key, CLEARED, time(at_ms)])?;
    Ok(())
}

fn fold(connection: &Connection, instance: InstanceKey) -> SqlResult<()> {
    let sql = "UPDATE kv SET base = delta, base_at_ms = delta_at_ms, delta_kind = ?2, delta = NULL
               WHERE instance = ?1 AND delta_kind = ?3";
    connection.prepare_cached(sql)?.execute(params![instance, UNTOUCHED, SET])?;
    let sql = "DELETE FROM kv WHERE instance = ?1 AND delta_kind = ?2";
    connection.prepare_cached(sql)?.execute(params![instance, CLEARED])?;
    Ok(())
}

/// What executions before the running one left behind.
pub(super) fn base(connection: &Connection, instance: InstanceKey) -> SqlResult<KvRows> {
    let sql = "SELECT key, base, base_at_ms FROM kv WHERE instance = ?1 AND base IS NOT NULL";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([instance], |row| {
        let last_updated_at_ms = row.get::<_, i64>(2)?.cast_unsigned();
        let base = Some(KvEntry { value: row.get(1)?, last_updated_at_ms });
        Ok((row.get(0)?, KvRow { base, delta: KvDelta::Untouched }))
    })?;
    Ok(KvRows(rows.collect::<SqlResult<_>>()?))
}

/// The rows of an instance, whole.
pub(super) fn rows(connection: &Connection, instance: InstanceKey) -> SqlResult<KvRows> {
    let sql = "SELECT key, base, base_at_ms, delta_kind, delta, delta_at_ms FROM kv WHERE instance = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([instance], |row| {
        let at_ms = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
        let base = match row.get(1)? {
            Some(value) => Some(KvEntry { value, last_updated_at_ms: at_ms(2)? }),
            None => None,
        };
        let delta = match row.get(3)? {
            SET => KvDelta::Set(row.get(4)?, at_ms(5)?),
            CLEARED => KvDelta::Cleared,
            _ => KvDelta::Untouched,
        };
        Ok((row.get(0)?, KvRow { base, delta }))
    })?;
    Ok(KvRows(rows.collect::<SqlResult<_>>()?))
}

pub(super) fn delete_all(connection: &Connection, instance: InstanceKey) -> SqlResult<()> {
    connection.prepare_cached("DELETE FROM kv WHERE instance = ?1")?.execute([instance])?;
    Ok(())
}
