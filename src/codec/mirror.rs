//! Owns the [`mirror!`] macro and the trait behind it: how a duroxide enum and its stored form are tied.
//!
//! Invariants: each variant and each field is stated once, in a table that is at the same time the stored
//! enum, the way in and the way out. Both ways name every variant and every field (no `..`, no wildcard),
//! so that an addition upstream stops the build. The way in borrows every string, the way out copies it once.
//!
//! Rejected: writing the enum and the two conversions by hand. It is three lists of the same names, some
//! nine hundred lines in all, in which two strings of one variant change places without a word from the
//! compiler. Rejected too: a table of strings at run time; only the compiler can see what is missing.

/// The stored form of a [`Value`](Mirror::Value), with its strings belonging to someone else.
pub(super) trait Mirror<'a>: Sized {
    type Value;

    fn of(value: &'a Self::Value) -> Self;
    fn into_value(self) -> Self::Value;
}

impl<'a> Mirror<'a> for &'a str {
    type Value = String;

    fn of(value: &'a String) -> Self {
        value
    }

    fn into_value(self) -> String {
        self.to_owned()
    }
}

impl<'a, T: Mirror<'a>> Mirror<'a> for Option<T> {
    type Value = Option<T::Value>;

    fn of(value: &'a Self::Value) -> Self {
        value.as_ref().map(T::of)
    }

    fn into_value(self) -> Self::Value {
        self.map(T::into_value)
    }
}

macro_rules! mirror_as_is {
    ($($plain:ty),*) => { $(
        impl Mirror<'_> for $plain {
            type Value = $plain;

            fn of(value: &$plain) -> Self {
                *value
            }

            fn into_value(self) -> $plain {
                self
            }
        }
    )* };
}

mirror_as_is!(bool, u32, u64);

/// Declares `$Record` as the stored form of the enum `$Value`. The order of the table is the format.
///
/// The lifetime, where there is one, has to be `'a`, and some field has to be a plain `&'a str`: that is
/// what makes serde's derive borrow from the record.
macro_rules! mirror {
    (
        enum $Record:ident $(<$a:lifetime>)? for $Value:ident {
            $( $Variant:ident $( { $( $field:ident: $Field:ty ),* $(,)? } )? ),* $(,)?
        }
    ) => {
        #[derive(serde::Serialize, serde::Deserialize)]
        pub(super) enum $Record $(<$a>)? {
            $( $Variant $( { $( $field: $Field ),* } )? ),*
        }

        impl<'a> $crate::codec::mirror::Mirror<'a> for $Record $(<$a>)? {
            type Value = $Value;

            fn of(value: &'a $Value) -> Self {
                match value {
                    $( $Value::$Variant $( { $( $field ),* } )? => Self::$Variant $( {
                        $( $field: <$Field as $crate::codec::mirror::Mirror<'a>>::of($field) ),*
                    } )? ),*
                }
            }

            fn into_value(self) -> $Value {
                match self {
                    $( Self::$Variant $( { $( $field ),* } )? => $Value::$Variant $( {
                        $( $field: <$Field as $crate::codec::mirror::Mirror<'a>>::into_value($field) ),*
                    } )? ),*
                }
            }
        }
    };
}

pub(super) use mirror;
