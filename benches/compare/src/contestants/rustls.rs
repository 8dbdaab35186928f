//! TLS 1.3 of rustls over blocking sockets, with AES-256-GCM of `ring` as unbroken has it. Writes and reads
//! are those of `raw`: what it adds is TLS alone.

use std::net::TcpStream;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use super::raw::{self, BATCH};
use super::{Contestant, OneWay, RoundTrip, Tell};
use crate::Failure;

pub const CONTESTANT: Contestant = Contestant {
    one_way: Some(OneWay {
        shares: [0.4, 0.6],
        receive: |size, count, tell, came| raw::receive_from(&mut accept(tell)?, size, count, came),
        send: |size, count, addr, wait| raw::send_to(&mut connect(addr)?, size, count, BATCH, wait),
    }),
    round_trip: Some(RoundTrip {
        trips: 10_000,
        echo: |count, tell| raw::echo_on(&mut accept(tell)?, count),
        ask: |count, addr, came| raw::ask_on(&mut connect(addr)?, count, came),
    }),
    ..Contestant::named("rustls, TLS 1.3")
};

/// The name that the certificate is for.
const NAME: &str = "localhost";

fn provider() -> Arc<CryptoProvider> {
    let suites = vec![ring::cipher_suite::TLS13_AES_256_GCM_SHA384];
    Arc::new(CryptoProvider { cipher_suites: suites, ..ring::default_provider() })
}

/// Tells the certificate behind the address, in hexadecimal digits: it is made anew for each run.
fn accept(tell: Tell<'_>) -> Result<StreamOwned<ServerConnection, TcpStream>, Failure> {
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
    let certificate = made.cert.der().clone();
    let key = PrivatePkcs8KeyDer::from(made.key_pair.serialize_der());
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key.into())?;
    let hex: String = certificate.iter().map(|byte| format!("{byte:02x}")).collect();
    let socket = raw::accept(&mut |addr| tell(format!("{addr} {hex}")))?;
    Ok(StreamOwned::new(ServerConnection::new(Arc::new(config))?, socket))
}

fn connect(addr: &str) -> Result<StreamOwned<ClientConnection, TcpStream>, Failure> {
    let (addr, hex) = addr.split_once(' ').ok_or("expected an address and a certificate")?;
    let digits = hex.as_bytes().chunks(2);
    let bytes: Vec<u8> = digits
        .map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?))
        .collect::<Result<_, Failure>>()?;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(bytes))?;
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connection = ClientConnection::new(Arc::new(config), ServerName::try_from(NAME)?)?;
    Ok(StreamOwned::new(connection, raw::connect(addr)?))
}
