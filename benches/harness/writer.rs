//! Work 7: small transactions of an embedder, from many threads.

use crate::driver::job::{Job, Outcome, WriterLoad};
use crate::driver::subject::Problem;

pub(crate) fn run(_job: &Job, _load: &WriterLoad) -> Result<Outcome, Problem> {
    Err("not yet".into())
}
