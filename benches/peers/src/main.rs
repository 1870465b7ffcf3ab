//! The peers: duroxide's own `SqliteProvider` and, with the `pg` feature, duroxide-pg. A child of the
//! harness; speaks JSON lines (`benches/driver/serve.rs`).

#[path = "../../driver/mod.rs"]
mod driver;
mod fill;
#[cfg(feature = "pg")]
mod postgres;
mod sqlite;

use std::path::Path;

use async_trait::async_trait;
use driver::scale::Filling;
use driver::subject::{Problem, Store, Subjects};

struct Peers;

#[async_trait]
impl Subjects for Peers {
    async fn open(&self, subject: &str, file: &Path) -> Result<Box<dyn Store>, Problem> {
        match subject {
            "sqlite-file" => sqlite::in_file(file).await,
            "sqlite-memory" => sqlite::in_memory().await,
            #[cfg(feature = "pg")]
            "duroxide-pg" => postgres::open().await,
            other => Err(format!("no such peer: {other}").into()),
        }
    }

    async fn fill(&self, subject: &str, file: &Path, filling: &Filling) -> Result<(), Problem> {
        match subject {
            "sqlite-file" => fill::fill(file, filling).await,
            other => Err(format!("{other} has no file to fill").into()),
        }
    }
}

fn main() -> Result<(), Problem> {
    driver::serve::serve(&Peers)
}
