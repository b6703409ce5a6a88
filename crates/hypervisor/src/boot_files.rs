//! The files that a partition boots from, held against what it takes to use them.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use ioward_model::Boot;
use rustix::fs::OFlags;

use crate::{Obstacle, opening::Opening};

/// Which files of a [`Boot`] cannot be used, as `unusable` finds on threads that may wait; one that does not answer can't either.
pub(crate) async fn unusable_in_time(
    boot: &Boot,
    opening: &Opening,
    unusable: impl Fn(&Boot) -> Vec<Obstacle> + Clone + Send + 'static,
) -> Vec<Obstacle> {
    let of_one = |kernel, initrd, disk| Boot { kernel, initrd, disk, cmdline: None };
    let each = [
        (boot.kernel.clone(), of_one(boot.kernel.clone(), None, None)),
        (boot.initrd.clone(), of_one(None, boot.initrd.clone(), None)),
        (boot.disk.clone(), of_one(None, None, boot.disk.clone())),
    ];
    let mut found = Vec::new();
    for (path, boot) in each {
        let Some(path) = path else { continue };
        let unusable = unusable.clone();
        match opening.run(&path, move || unusable(&boot)).await {
            Ok(unusable) => found.extend(unusable),
            Err(error) => {
                let remedy = "see to the server or the disk it is on, or boot from another file".to_owned();
                found.push(unusable_file(&path, error.to_string(), remedy));
            }
        }
    }
    found
}

/// Which files of a [`Boot`] cannot be used. `open` tries to use one, to read it and if told so to write it.
pub(crate) fn unusable(
    boot: &Boot,
    open: impl Fn(&Path, bool) -> io::Result<()>,
    remedy: impl Fn(&Path, bool, &io::Error) -> Option<String>,
) -> Vec<Obstacle> {
    let files = [(&boot.kernel, false), (&boot.initrd, false), (&boot.disk, true)];
    let named = files.into_iter().filter_map(|(path, is_disk)| Some((path.as_deref()?, is_disk)));
    let tried = named.filter_map(|(path, is_disk)| {
        let correct = || "correct boot in the Spec".to_owned();
        let (found, remedy) = if path.is_relative() {
            ("a relative path".to_owned(), correct())
        } else {
            let error = open(path, is_disk).err()?;
            (error.to_string(), remedy(path, is_disk, &error).unwrap_or_else(correct))
        };
        Some(unusable_file(path, found, remedy))
    });
    tried.collect()
}

fn unusable_file(path: &Path, found: String, remedy: String) -> Obstacle {
    Obstacle { required: format!("a file to boot from at {}", path.display()), found, remedy }
}

/// Opens a file to boot from. Neither a FIFO nor a terminal is waited for, and a folder is refused: nobody can boot from one.
pub(crate) fn open(path: &Path, write: bool) -> io::Result<File> {
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let file = OpenOptions::new().read(true).write(write).custom_flags(flags).open(path)?;
    let folder = || io::Error::new(io::ErrorKind::IsADirectory, "a folder");
    if file.metadata()?.is_dir() { Err(folder()) } else { Ok(file) }
}
