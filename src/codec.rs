//! How typed messages become bytes.
//!
//! The wire carries bytes, and knows no codec. [`Outgoing::new`](crate::Outgoing::new) and
//! [`Message::bytes`](crate::Message::bytes) need none either. For values there is [`Codec`]: the default is
//! `Bincode`, behind the feature `bincode`, which is on unless `default-features = false`; any other is a few
//! lines:
//!
//! ```
//! use serde::{Serialize, de::DeserializeOwned};
//! use unbroken::codec::{Codec, CodecError};
//! use unbroken::{Outgoing, URGENT};
//!
//! struct Json;
//!
//! impl<M: Serialize + DeserializeOwned> Codec<M> for Json {
//!     fn encode(&self, message: &M) -> Result<Vec<u8>, CodecError> {
//!         serde_json::to_vec(message).map_err(CodecError::encode::<M>)
//!     }
//!
//!     fn decode(&self, bytes: &[u8]) -> Result<M, CodecError> {
//!         serde_json::from_slice(bytes).map_err(CodecError::decode::<M>)
//!     }
//! }
//!
//! # fn main() -> Result<(), CodecError> {
//! let vote = ("block 7".to_string(), true);
//! let outgoing = Outgoing::typed_with(&Json, URGENT, &vote)?;
//! // The other end: `message.decode_with(&Json)`, or of bytes from anywhere:
//! let again: (String, bool) = Json.decode(br#"["block 7",true]"#)?;
//! assert_eq!(again, vote);
//! # let _ = outgoing;
//! # Ok(())
//! # }
//! ```
//!
//! For requests and replies there are [`Node::request_typed_with`](crate::Node::request_typed_with) and
//! [`Message::reply_typed_with`](crate::Message::reply_typed_with).

use std::fmt;

#[cfg(feature = "bincode")]
pub use bincode::{Bincode, decode, encode};

/// Turns messages of type `M` into bytes and back.
///
/// It needs no serde: a codec may be written for one type, or for all types of another framework (Borsh,
/// SCALE, Protocol Buffers). Both ends must use the same one; the wire does not tell.
///
/// **What is decoded comes from a peer**: an implementation must return an error for whatever is not a
/// message, and must not reserve memory on the word of a length that it has only read.
pub trait Codec<M> {
    /// The bytes of a message.
    ///
    /// # Errors
    /// When the value has no form in this codec.
    fn encode(&self, message: &M) -> Result<Vec<u8>, CodecError>;

    /// The message that these bytes are, all of them.
    ///
    /// # Errors
    /// When the bytes are not exactly one message.
    fn decode(&self, bytes: &[u8]) -> Result<M, CodecError>;
}

/// A value could not be turned into bytes, or bytes not into a value.
#[derive(Debug)]
pub struct CodecError {
    doing: &'static str,
    what: &'static str,
    cause: String,
}

impl CodecError {
    /// A message of type `M` cannot be encoded, because of `cause`.
    pub fn encode<M: ?Sized>(cause: impl fmt::Display) -> Self {
        CodecError { doing: "encode", what: std::any::type_name::<M>(), cause: cause.to_string() }
    }

    /// Bytes are no message of type `M`, because of `cause`.
    pub fn decode<M: ?Sized>(cause: impl fmt::Display) -> Self {
        CodecError { doing: "decode", what: std::any::type_name::<M>(), cause: cause.to_string() }
    }
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} a {}: {}", self.doing, self.what, self.cause)
    }
}

impl std::error::Error for CodecError {}

/// The one place that knows bincode 2.0.1, which is no longer maintained (its 3.0.0 is an empty tombstone;
/// RUSTSEC-2025-0141). The version is pinned. Its decoder takes a limit on what it reads. (For a list that
/// announces more than is there up to 1 MiB is reserved and given back at once.)
#[cfg(feature = "bincode")]
mod bincode {
    use ::bincode::config::{Configuration, Fixint, Limit, LittleEndian};
    use serde::Serialize;
    use serde::de::DeserializeOwned;

    use super::{Codec, CodecError};

    /// Any serde type in the format of bincode 2: integers little-endian and of fixed width, a sequence or
    /// text as its length (`u64`) followed by its items, an `Option` as one byte 0 or 1 followed by the
    /// value, a struct as its fields in order, an enum as its variant's index (`u32`) followed by the
    /// variant's fields.
    #[derive(Clone, Copy, Debug, Default)]
    pub struct Bincode;

    impl<M: Serialize + DeserializeOwned> Codec<M> for Bincode {
        fn encode(&self, message: &M) -> Result<Vec<u8>, CodecError> {
            encode(message)
        }

        fn decode(&self, bytes: &[u8]) -> Result<M, CodecError> {
            decode(bytes)
        }
    }

    /// The most memory that decoding a typed message may ask for: the format's greatest message.
    const MESSAGE_LIMIT: usize = 256 * 1024 * 1024;

    fn config<const LIMIT: usize>() -> Configuration<LittleEndian, Fixint, Limit<LIMIT>> {
        ::bincode::config::standard().with_fixed_int_encoding().with_limit::<LIMIT>()
    }

    /// Encodes a typed message by [`Bincode`]. Unlike [`Codec::encode`] it takes what can only be serialised,
    /// such as references and slices.
    ///
    /// # Errors
    /// When the type cannot be serialised, or takes more than 256 MiB.
    pub fn encode<M: Serialize + ?Sized>(message: &M) -> Result<Vec<u8>, CodecError> {
        encode_limited::<MESSAGE_LIMIT, M>(message)
    }

    /// Decodes a typed message by [`Bincode`]. Bytes left over are an error.
    ///
    /// # Errors
    /// When the bytes are not a whole `M`.
    pub fn decode<M: DeserializeOwned>(bytes: &[u8]) -> Result<M, CodecError> {
        decode_limited::<MESSAGE_LIMIT, M>(bytes)
    }

    fn encode_limited<const LIMIT: usize, M: Serialize + ?Sized>(message: &M) -> Result<Vec<u8>, CodecError> {
        let bytes =
            ::bincode::serde::encode_to_vec(message, config::<LIMIT>()).map_err(CodecError::encode::<M>)?;
        // bincode's own limit binds the decoder only.
        if bytes.len() > LIMIT {
            let error = format_args!("it takes {} bytes, at most {LIMIT} are allowed", bytes.len());
            return Err(CodecError::encode::<M>(error));
        }
        Ok(bytes)
    }

    fn decode_limited<const LIMIT: usize, M: DeserializeOwned>(bytes: &[u8]) -> Result<M, CodecError> {
        let (message, read) =
            ::bincode::serde::decode_from_slice(bytes, config::<LIMIT>()).map_err(CodecError::decode::<M>)?;
        match bytes.len() - read {
            0 => Ok(message),
            left => {
                let error = format_args!("{left} bytes are left over after its {read}");
                Err(CodecError::decode::<M>(error))
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_value_survives_and_left_over_bytes_are_named() {
            let value = (7u32, "seven".to_string(), Some(vec![1u8, 2, 3]));
            let mut bytes = encode(&value).unwrap();
            assert_eq!(decode::<(u32, String, Option<Vec<u8>>)>(&bytes).unwrap(), value);
            assert_eq!(Bincode.encode(&value).unwrap(), bytes);
            bytes.push(0);
            let error = decode::<(u32, String, Option<Vec<u8>>)>(&bytes).unwrap_err().to_string();
            assert!(error.contains("1 bytes are left over"), "{error}");
        }

        #[test]
        fn a_value_that_the_decoder_would_refuse_is_not_encoded() {
            assert!(encode_limited::<8, _>(&7u64).is_ok());
            let error = encode_limited::<8, _>(&(7u64, 1u8)).unwrap_err().to_string();
            assert!(error.contains("9 bytes, at most 8"), "{error}");
        }

        #[test]
        fn a_lying_length_is_refused_before_memory_is_reserved() {
            let bytes = u64::MAX.to_le_bytes();
            assert!(decode::<Vec<u8>>(&bytes).is_err());
            assert!(decode_limited::<64, Vec<u64>>(&1_000u64.to_le_bytes()).is_err());
        }
    }
}
