//! Addresses to listen on, in files: literal ones, of which an IPv6 address may name its interface.

use std::net::SocketAddr;

use serde::{Deserializer, Serializer};

use super::address::literal;
use crate::serde_util::list::{self, text_entry};

const EXPECTED: &str =
    "an address to listen on such as \"0.0.0.0:4000\", \"[::]:4000\" or \"[fe80::1%eth0]:4000\"";

pub(super) fn serialize<S: Serializer>(addrs: &[SocketAddr], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(addrs.iter().map(SocketAddr::to_string))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<SocketAddr>, D::Error> {
    let addrs: Vec<ListenAddr> = list::deserialize(deserializer)?;
    Ok(addrs.into_iter().map(|ListenAddr(addr)| addr).collect())
}

struct ListenAddr(SocketAddr);

text_entry!(ListenAddr, EXPECTED, |text| match literal(text) {
    Ok(Some(addr)) => Ok(ListenAddr(addr)),
    Ok(None) => Err(format!("{text:?} is not {EXPECTED}")),
    Err(error) => Err(error.to_string()),
});
