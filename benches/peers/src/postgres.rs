//! duroxide-pg on the PostgreSQL that `DATABASE_URL` names, in a schema of its own that is dropped after.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use duroxide::providers::Provider;
use duroxide_pg::PostgresProvider;

use crate::driver::subject::{Problem, Store};

static OPENED: AtomicU32 = AtomicU32::new(0);

struct Opened {
    provider: Arc<PostgresProvider>,
}

#[async_trait]
impl Store for Opened {
    fn provider(&self) -> Arc<dyn Provider> {
        Arc::clone(&self.provider) as Arc<dyn Provider>
    }

    async fn close(self: Box<Self>) -> Result<(), Problem> {
        self.provider.cleanup_schema().await?;
        Ok(())
    }
}

pub(crate) async fn open() -> Result<Box<dyn Store>, Problem> {
    let url = std::env::var("DATABASE_URL").map_err(|_| "DATABASE_URL is not set")?;
    let schema = format!("forebay_{}_{}", std::process::id(), OPENED.fetch_add(1, Ordering::Relaxed));
    let provider = PostgresProvider::new_with_schema(&url, Some(&schema)).await?;
    Ok(Box::new(Opened { provider: Arc::new(provider) }))
}
