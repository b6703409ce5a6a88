//! Health reporters of PFs' drivers (devlink): one question for all adapters of the host, and what their drivers are asked to recover from.
//!
//! Kernel side: net/devlink/health.c. An instance of devlink is called by its bus and device, which for a PF are `pci` and its address.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
};

use ioward_model::{HealthReporter, HealthState, Recovery};
use ioward_netlink::devlink::{Devlink, Reporter};
use ioward_pci::Bdf;
use rustix::io::Errno;

use crate::FabricError;

/// The reporters of PCI functions.
pub(super) type Reporters = BTreeMap<Bdf, Vec<HealthReporter>>;

/// All reporters of PCI functions; `None` where the kernel has no devlink, which `is_absent` keeps: it never gets any, and each question
/// would have it look for a module.
pub(super) fn read(is_absent: &AtomicBool) -> Result<Option<Reporters>, FabricError> {
    if is_absent.load(Ordering::Relaxed) {
        return Ok(None);
    }
    let told = Devlink::open().and_then(|devlink| devlink.map(|devlink| devlink.reporters()).transpose());
    let told = told.map_err(|source| FabricError::Refused {
        what: "ask devlink for its health reporters".to_owned(),
        why: source.to_string(),
        source,
    })?;
    is_absent.store(told.is_none(), Ordering::Relaxed);
    Ok(told.map(of_functions))
}

/// By function. Those of other buses are left out.
fn of_functions(told: Vec<Reporter>) -> Reporters {
    let mut reporters = Reporters::new();
    for reporter in told {
        if let Some(function) = function_of(&reporter) {
            reporters.entry(function).or_default().push(HealthReporter {
                name: reporter.name,
                port: reporter.port,
                state: if reporter.is_in_error { HealthState::Error } else { HealthState::Healthy },
                errors: reporter.errors,
                recoveries: reporter.recoveries,
                auto_recover: reporter.auto_recover,
            });
        }
    }
    reporters
}

fn function_of(reporter: &Reporter) -> Option<Bdf> {
    (reporter.bus == "pci").then_some(())?;
    reporter.device.parse().ok()
}

/// Has the driver of a PF recover from all that its reporters have in error. Each is tried, whatever becomes of the others.
pub(super) fn recover(pf: Bdf) -> Result<(), FabricError> {
    let failed = |what: String| {
        move |source: std::io::Error| {
            let why = match Errno::from_io_error(&source) {
                Some(Errno::ACCESS | Errno::PERM) => "this needs root".to_owned(),
                _ => format!("{source}; see dmesg"),
            };
            FabricError::Refused { what, why, source }
        }
    };
    let what = || format!("{} ({pf})", Recovery::Health);
    let unsupported = || FabricError::Unsupported {
        function: pf,
        driver: "its driver".to_owned(),
        what: "recover it by devlink".to_owned(),
    };
    let devlink = Devlink::open().map_err(failed(what()))?.ok_or_else(unsupported)?;
    let reporters = devlink.reporters().map_err(failed(what()))?;
    let own = reporters.iter().filter(|reporter| function_of(reporter) == Some(pf));
    let mut outcome = Ok(());
    for reporter in own.filter(|reporter| reporter.is_in_error && reporter.auto_recover.is_some()) {
        let recovered = devlink.recover(reporter);
        outcome = outcome.and(recovered.map_err(failed(format!("{}: {}", what(), reporter.name))));
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reporter(bus: &str, device: &str, name: &str, errors: u64) -> Reporter {
        Reporter {
            bus: bus.to_owned(),
            device: device.to_owned(),
            port: None,
            name: name.to_owned(),
            is_in_error: errors > 0,
            errors,
            recoveries: 0,
            auto_recover: Some(true),
        }
    }

    #[test]
    fn reporters_go_to_the_function_of_their_address_and_no_other_buses_do() {
        let told = vec![
            reporter("pci", "0000:01:00.0", "fw", 0),
            reporter("pci", "0000:01:00.0", "tx", 3),
            reporter("pci", "0000:01:00.1", "fw", 0),
            reporter("netdevsim", "netdevsim10", "dummy", 1),
            reporter("auxiliary", "mlx5_core.sf.2", "tx", 1),
            reporter("pci", "no address", "fw", 1),
        ];
        let found = of_functions(told);
        let names = |pf: &str| {
            let found = &found[&pf.parse().unwrap()];
            found.iter().map(|one| (one.name.as_str(), one.is_unrecovered())).collect::<Vec<_>>()
        };
        assert_eq!(names("0000:01:00.0"), [("fw", false), ("tx", true)]);
        assert_eq!((names("0000:01:00.1"), found.len()), (vec![("fw", false)], 2));
    }

    #[test]
    fn a_kernel_without_devlink_is_asked_once() {
        let is_absent = AtomicBool::new(false);
        let found = read(&is_absent).unwrap();
        assert_eq!(found.is_none(), is_absent.load(Ordering::Relaxed));
        is_absent.store(true, Ordering::Relaxed);
        assert_eq!(read(&is_absent).unwrap(), None);
    }

    #[test]
    fn a_function_without_reporters_has_nothing_to_recover_from() {
        let recovered = recover("ffff:ff:1f.7".parse().unwrap());
        assert!(matches!(recovered, Ok(()) | Err(FabricError::Unsupported { .. })), "{recovered:?}");
    }
}
