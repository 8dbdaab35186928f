//! The file that keeps a node's secret key: 64 hexadecimal digits, for its owner's eyes only.
//!
//! A file is complete when it gets its name, and is never overwritten: of two nodes that start with the same
//! name of a file, both run with the same secret.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::id::Identity;

const DIGITS: usize = 64;
/// The digits and a line's end of any kind.
const MAX_LEN: usize = DIGITS + 2;
/// Reading, writing or anything else by the group or others.
const OTHERS: u32 = 0o077;

/// The file of an [`Identity`] cannot be used.
#[derive(Debug)]
#[non_exhaustive]
pub enum IdentityError {
    /// The system does not let it be read or written.
    Io {
        /// The file.
        path: PathBuf,
        /// The operation: `read`, `create`.
        doing: &'static str,
        /// The system's words. [`io::ErrorKind::NotFound`]: there is no such file.
        error: io::Error,
    },
    /// Others than its owner can read or change it: the key may be known to them.
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its mode, as `0o644`.
        mode: u32,
    },
    /// It does not hold 64 hexadecimal digits.
    Content {
        /// The file.
        path: PathBuf,
        /// A description of what is there instead; nothing of the content.
        found: &'static str,
    },
    /// The system has no random numbers.
    Random(io::Error),
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IdentityError::Io { path, doing, error } => write!(f, "cannot {doing} {path:?}: {error}"),
            IdentityError::Permissions { path, mode } => write!(
                f,
                "{path:?} has mode {mode:04o}, expected is 0600: others can get at the key. If nobody has, chmod 600"
            ),
            IdentityError::Content { path, found } => {
                write!(f, "{path:?} does not hold a key, which is {DIGITS} hexadecimal digits: {found}")
            }
            IdentityError::Random(error) => write!(f, "no random numbers: {error}"),
        }
    }
}

impl std::error::Error for IdentityError {}

impl Identity {
    /// Reads the identity from a file.
    ///
    /// # Errors
    /// When there is none, when others than its owner can read or write it (on Unix), or when it holds
    /// anything but 64 hexadecimal digits.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, IdentityError> {
        let path = path.as_ref();
        let io = |error| IdentityError::Io { path: path.into(), doing: "read", error };
        let mut file = File::open(path).map_err(io)?;
        if let Some(mode) = mode(&file).map_err(io)?.filter(|mode| mode & OTHERS != 0) {
            return Err(IdentityError::Permissions { path: path.into(), mode });
        }
        // Bounded, whatever the path leads to; room for all of it, so that no copy is left behind by growing.
        let mut text = Zeroizing::new(Vec::with_capacity(MAX_LEN + 1));
        Read::by_ref(&mut file).take(MAX_LEN as u64 + 1).read_to_end(&mut text).map_err(io)?;
        let secret = from_hex(&text).map_err(|found| IdentityError::Content { path: path.into(), found })?;
        Ok(Identity::from_bytes(*secret))
    }

    /// Writes the identity to a new file, with mode 0600 (on Unix; elsewhere the directory's permissions
    /// hold).
    ///
    /// # Errors
    /// When there is a file already ([`io::ErrorKind::AlreadyExists`]), or it cannot be written. Then there
    /// is none by this name that was not there before.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), IdentityError> {
        let path = path.as_ref();
        create(path, self).map_err(|error| IdentityError::Io { path: path.into(), doing: "create", error })
    }

    /// Reads the identity from a file; draws a new one and writes it there if there is no file.
    ///
    /// # Errors
    /// As [`Identity::load`] and [`Identity::save`].
    pub fn load_or_generate(path: impl AsRef<Path>) -> Result<Self, IdentityError> {
        let path = path.as_ref();
        match Self::load(path) {
            Err(IdentityError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {}
            result => return result,
        }
        let identity = Self::generate().map_err(IdentityError::Random)?;
        match identity.save(path) {
            Ok(()) => Ok(identity),
            // Another process was faster.
            Err(IdentityError::Io { error, .. }) if error.kind() == io::ErrorKind::AlreadyExists => {
                Self::load(path)
            }
            Err(error) => Err(error),
        }
    }
}

/// Under another name first: the file has its name only once it is complete.
fn create(path: &Path, identity: &Identity) -> io::Result<()> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(format!(".{:016x}", random()?));
    let unfinished = PathBuf::from(unfinished);
    let written = write_new(&unfinished, identity)
        // Unlike a rename it fails if the name is taken.
        .and_then(|()| fs::hard_link(&unfinished, path));
    let tidied = fs::remove_file(&unfinished).and_then(|()| sync_directory(path));
    if let (Ok(()), Err(error)) = (&written, tidied) {
        // The identity is there all the same.
        log_line!(Warn, "after {} was written: {error}", path.display());
    }
    written
}

fn write_new(path: &Path, identity: &Identity) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(&to_hex(identity))?;
    file.sync_all()
}

/// So that the name outlives a power failure too. Only Unix opens a directory as a file.
fn sync_directory(path: &Path) -> io::Result<()> {
    if cfg!(not(unix)) {
        return Ok(());
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

fn random() -> io::Result<u64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(u64::from_le_bytes(bytes))
}

/// The permission bits of the file; `None` where the system does not say.
fn mode(file: &File) -> io::Result<Option<u32>> {
    #[cfg(unix)]
    let mode = Some(std::os::unix::fs::PermissionsExt::mode(&file.metadata()?.permissions()) & 0o7777);
    #[cfg(not(unix))]
    let mode = file.metadata().map(|_| None)?;
    Ok(mode)
}

fn to_hex(identity: &Identity) -> Zeroizing<Vec<u8>> {
    let secret = Zeroizing::new(identity.to_bytes());
    let mut text = Zeroizing::new(Vec::with_capacity(MAX_LEN));
    let digit = |value: u8| if value < 10 { b'0' + value } else { b'a' - 10 + value };
    text.extend(secret.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]));
    text.push(b'\n');
    text
}

/// Says what is wrong without a word of the content: it may be a key with one digit missing.
fn from_hex(text: &[u8]) -> Result<Zeroizing<[u8; 32]>, &'static str> {
    let text = text.trim_ascii_end();
    match text.len() {
        0 => return Err("it is empty"),
        DIGITS => {}
        1..DIGITS => return Err("it is too short"),
        _ => return Err("it is too long"),
    }
    let mut secret = Zeroizing::new([0; 32]);
    for (byte, pair) in secret.iter_mut().zip(text.chunks(2)) {
        for letter in pair {
            let digit = char::from(*letter).to_digit(16).ok_or("some characters are others")?;
            *byte = *byte << 4 | digit as u8;
        }
    }
    Ok(secret)
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A directory of its own that goes with the test.
    struct Directory(PathBuf);

    impl Directory {
        fn new() -> Self {
            let path = std::env::temp_dir().join(format!("unbroken-identity-{:x}", random().unwrap()));
            fs::create_dir(&path).unwrap();
            Directory(path)
        }

        fn file(&self, name: &str, text: &[u8], mode: u32) -> PathBuf {
            let path = self.0.join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        }

        fn names(&self) -> Vec<String> {
            let names = fs::read_dir(&self.0).unwrap();
            names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn an_identity_survives_its_process_and_only_its_owner_can_read_it() {
        let directory = Directory::new();
        let path = directory.0.join("key");
        assert!(matches!(
            Identity::load(&path),
            Err(IdentityError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound
        ));
        let identity = Identity::load_or_generate(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(Identity::load(&path).unwrap().to_bytes(), identity.to_bytes());
        assert_eq!(Identity::load_or_generate(&path).unwrap().to_bytes(), identity.to_bytes());
        assert_eq!(directory.names(), ["key"], "nothing unfinished is left");
    }

    #[test]
    fn a_file_is_never_overwritten() {
        let directory = Directory::new();
        let path = directory.file("key", b"something else", 0o600);
        let error = Identity::generate().unwrap().save(&path).unwrap_err();
        assert!(
            matches!(&error, IdentityError::Io { error, .. } if error.kind() == io::ErrorKind::AlreadyExists)
        );
        assert!(error.to_string().contains("cannot create"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"something else");
        assert_eq!(directory.names(), ["key"]);
        assert!(Identity::load_or_generate(&path).is_err(), "garbage is no reason for a new key");
    }

    #[test]
    fn concurrent_generators_get_the_same_identity() {
        let directory = Directory::new();
        let path = directory.0.join("key");
        let ids = std::thread::scope(|scope| {
            let load = || Identity::load_or_generate(&path).unwrap().peer_id();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(load)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        assert_eq!(directory.names(), ["key"]);
    }

    #[test]
    fn a_file_that_others_can_read_or_write_is_refused() {
        let directory = Directory::new();
        let key = "07".repeat(32);
        for mode in [0o644, 0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o777] {
            let path = directory.file(&format!("{mode:o}"), key.as_bytes(), mode);
            let error = Identity::load(&path).unwrap_err().to_string();
            assert!(error.contains(&format!("mode 0{mode:o}")) && error.contains("0600"), "{error}");
        }
        for mode in [0o600, 0o400, 0o700] {
            let path = directory.file(&format!("{mode:o}"), key.as_bytes(), mode);
            assert_eq!(Identity::load(&path).unwrap().to_bytes(), [7; 32]);
        }
    }

    #[test]
    fn garbage_is_refused_without_being_shown() {
        let directory = Directory::new();
        let key = "c0ffee42".repeat(8);
        let cases: [(String, &str); 7] = [
            (String::new(), "empty"),
            ("\n".into(), "empty"),
            (key[1..].into(), "too short"),
            (format!("{key}0"), "too long"),
            (key.repeat(100_000), "too long"),
            (format!("{}g", &key[1..]), "others"),
            (format!("{}é", &key[2..]), "others"),
        ];
        for (text, found) in cases {
            let path = directory.file("key", text.as_bytes(), 0o600);
            let error = Identity::load(&path).unwrap_err().to_string();
            assert!(error.contains(found) && error.contains("64 hexadecimal digits"), "{error}");
            assert!(!error.contains("c0ffee"), "{error}");
        }
        for text in [key.clone(), format!("{key}\n"), format!("{key}\r\n"), key.to_uppercase()] {
            let path = directory.file("key", text.as_bytes(), 0o600);
            assert_eq!(Identity::load(&path).unwrap().to_bytes()[..4], [0xc0, 0xff, 0xee, 0x42]);
        }
    }
}
