//! What the fuzz targets share.
//!
//! - [`values`]: duroxide's events and work items, any of them, from the fuzzer's bytes;
//! - [`allocated`]: how much memory a piece of work took at its height;
//! - [`written`]: a small database and what is true of it;
//! - [`damage`]: the ways in which the fuzzer's bytes spoil it;
//! - [`asked`]: everything a database can be asked, and whether the answers may stand.
//!
//! A panic on any thread ends the process: libFuzzer's hook aborts, also for a panic that the writer thread
//! would have caught.

pub mod allocated;
pub mod asked;
pub mod damage;
pub mod values;
pub mod written;
