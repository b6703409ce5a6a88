//! Starting a process on the CPUs of one NUMA node.

use std::{fs, io};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::HypervisorError;

/// Does `start` on a thread that may run on the CPUs of a node only: what it starts, and all its threads, inherit that
/// (sched_setaffinity(2)). This thread may run where it did before once it is done.
///
/// # Errors
/// When the host has no such node, or it has no CPUs.
pub(super) fn on_node<T>(node: Option<u32>, start: impl FnOnce() -> T) -> Result<T, HypervisorError> {
    let Some(node) = node else { return Ok(start()) };
    let path = format!("/sys/devices/system/node/node{node}/cpulist");
    let fail = |source| HypervisorError::Io { what: "read".into(), path: (&path).into(), source };
    let cpus = fs::read_to_string(&path).map_err(fail)?;
    let cpus = parse(&cpus).ok_or_else(|| fail(io::Error::other("it lists no CPUs")))?;
    let before = sched_getaffinity(None).map_err(|error| fail(error.into()))?;
    sched_setaffinity(None, &cpus).map_err(|error| fail(error.into()))?;
    let started = start();
    if let Err(error) = sched_setaffinity(None, &before) {
        tracing::warn!("a thread stays on NUMA node {node}: {error}");
    }
    Ok(started)
}

/// A list of CPUs as the kernel writes it: `0-3,8` (Documentation/admin-guide/cputopology.rst). `None` for an empty one.
fn parse(list: &str) -> Option<CpuSet> {
    let mut cpus = CpuSet::new();
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        (first..=last.min(CpuSet::MAX_CPU - 1)).for_each(|cpu| cpus.set(cpu));
    }
    (cpus.count() > 0).then_some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_cpus_is_read() {
        let cpus = parse("0-2,5\n").unwrap();
        assert_eq!((0..8).filter(|cpu| cpus.is_set(*cpu)).collect::<Vec<_>>(), [0, 1, 2, 5]);
        assert!(parse("\n").is_none());
        assert!(parse("x-3").is_none());
    }

    /// Only this thread is on the node meanwhile, and afterwards it is where it was. A kernel without NUMA has no node 0.
    #[test]
    fn what_is_started_is_on_the_node() {
        let before = sched_getaffinity(None).unwrap();
        if let Ok(list) = fs::read_to_string("/sys/devices/system/node/node0/cpulist") {
            let meanwhile = on_node(Some(0), || sched_getaffinity(None).unwrap()).unwrap();
            let node = parse(&list).unwrap();
            assert!(meanwhile.count() > 0);
            assert!((0..CpuSet::MAX_CPU).all(|cpu| node.is_set(cpu) || !meanwhile.is_set(cpu)));
        }
        assert_eq!(sched_getaffinity(None).unwrap(), before);
        assert!(matches!(on_node(Some(9999), || ()), Err(HypervisorError::Io { .. })));
    }
}
