//! Where a demonstration is held: the folder for its files, and how it is named on a command line.

use std::{
    fs,
    io::{self, ErrorKind},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use tempfile::TempDir;

/// Before a folder that was still in use is removed again.
const AGAIN: Duration = Duration::from_millis(20);

/// A folder that goes with the demonstration, closed to others.
///
/// # Errors
/// When it can't be made in `$XDG_RUNTIME_DIR` nor in /tmp.
pub fn folder() -> io::Result<TempDir> {
    // Sockets have short names only (108 bytes): a deep TMPDIR would not do. The runtime folder may be another user's, as
    // su and sudo leave it.
    let runtime =
        std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|folder| folder.is_absolute());
    let make = |base: &Path| {
        let mut builder = tempfile::Builder::new();
        builder.prefix("ioward-demo-").permissions(fs::Permissions::from_mode(0o700)).tempdir_in(base)
    };
    let in_runtime = runtime.ok_or(ErrorKind::NotFound.into()).and_then(|base| make(&base));
    in_runtime.or_else(|_| make(Path::new("/tmp")))
}

/// Removes the folder with all that is in it.
///
/// # Errors
/// When something is still in it after a while.
pub async fn remove(folder: TempDir) -> io::Result<()> {
    // The daemon may still be writing the state for a partition that asked just then.
    for _ in 0..100 {
        match fs::remove_dir_all(folder.path()) {
            Err(error) if error.kind() != ErrorKind::NotFound => tokio::time::sleep(AGAIN).await,
            _ => return Ok(()),
        }
    }
    folder.close()
}

/// The name by which a shell finds this program.
#[must_use]
pub fn this_program() -> String {
    let found_on_path =
        std::env::args_os().next().is_none_or(|name| !name.as_encoded_bytes().contains(&b'/'));
    match std::env::current_exe() {
        Ok(program) if !found_on_path => word(&program),
        _ => "ioward".to_owned(),
    }
}

/// A path as one word of a shell's command line.
#[must_use]
pub fn word(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+:@%".contains(c);
    if text.chars().all(is_plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word() {
        assert_eq!(word(Path::new("/tmp/ioward-demo-x7/api.sock")), "/tmp/ioward-demo-x7/api.sock");
        assert_eq!(word(Path::new("/home/a user's/api.sock")), r"'/home/a user'\''s/api.sock'");
    }
}
