//! The files that a partition boots from, held against what it takes to use them.

use std::{io, path::Path};

use ioward_model::Boot;

use crate::UnusableFile;

/// Which files of a [`Boot`] cannot be used. `open` tries to use one, to read it and if told so to write it.
pub(crate) fn unusable(
    boot: &Boot,
    open: impl Fn(&Path, bool) -> io::Result<()>,
    remedy: impl Fn(&Path, bool, &io::Error) -> Option<String>,
) -> Vec<UnusableFile> {
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
        Some(UnusableFile { path: path.to_owned(), found, remedy })
    });
    tried.collect()
}

/// Refuses a folder: nobody can boot from one.
pub(crate) fn not_a_folder(file: &std::fs::File) -> io::Result<()> {
    let folder = || io::Error::new(io::ErrorKind::IsADirectory, "a folder");
    if file.metadata()?.is_dir() { Err(folder()) } else { Ok(()) }
}
