//! The file that keeps the node's secret key.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use unbroken::Identity;

/// Loads the identity, or makes one and keeps it, readable by its owner only.
pub(crate) fn load_or_create(path: &Path) -> Result<Identity, String> {
    match fs::read_to_string(path) {
        Ok(text) => {
            let secret = from_hex(text.trim()).ok_or_else(|| {
                // Not the text itself: it may be a key with one digit missing.
                format!("--identity: {path:?} does not hold 64 hexadecimal digits")
            })?;
            Ok(Identity::from_bytes(secret))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let identity = Identity::generate().map_err(|error| format!("no random numbers: {error}"))?;
            create(path, &to_hex(&identity.to_bytes()))
                .map_err(|error| format!("--identity: cannot create {path:?}: {error}"))?;
            Ok(identity)
        }
        Err(error) => Err(format!("--identity: cannot read {path:?}: {error}")),
    }
}

/// Never overwrites: of two nodes that start with the same file, one fails instead of both running
/// with different secrets.
fn create(path: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    writeln!(file, "{text}")?;
    file.sync_all()
}

fn to_hex(bytes: &[u8; 32]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}
