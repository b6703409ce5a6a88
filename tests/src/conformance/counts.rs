//! The number of VFs of a PF: the effects of a write to `sriov_numvfs`, and the addresses of VFs.

use ioward_fabric::FabricError;
use ioward_model::VfId;
use ioward_pci::Bdf;
use rustix::io::Errno;

use super::{Machine, errno};

/// The same count does nothing, another one must go through zero, and an impossible one is refused first, in the
/// order of `sriov_numvfs_store`.
pub(super) fn every_write_to_numvfs_is_answered_by_errno(machine: &Machine) {
    for pf in [machine.nic, machine.nvme] {
        let total = machine.pf(pf).total_vfs();
        let write = |count| machine.shell.write_numvfs(pf, count);
        let there = || (machine.shell.numvfs(pf), machine.shell.virtfns(pf).len());
        machine.with_autoprobe(pf, false, || {
            assert_eq!((write(0), write(total + 1), there()), (Ok(()), Err(Errno::RANGE), (0, 0)), "{pf}");
            for count in [1, 2, total] {
                assert_eq!(write(count), Ok(()), "{pf}: 0 to {count}");
                let (all, vfs) = ((count, usize::from(count)), machine.shell.virtfns(pf));
                for other in [1, 2, total] {
                    let expected = if other == count { Ok(()) } else { Err(Errno::BUSY) };
                    assert_eq!(write(other), expected, "{pf}: {count} to {other}");
                }
                assert_eq!(write(total + 1), Err(Errno::RANGE), "{pf}: {count} to {}", total + 1);
                assert_eq!(there(), all, "{pf}: nothing of that has changed anything");
                assert!(machine.shell.config(vfs[0]).iter().any(|byte| *byte != 0xff), "{pf}: {}", vfs[0]);
                assert_eq!((write(0), there()), (Ok(()), (0, 0)), "{pf}: {count} to 0");
                assert!(machine.shell.config(vfs[0]).iter().all(|byte| *byte == 0xff), "{pf}: {}", vfs[0]);
            }
        });
        machine.shell.settle(pf);
    }
}

pub(super) fn a_pf_without_vfs_says_so(machine: &Machine) {
    for address in [machine.nic, machine.nvme] {
        let pf = machine.pf(address);
        let sriov = pf.sriov.expect("the SR-IOV capability can be read");
        assert!(sriov.total_vfs >= 2 && sriov.initial_vfs == sriov.total_vfs);
        assert_eq!((sriov.num_vfs, sriov.vf_enable), (0, false));
        assert!(pf.virtual_functions.is_empty());
        assert!(pf.reasons.is_empty(), "{:?}", pf.reasons);
    }
}

pub(super) fn vfs_appear_at_first_offset_plus_stride(machine: &Machine) {
    machine.with_vfs(machine.nic, 3, || {
        let pf = machine.pf(machine.nic);
        let sriov = pf.sriov.clone().expect("the SR-IOV capability can be read");
        assert_eq!((sriov.num_vfs, sriov.vf_enable), (3, true));
        assert_eq!(pf.virtual_functions.len(), 3);
        for (index, vf) in (0..).zip(&pf.virtual_functions) {
            let expected = pf.address.virtual_function(sriov.first_vf_offset, sriov.vf_stride, index);
            assert_eq!((vf.index, Some(vf.address)), (index, expected));
            let id = VfId { pf: machine.nic, index };
            assert_eq!(
                machine.runtime.block_on(machine.fabric.vf_address(id)).expect("it is there"),
                vf.address
            );
            assert!(vf.iommu_group.is_some() && vf.iommu_group_shared_with.is_empty());
        }
    });
    assert!(machine.pf(machine.nic).virtual_functions.is_empty());
}

pub(super) fn the_same_count_again_changes_nothing(machine: &Machine) {
    machine.set_count(machine.nic, 0).expect("zero of zero is fine");
    machine.with_vfs(machine.nic, 2, || {
        machine.set_count(machine.nic, 2).expect("two of two is fine");
        assert_eq!(machine.pf(machine.nic).num_vfs(), 2);
    });
}

pub(super) fn one_count_to_another_goes_through_zero_only(machine: &Machine) {
    machine.with_vfs(machine.nic, 2, || {
        for other in [1, 3] {
            assert_eq!(errno(machine.set_count(machine.nic, other)), Some(Errno::BUSY));
            assert_eq!(machine.pf(machine.nic).num_vfs(), 2);
        }
    });
}

pub(super) fn more_than_total_vfs_is_refused(machine: &Machine) {
    for pf in [machine.nic, machine.nvme] {
        let total = machine.pf(pf).total_vfs();
        assert_eq!(errno(machine.set_count(pf, total + 1)), Some(Errno::RANGE));
        assert_eq!(machine.pf(pf).num_vfs(), 0);
    }
}

pub(super) fn a_missing_function_is_reported_as_missing(machine: &Machine) {
    let nowhere: Bdf = "0000:fe:1f.7".parse().expect("an address");
    let error = machine.set_count(nowhere, 1).expect_err("there is no such PF");
    assert!(matches!(error, FabricError::NoSuchFunction { .. }), "{error}");
    machine.with_vfs(machine.nic, 1, || {
        let second = VfId { pf: machine.nic, index: 1 };
        let error = machine.runtime.block_on(machine.fabric.vf_address(second)).expect_err("there is one VF");
        assert!(matches!(error, FabricError::NoSuchVf { num_vfs: 1, .. }), "{error}");
        let error = machine.bind(second, Some("vfio-pci")).expect_err("there is one VF");
        assert!(matches!(error, FabricError::NoSuchVf { .. }), "{error}");
    });
}
