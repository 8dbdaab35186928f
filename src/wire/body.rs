//! How the body of a control frame is written down: values one after the other, and behind them *fields*
//! that a receiver need not know.
//!
//! [`body!`] makes a struct, its encoding and its decoding out of one list, so that a field is added in one
//! place: a line in the list of [`super::control`]. The tables on the page of the protocol
//! ([`crate::manual::protocol`]) and the golden bytes in the tests are to follow.

use super::header::{Kind, WireError};
use crate::lane::LaneId;

/// A value of a fixed form.
pub(crate) trait Value: Sized {
    fn put(&self, out: &mut Vec<u8>);
    fn take(from: &mut Cursor<'_>) -> Result<Self, WireError>;
}

/// A value behind the fixed ones, which may be missing: then it is the default of its type.
pub(crate) trait Field: Sized {
    fn is_missing(&self) -> bool;
    fn put(&self, out: &mut Vec<u8>);
    fn take(from: Cursor<'_>) -> Result<Self, WireError>;
}

/// An entry of a list. A later version may make entries longer: their length stands before them.
pub(crate) trait Entry: Value {
    /// The length of an entry in this version, in bytes.
    const LEN: u8;
}

/// The id and the length before a field.
pub(crate) const FIELD_HEAD_LEN: usize = 3;

/// The rest of a body, or of one field of it.
#[derive(Clone, Copy)]
pub(crate) struct Cursor<'a> {
    kind: Kind,
    /// The field that is being read, for errors.
    field: &'static str,
    pub(super) rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(kind: Kind, body: &'a [u8]) -> Self {
        Cursor { kind, field: "", rest: body }
    }

    /// The next value, which is called `field`.
    pub(crate) fn value<V: Value>(&mut self, field: &'static str) -> Result<V, WireError> {
        self.field = field;
        V::take(self)
    }

    /// The next field: its id, and what is in it. They come in ascending order, each once.
    pub(crate) fn next_field(&mut self, before: &mut Option<u8>) -> Result<Option<(u8, Self)>, WireError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        self.field = "field";
        let [id] = self.bytes()?;
        if before.is_some_and(|before| before >= id) {
            return Err(self.bad("is out of order or there twice"));
        }
        *before = Some(id);
        let len = u16::from_le_bytes(self.bytes()?);
        let (value, rest) = self.rest.split_at_checked(usize::from(len)).ok_or(self.bad("is cut short"))?;
        self.rest = rest;
        Ok(Some((id, Cursor { rest: value, ..*self })))
    }

    /// The same, under the name of the field that it is.
    pub(crate) fn named(self, field: &'static str) -> Self {
        Cursor { field, ..self }
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(self.bad("is cut short"))?;
        self.rest = rest;
        Ok(*bytes)
    }

    fn bad(&self, what: &'static str) -> WireError {
        WireError::BadBody { kind: self.kind, field: self.field, what }
    }
}

macro_rules! integers {
    ($($int:ty),*) => {$(
        impl Value for $int {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }

            fn take(from: &mut Cursor<'_>) -> Result<Self, WireError> {
                Ok(<$int>::from_le_bytes(from.bytes()?))
            }
        }
    )*};
}
integers!(u8, u16, u32, u64);

impl Value for LaneId {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
    }

    fn take(from: &mut Cursor<'_>) -> Result<Self, WireError> {
        u8::take(from).map(LaneId)
    }
}

impl<A: Value, B: Value> Value for (A, B) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }

    fn take(from: &mut Cursor<'_>) -> Result<Self, WireError> {
        Ok((A::take(from)?, B::take(from)?))
    }
}

/// The number of entries, the length of each, the entries. Bytes beyond the known length are skipped.
impl<E: Entry> Value for Vec<E> {
    fn put(&self, out: &mut Vec<u8>) {
        // Longer ones are refused by their bound.
        out.extend_from_slice(&[
            u8::try_from(self.len()).unwrap_or(u8::MAX),
            E::LEN + LATER_ENTRY.len() as u8,
        ]);
        for entry in self {
            entry.put(out);
            out.extend_from_slice(LATER_ENTRY);
        }
    }

    fn take(from: &mut Cursor<'_>) -> Result<Self, WireError> {
        let [count, len] = from.bytes()?;
        if len < E::LEN {
            return Err(from.bad("has entries that are too short"));
        }
        // Before memory is reserved for them.
        let all = usize::from(count) * usize::from(len);
        let (entries, rest) = from.rest.split_at_checked(all).ok_or(from.bad("is cut short"))?;
        from.rest = rest;
        let entry = |rest| E::take(&mut Cursor { rest, ..*from });
        entries.chunks_exact(usize::from(len)).map(entry).collect()
    }
}

/// A list without entries is as good as none.
impl<E: Entry> Field for Vec<E> {
    fn is_missing(&self) -> bool {
        self.is_empty()
    }

    fn put(&self, out: &mut Vec<u8>) {
        Value::put(self, out);
    }

    fn take(mut from: Cursor<'_>) -> Result<Self, WireError> {
        Value::take(&mut from)
    }
}

impl<V: Value> Field for Option<V> {
    fn is_missing(&self) -> bool {
        self.is_none()
    }

    fn put(&self, out: &mut Vec<u8>) {
        self.iter().for_each(|value| value.put(out));
    }

    fn take(mut from: Cursor<'_>) -> Result<Self, WireError> {
        V::take(&mut from).map(Some)
    }
}

/// Text fills its field. An empty one is as good as none.
impl Field for String {
    fn is_missing(&self) -> bool {
        self.is_empty()
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }

    fn take(from: Cursor<'_>) -> Result<Self, WireError> {
        let text = std::str::from_utf8(from.rest).map_err(|_| from.bad("is not UTF-8"))?;
        Ok(text.to_owned())
    }
}

/// Bits of which none is set are as good as none.
impl Field for u64 {
    fn is_missing(&self) -> bool {
        *self == 0
    }

    fn put(&self, out: &mut Vec<u8>) {
        Value::put(self, out);
    }

    fn take(mut from: Cursor<'_>) -> Result<Self, WireError> {
        Value::take(&mut from)
    }
}

/// The bytes that a later version may put behind the known fields of a body, and behind each entry of a list:
/// nothing, except in the build that tests that this version skips it.
pub(crate) const LATER_FIELDS: &[u8] =
    if cfg!(unbroken_next_version) { &[200, 2, 0, 0xAA, 0xBB] } else { &[] };
const LATER_ENTRY: &[u8] = if cfg!(unbroken_next_version) { &[0xCC, 0xDD] } else { &[] };

/// Appends a field, unless it is missing.
pub(crate) fn put_field(id: u8, field: &impl Field, out: &mut Vec<u8>) {
    if field.is_missing() {
        return;
    }
    out.extend_from_slice(&[id, 0, 0]);
    let start = out.len();
    field.put(out);
    // The bound of the whole body is below that of the length.
    let len = u16::try_from(out.len() - start).unwrap_or(u16::MAX).to_le_bytes();
    if let Some(reserved) = out.get_mut(start - len.len()..start) {
        reserved.copy_from_slice(&len);
    }
}

pub(crate) fn bounded(field: &'static str, len: usize, max: usize) -> Result<(), WireError> {
    if len > max { Err(WireError::FieldTooLong { field, len, max }) } else { Ok(()) }
}

/// Declares the body of a control frame: its values in their order, then its fields with their ids in
/// ascending order. `at most` bounds a list or a text, in items or bytes.
macro_rules! body {
    (
        $(#[$about:meta])*
        $name:ident is $kind:path {
            $( $(#[$about_value:meta])* $value:ident: $type:ty $(, at most $max:expr)?; )*
        }
        fields {
            $( $(#[$about_field:meta])* $id:literal => $field:ident: $field_type:ty
                $(, at most $field_max:expr)?; )*
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Debug, PartialEq)]
        pub(crate) struct $name {
            $( $(#[$about_value])* pub(crate) $value: $type, )*
            $( $(#[$about_field])* pub(crate) $field: $field_type, )*
        }

        impl $name {
            /// Appends the whole frame, header included; nothing when a bound is broken.
            pub(crate) fn encode(&self, out: &mut Vec<u8>) -> Result<(), WireError> {
                self.check()?;
                let start = out.len();
                out.extend_from_slice(&[0; HEADER_LEN]);
                $( $crate::wire::body::Value::put(&self.$value, out); )*
                $( put_field($id, &self.$field, out); )*
                out.extend_from_slice($crate::wire::body::LATER_FIELDS);
                finish_frame($kind, start, out)
            }

            pub(crate) fn decode(body: &[u8]) -> Result<Self, WireError> {
                let mut rest = Cursor::new($kind, body);
                #[allow(unused_mut)] // For a body without fields.
                let mut body = $name {
                    $( $value: rest.value(stringify!($value))?, )*
                    $( $field: Default::default(), )*
                };
                let mut before = None;
                while let Some((id, _value)) = rest.next_field(&mut before)? {
                    match id {
                        $( $id => {
                            body.$field = $crate::wire::body::Field::take(_value.named(stringify!($field)))?;
                        } )*
                        // A field of a later version.
                        _ => {}
                    }
                }
                body.check()?;
                Ok(body)
            }

            fn check(&self) -> Result<(), WireError> {
                $( $( bounded(stringify!($value), self.$value.len(), $max)?; )? )*
                $( $( bounded(stringify!($field), self.$field.len(), $field_max)?; )? )*
                Ok(())
            }
        }
    };
}
pub(super) use body;

/// Fills in the header that stands at `start` before a body that was just written.
pub(crate) fn finish_frame(kind: Kind, start: usize, out: &mut Vec<u8>) -> Result<(), WireError> {
    let len = out.len() - start - super::header::HEADER_LEN;
    if len > kind.max_body() {
        out.truncate(start);
        return Err(WireError::TooLong { kind: kind as u8, len, max: kind.max_body() });
    }
    let header = super::header::encode_header(kind, len);
    if let Some(reserved) = out.get_mut(start..start + header.len()) {
        reserved.copy_from_slice(&header);
    }
    Ok(())
}
