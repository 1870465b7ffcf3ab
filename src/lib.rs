//! **forebay**: a batched write-ahead buffer in front of SQLite. Many threads submit, one thread writes, one transaction
//! holds a whole batch, and everybody is answered with a result of their own.
//!
//! As the storage of the duroxide runtime (the feature `duroxide`, on by default), in place of `SqliteProvider::new(..)`:
//!
//! ```
//! use std::sync::Arc;
//!
//! # #[cfg(feature = "duroxide")]
//! # async fn run(
//! #     activities: duroxide::runtime::registry::ActivityRegistry,
//! #     orchestrations: duroxide::OrchestrationRegistry,
//! # ) -> Result<(), Box<dyn std::error::Error>> {
//! # use duroxide::runtime::Runtime;
//! let store = Arc::new(forebay::Forebay::open("app.db")?);
//! let runtime = Runtime::start_with_store(store.clone(), activities, orchestrations).await;
//! // .. and at the end:
//! runtime.shutdown(None).await;
//! store.close()?;
//! # Ok(())
//! # }
//! ```
//!
//! As a writer of one's own SQLite file:
//!
//! ```
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let writer = forebay::Writer::open("ledger.db")?;
//! let ticket = writer.submit(|tx| tx.execute("INSERT INTO ledger VALUES ('rent', -900)", [])).await;
//! let rows = ticket.await?; // committed, and on the disk
//! let balance: i64 =
//!     writer.read(|conn| conn.query_row("SELECT sum(cents) FROM ledger", [], |row| row.get(0))).await?;
//! writer.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! Where to go from here: [`Forebay`] shows a whole program with duroxide; [`Writer`], and [`writer`] for what its closures may
//! do and return; [`Durability`] says what survives what; [`Error`] what to do when something fails; [`Stats`] what can be
//! watched.
//!
//! # Features
//!
//! - `duroxide` (default): [`Forebay`], the storage provider. Without it the crate is the [`Writer`] alone.
//! - `test-util`: the module `clock`, for tests of what is built on forebay: a clock that is moved by hand, which
//!   `Options::clock` takes.
//!
//! # The path of one operation
//!
//! ```text
//!   duroxide Runtime / Client                any embedder (sync or async)
//!          │ Provider, ProviderAdmin                │ closures over a transaction
//!          ▼                                        ▼
//!   1 provider/   encodes, on the caller's thread   Writer
//!          │ operation + reply slot                 │
//!          ▼                                        ▼
//!   2 buffer/     bounded channel ──► ONE writer thread
//!          │ collect → prepare → apply → settle → COMMIT → reply
//!          ▼
//!   3 engine/     checks and decides in memory, stages rows ◄──► queue/ (leases, timers, sessions, parked fetches)
//!          │ the whole batch, once
//!          ▼
//!   4 rows/       by table and key: SQLite, or maps in tests
//!          ▼
//!   5 sqlite/     one connection writes and checkpoints; a few query_only ones read
//!          ▼
//!       app.db    WAL, synchronous = NORMAL; a second thread syncs the log, and who has to waits for it
//! ```
//!
//! `codec/` is the format of stored records; `docs/design.md` in the repository has the invariants, the
//! crash cases and the schema.

// Parts of the shared layers (timers, nudges, in-memory databases) have the engine as their only user.
#![cfg_attr(not(feature = "duroxide"), allow(dead_code))]
#![warn(unreachable_pub)]
// Nothing a user can reach may panic.
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used))]

mod buffer;
#[cfg(feature = "test-util")]
pub mod clock;
#[cfg(not(feature = "test-util"))]
#[allow(unreachable_pub, reason = "what is public with the feature")]
mod clock;
#[cfg(feature = "duroxide")]
mod codec;
mod database;
#[cfg(feature = "duroxide")]
mod engine;
pub mod error;
mod fork;
#[cfg(all(feature = "test-hooks", feature = "duroxide"))]
#[doc(hidden)]
pub mod hooks;
#[cfg_attr(not(feature = "duroxide"), allow(unreachable_pub, reason = "what is public with the feature"))]
mod options;
#[cfg(feature = "duroxide")]
mod provider;
#[cfg(feature = "duroxide")]
mod queue;
#[cfg(feature = "duroxide")]
mod rows;
mod sqlite;
pub mod stats;
mod sync;
pub mod writer;

pub use error::Error;
pub use options::Durability;
#[cfg(feature = "duroxide")]
pub use options::Options;
#[cfg(feature = "duroxide")]
pub use provider::Forebay;
/// The rusqlite that closures and [`WriterOptions::on_open`] are given connections of. A dependent needs one of its own only
/// to switch on features of it (see there); there is one in a program, with the features of both.
pub use rusqlite;
pub use stats::Stats;
pub use writer::{Ticket, Writer, WriterOptions};
