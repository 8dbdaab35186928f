//! The one place that knows the serialisation library: bincode 2.0.1.
//!
//! bincode is no longer maintained (its 3.0.0 is an empty tombstone), so nothing outside this module
//! names it, and the version is pinned. It was kept because its format is simple enough to be written
//! down ([`crate::wire`]) and its decoder takes a limit on what it reads. (For a list that announces more than
//! is there up to 1 MiB is reserved and given back at once.) Replacing it means replacing this file.
//!
//! The format: integers little-endian and of fixed width, a sequence or text as its length (`u64`)
//! followed by its items, an `Option` as one byte 0 or 1 followed by the value, a struct as its fields
//! in order, an enum as its variant's index (`u32`) followed by the variant's fields.

use std::fmt;

use bincode::config::{Configuration, Fixint, Limit, LittleEndian};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A value could not be turned into bytes, or bytes not into a value.
#[derive(Debug)]
pub struct CodecError {
    doing: &'static str,
    what: &'static str,
    cause: String,
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} a {}: {}", self.doing, self.what, self.cause)
    }
}

impl std::error::Error for CodecError {}

fn config<const LIMIT: usize>() -> Configuration<LittleEndian, Fixint, Limit<LIMIT>> {
    bincode::config::standard().with_fixed_int_encoding().with_limit::<LIMIT>()
}

/// The most memory that decoding a typed message may ask for: the format's greatest message.
const MESSAGE_LIMIT: usize = 256 * 1024 * 1024;

/// Encodes a typed message.
///
/// # Errors
/// When the type cannot be serialised, or takes more than 256 MiB.
pub fn encode<M: Serialize + ?Sized>(message: &M) -> Result<Vec<u8>, CodecError> {
    encode_limited::<MESSAGE_LIMIT, M>(message)
}

/// Decodes a typed message. Bytes left over are an error.
///
/// # Errors
/// When the bytes are not a whole `M`.
pub fn decode<M: DeserializeOwned>(bytes: &[u8]) -> Result<M, CodecError> {
    decode_limited::<MESSAGE_LIMIT, M>(bytes)
}

pub(crate) fn encode_limited<const LIMIT: usize, M: Serialize + ?Sized>(
    message: &M,
) -> Result<Vec<u8>, CodecError> {
    let error = |cause| CodecError { doing: "encode", what: std::any::type_name::<M>(), cause };
    let bytes = bincode::serde::encode_to_vec(message, config::<LIMIT>())
        .map_err(|cause: bincode::error::EncodeError| error(cause.to_string()))?;
    // bincode's own limit binds the decoder only.
    if bytes.len() > LIMIT {
        return Err(error(format!("it takes {} bytes, at most {LIMIT} are allowed", bytes.len())));
    }
    Ok(bytes)
}

pub(crate) fn decode_limited<const LIMIT: usize, M: DeserializeOwned>(bytes: &[u8]) -> Result<M, CodecError> {
    let error = |cause| CodecError { doing: "decode", what: std::any::type_name::<M>(), cause };
    let (message, read) = bincode::serde::decode_from_slice(bytes, config::<LIMIT>())
        .map_err(|cause: bincode::error::DecodeError| error(cause.to_string()))?;
    match bytes.len() - read {
        0 => Ok(message),
        left => Err(error(format!("{left} bytes are left over after its {read}"))),
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
        bytes.push(0);
        let error = decode::<(u32, String, Option<Vec<u8>>)>(&bytes).unwrap_err().to_string();
        assert!(error.contains("1 bytes are left over"), "{error}");
    }

    #[test]
    fn what_the_decoder_would_refuse_is_not_encoded() {
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
