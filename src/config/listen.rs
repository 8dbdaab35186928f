//! Addresses to listen on, in files: literal ones, of which an IPv6 address may name its interface.

use std::net::SocketAddr;

use serde::{Deserialize, Deserializer, Serializer, de::Error};

use super::address::literal;

pub(super) fn serialize<S: Serializer>(addrs: &[SocketAddr], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(addrs.iter().map(SocketAddr::to_string))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<SocketAddr>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    let parse = |text: &String| match literal(text) {
        Ok(Some(addr)) => Ok(addr),
        Ok(None) => Err(D::Error::custom(format!(
            "{text:?} is no address to listen on: expected ip:port, as in \"0.0.0.0:4000\", \"[::]:4000\" or \"[fe80::1%eth0]:4000\""
        ))),
        Err(error) => Err(D::Error::custom(error)),
    };
    texts.iter().map(parse).collect()
}
