//! Owns what can go wrong with a record.
//!
//! Invariants: a decode error says what was found and what was wanted, and keeps bincode's own error as
//! its source. It does not say which row the record came from: the codec does not know, its caller does.
//!
//! Rejected: one error for both ways. What cannot be written is the caller's value, and is refused before
//! it does harm; what cannot be read is damage, or a newer forebay, and someone has to hear of it.

use std::error::Error;
use std::fmt;

use super::{HEADER_BYTES, TooLarge};

/// A value that cannot become a record. Nothing was written.
#[derive(Debug)]
pub(crate) enum EncodeError {
    /// The record would be larger than it may be, or decoding it would take more memory than it may, so it is not
    /// written either. As far as it was encoded it has so many bytes; the first `fits` values of it fit.
    TooLarge { fits: usize, bytes: usize, bytes_max: usize },
    /// A list is longer than the codec stores.
    Body(bincode::error::EncodeError),
}

/// Bytes that are not a record, or not one this version can read.
#[derive(Debug)]
pub(crate) enum DecodeError {
    /// Not even a header.
    TooShort { found: usize },
    /// Decoding would take more memory than a record may. No such record is ever written.
    TooLarge { bytes_max: usize },
    /// The first byte names another format: a newer forebay wrote this, or it is no record.
    UnknownFormat { found: u8, supported: u8 },
    /// The bytes are not those that were written, or not where they were written (see `tie`).
    Checksum { stored: u32, computed: u32 },
    /// The value ends before its record does.
    TrailingBytes { unread: usize },
    /// The bytes are those that were written, and yet no value of the kind asked for.
    Body(bincode::error::DecodeError),
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { bytes, bytes_max, .. } => {
                write!(f, "too large for a record: {bytes} bytes and more, decoded it may take {bytes_max}")
            }
            Self::Body(_) => write!(f, "the value cannot be encoded"),
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort { found } => {
                write!(f, "too short for a record: {found} bytes, its header alone is {HEADER_BYTES}")
            }
            Self::TooLarge { bytes_max } => {
                write!(f, "too large for a record: it may take {bytes_max} bytes when decoded")
            }
            Self::UnknownFormat { found, supported } => {
                write!(f, "record format {found} is unknown, this version reads format {supported}")
            }
            Self::Checksum { stored, computed } => {
                write!(
                    f,
                    "record is damaged, or belongs to another row: its checksum is {stored:08x}, its bytes give \
                     {computed:08x}"
                )
            }
            Self::TrailingBytes { unread } => write!(f, "record has {unread} bytes after its end"),
            Self::Body(_) => write!(f, "record is intact but cannot be decoded"),
        }
    }
}

impl Error for EncodeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::TooLarge { .. } => None,
            Self::Body(source) => Some(source),
        }
    }
}

impl Error for DecodeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::TooShort { .. }
            | Self::TooLarge { .. }
            | Self::UnknownFormat { .. }
            | Self::Checksum { .. }
            | Self::TrailingBytes { .. } => None,
            Self::Body(source) => Some(source),
        }
    }
}

impl From<bincode::error::EncodeError> for EncodeError {
    fn from(source: bincode::error::EncodeError) -> Self {
        Self::Body(source)
    }
}

impl From<bincode::error::DecodeError> for DecodeError {
    fn from(source: bincode::error::DecodeError) -> Self {
        Self::Body(source)
    }
}

impl From<TooLarge> for DecodeError {
    fn from(TooLarge { bytes_max }: TooLarge) -> Self {
        Self::TooLarge { bytes_max }
    }
}
