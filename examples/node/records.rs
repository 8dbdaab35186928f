//! The file that keeps what the node knows of peers.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use unbroken::PeerRecord;

/// Reads the records of an earlier life; none if there is no file yet.
pub(crate) fn load(path: &Path) -> Result<Vec<PeerRecord>, String> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(format!("--records: cannot read {path:?}: {error}")),
    };
    let mut records: Vec<PeerRecord> = serde_json::from_str(&text)
        .map_err(|error| format!("--records: {path:?} does not hold records: {error}"))?;
    let age = fs::metadata(path).and_then(|file| file.modified()).ok();
    let age = age.and_then(|at| SystemTime::now().duration_since(at).ok()).unwrap_or_default();
    records.iter_mut().for_each(|record| grow_older(record, age));
    Ok(records)
}

/// Ages in the file are as of when it was written.
fn grow_older(record: &mut PeerRecord, age: Duration) {
    record.last_seen = record.last_seen.map(|seen| seen.saturating_add(age));
    if let Some(learned) = &mut record.learned {
        learned.age = learned.age.saturating_add(age);
    }
}

/// Whole or not at all: whoever kills the node in the middle finds the file as it was before.
pub(crate) fn save(path: &Path, records: &[PeerRecord]) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    fs::write(&name, serde_json::to_vec_pretty(records)?)?;
    fs::rename(&name, path)
}
