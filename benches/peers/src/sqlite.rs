//! duroxide's `SqliteProvider`, as its users set it up: with its defaults.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use duroxide::providers::Provider;
use duroxide::providers::sqlite::SqliteProvider;

use crate::driver::subject::{Problem, Store};

struct Opened {
    provider: Arc<SqliteProvider>,
}

#[async_trait]
impl Store for Opened {
    fn provider(&self) -> Arc<dyn Provider> {
        Arc::clone(&self.provider) as Arc<dyn Provider>
    }

    async fn close(self: Box<Self>) -> Result<(), Problem> {
        self.provider.get_pool().close().await;
        Ok(())
    }
}

pub(crate) async fn in_file(file: &Path) -> Result<Box<dyn Store>, Problem> {
    // The URL is what its documentation shows; `mode=rwc` creates the file.
    let url = format!("sqlite:{}?mode=rwc", file.display());
    Ok(Box::new(Opened { provider: Arc::new(SqliteProvider::new(&url, None).await?) }))
}

pub(crate) async fn in_memory() -> Result<Box<dyn Store>, Problem> {
    Ok(Box::new(Opened { provider: Arc::new(SqliteProvider::new_in_memory().await?) }))
}
