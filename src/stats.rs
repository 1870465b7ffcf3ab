//! What an engine has done, and what it is doing: see [`Stats`].

pub use crate::buffer::Stats;
