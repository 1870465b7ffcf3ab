//! Which statements a closure may not prepare, and what it is told instead.

use rusqlite::hooks::AuthAction;

use crate::sqlite::{ENGINE_APPLICATION_ID, PRAGMAS_ASKING, SAVEPOINT};

/// Pragmas that do something although they have no value. All others without one report.
const PRAGMAS_DOING: &[&str] = &["incremental_vacuum", "wal_checkpoint"];

pub(super) fn objection(action: &AuthAction<'_>) -> Option<String> {
    match *action {
        AuthAction::Transaction { .. } => Some(
            "a closure shares its transaction with others: it can neither begin, commit nor roll back; \
             return an error to undo what it did, or use a savepoint of its own"
                .into(),
        ),
        AuthAction::Savepoint { savepoint_name, .. } if savepoint_name.eq_ignore_ascii_case(SAVEPOINT) => {
            Some(format!("the savepoint {SAVEPOINT} is the one a closure runs in: use another name"))
        }
        AuthAction::Attach { .. } | AuthAction::Detach { .. } => Some(
            "a closure cannot attach or detach a database (or VACUUM): the batch it shares commits in one file"
                .into(),
        ),
        AuthAction::Pragma { pragma_name, pragma_value } => object_to_pragma(pragma_name, pragma_value),
        _ => None,
    }
}

fn object_to_pragma(pragma: &str, value: Option<&str>) -> Option<String> {
    let is = |name: &str| pragma.eq_ignore_ascii_case(name);
    let any = |names: &[&str]| names.iter().any(|name| is(name));
    let Some(value) = value else {
        return any(PRAGMAS_DOING).then(|| {
            format!("PRAGMA {pragma} inside a closure is refused: the writer checkpoints and keeps its file itself")
        });
    };
    if any(PRAGMAS_ASKING) || is("user_version") {
        return None;
    }
    if is("application_id") {
        let plain = value.parse::<i64>().ok();
        return match plain {
            Some(id) if id != ENGINE_APPLICATION_ID => None,
            Some(_engine) => Some(format!(
                "PRAGMA application_id = {value} marks files of forebay's orchestration engine: use another number"
            )),
            None => Some(format!("PRAGMA application_id = {value}: write it as a plain decimal number")),
        };
    }
    Some(format!(
        "PRAGMA {pragma} with a value inside a closure could change the durability or the meaning of the whole \
         batch: use WriterOptions, or its on_open; without a value it may report"
    ))
}

/// Whether a statement adds, changes or drops temporary objects: their schema is a table, which is written to.
pub(super) fn touches_temporary_schema(action: &AuthAction<'_>) -> bool {
    match *action {
        AuthAction::Insert { table_name }
        | AuthAction::Delete { table_name }
        | AuthAction::Update { table_name, .. } => {
            table_name.get(..12).is_some_and(|start| start.eq_ignore_ascii_case("sqlite_temp_"))
        }
        _ => false,
    }
}
