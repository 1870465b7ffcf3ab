//! What an engine has done, and what it is doing: [`Stats`], which is in the crate's root as well.

pub use crate::buffer::{Stats, Times};
