//! Where things are: the workspace, the lab's cache, the binaries cargo built.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, Result};

/// The folders of one checkout.
pub struct Workspace {
    /// The checkout.
    pub root: PathBuf,
    /// The lab's downloads and images: `$IOWARD_LAB_CACHE`, or `.lab` in the checkout.
    pub cache: PathBuf,
    /// Where cargo puts the binaries of the dev profile.
    pub binaries: PathBuf,
}

impl Workspace {
    /// Finds the folders of the checkout that `cargo xtask` was called in, and makes the cache.
    pub fn find() -> Result<Self> {
        let manifest = env::var_os("CARGO_MANIFEST_DIR").ok_or_else(|| {
            Error::Other("call this as `cargo xtask`, which says where the workspace is".into())
        })?;
        let root = canonical(Path::new(&manifest).join("..").as_path())?;
        let cache = env::var_os("IOWARD_LAB_CACHE").map_or_else(|| root.join(".lab"), PathBuf::from);
        fs::create_dir_all(&cache).map_err(Error::file("create", &cache))?;
        // xtask is one of the workspace's binaries, so the others are beside it, whatever the target folder is.
        let this = env::current_exe().map_err(Error::file("find", Path::new("/proc/self/exe")))?;
        let binaries = this.parent().unwrap_or(&this).to_owned();
        Ok(Self { cache: canonical(&cache)?, root, binaries })
    }

    /// The `cargo` that called us, run in the checkout.
    pub fn cargo(&self) -> Command {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(&self.root);
        cargo
    }

    /// Keeps other `cargo xtask` from making the same things in the cache at the same time, as long as the file is open.
    pub fn lock_cache(&self) -> Result<File> {
        let path = self.cache.join("lock");
        let file = File::create(&path).map_err(Error::file("create", &path))?;
        file.lock().map_err(Error::file("lock", &path))?;
        Ok(file)
    }
}

fn canonical(path: &Path) -> Result<PathBuf> {
    path.canonicalize().map_err(Error::file("find", path))
}
