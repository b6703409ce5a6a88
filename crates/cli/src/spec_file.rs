//! From a file to a Spec that means the same wherever it is read: bounded, checked, its paths absolute.

use std::{
    env,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use ioward_model::{MAX_SPEC_BYTES, Machine, NamespaceRef, PartitionKind, Spec, SpecError};

use crate::error::CliError;

/// A Spec, and the text it came from.
pub struct SpecFile {
    /// Its values.
    pub spec: Spec,
    /// Where it says it.
    pub source: SpecSource,
}

/// The text of a Spec, for telling where it asks for something.
#[derive(Debug)]
pub struct SpecSource {
    /// The file, as it was named.
    pub file: String,
    /// Its text.
    pub text: String,
}

impl SpecSource {
    /// The same error; of a refusal by the daemon, with what this text asks for at its place.
    #[must_use]
    pub fn place(self, error: CliError) -> CliError {
        match error {
            CliError::Api(error) => CliError::SpecRefused(Box::new((self, error))),
            other => other,
        }
    }
}

/// Reads a Spec from a file, or with `-` from stdin. Relative paths are taken from the Spec's folder, or from the
/// working folder.
///
/// # Errors
/// When it can't be read, or is no valid Spec.
pub fn read(file: &Path) -> Result<SpecFile, CliError> {
    let (name, bytes, folder) = if file == Path::new("-") {
        ("stdin".to_owned(), bounded(io::stdin().lock()), env::current_dir())
    } else {
        let folder =
            std::path::absolute(file).map(|file| file.parent().map(Path::to_owned).unwrap_or_default());
        (file.display().to_string(), File::open(file).and_then(bounded), folder)
    };
    let unread = |source| CliError::SpecUnread { file: name.clone(), source };
    let (bytes, folder) = (bytes.map_err(unread)?, folder.map_err(unread)?);
    let spec = if bytes.len() > MAX_SPEC_BYTES { Err(too_large()) } else { Spec::parse(&bytes) };
    // A text that was parsed is UTF-8.
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let mut spec = match spec {
        Ok(spec) => spec,
        Err(error) => {
            return Err(CliError::Spec { from: Box::new(SpecSource { file: name, text }), error });
        }
    };
    make_absolute(&mut spec, &folder);
    Ok(SpecFile { spec, source: SpecSource { file: name, text } })
}

/// At most one byte more than a Spec may have: enough to see that there is more.
fn bounded(source: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(MAX_SPEC_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn too_large() -> SpecError {
    let message = format!("a Spec has at most {MAX_SPEC_BYTES} bytes; this has more");
    SpecError::one(None, message)
}

fn make_absolute(spec: &mut Spec, folder: &Path) {
    let kinds = spec.partitions.iter_mut().map(|partition| &mut partition.kind);
    let files = kinds.flat_map(|kind| match kind {
        PartitionKind::Machine(Machine { boot, .. }) => {
            [boot.kernel.as_mut(), boot.initrd.as_mut(), boot.disk.as_mut()]
        }
        PartitionKind::Namespace(NamespaceRef::PidFile(file)) => [Some(file), None, None],
        PartitionKind::Namespace(NamespaceRef::Named(_)) | PartitionKind::Domain(_) => [None, None, None],
    });
    for file in files.flatten() {
        *file = folder.join(&file) as PathBuf;
    }
}
