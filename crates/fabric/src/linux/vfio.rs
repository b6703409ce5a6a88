//! The processes that have a VF open through VFIO, from /proc, without opening anything.

use std::{fs, io, path::Path};

use ioward_model::VfId;

use super::sysfs::{Sysfs, link_name, names};
use crate::FabricError;

/// Whether a process has the VF's group (`/dev/vfio/<group>`) or its device (`/dev/vfio/devices/vfio<n>`) open.
pub(super) fn is_open(sysfs: &Sysfs<'_>, vf: VfId) -> Result<bool, FabricError> {
    let (_, folder) = sysfs.vf(vf)?;
    let mut nodes: Vec<_> =
        names(&folder.join("vfio-dev")).into_iter().map(|name| format!("/dev/vfio/devices/{name}")).collect();
    let group = folder.join("iommu_group").read_link().ok();
    nodes.extend(group.as_deref().and_then(link_name).map(|group| format!("/dev/vfio/{group}")));
    let proc = sysfs.root.join("proc");
    any_open(&proc, &nodes).map_err(|source| FabricError::Read { path: proc.clone(), source })
}

fn any_open(proc: &Path, nodes: &[String]) -> io::Result<bool> {
    for process in proc.read_dir()?.flatten() {
        if process.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit())
            && has_open(&process.path(), nodes)
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A process that ends meanwhile has nothing open.
fn has_open(process: &Path, nodes: &[String]) -> bool {
    let files = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    files
        .filter_map(|file| file.path().read_link().ok())
        .any(|target| nodes.iter().any(|node| target.as_os_str() == node.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_open_in_this_process_is_found() {
        let path = std::env::current_exe().unwrap();
        let _open = fs::File::open(&path).unwrap();
        let proc = Path::new("/proc");
        assert!(any_open(proc, &["/nonexistent".to_owned(), path.to_str().unwrap().to_owned()]).unwrap());
        assert!(!any_open(proc, &["/nonexistent".to_owned()]).unwrap());
    }
}
