//! Which driver a VF is bound to, whatever machine it is on: in which order the kernel's attributes are written, and how
//! everything is put back when that fails.
//!
//! A stand-in (vfio-pci) knows no device IDs and takes the VF only while `driver_override` names it; the override stays
//! with the driver, so that nobody binds the VF to another meanwhile. The VF's own driver (igbvf, nvme) is bound without
//! one. Both through the driver's `bind`: unlike `drivers_probe` it tells why it failed.
//!
//! Kernel side: drivers/base/bus.c (bind, unbind), drivers/pci/pci-sysfs.c (driver_override).

use std::io;

use ioward_model::VfId;
use ioward_pci::Bdf;
use rustix::io::Errno;

use crate::FabricError;

/// The attributes of one function and of the drivers there are.
pub(crate) trait Bindable {
    /// The driver it is bound to.
    fn driver(&self) -> Option<String>;

    /// `driver_override`; `None` when it is not set.
    fn driver_override(&self) -> Option<String>;

    /// Whether a PCI driver of this name is loaded.
    fn is_loaded(&self, driver: &str) -> bool;

    /// A write to its driver's `unbind`; nothing when it has none.
    fn unbind(&mut self) -> io::Result<()>;

    /// A write to `driver_override`; `None` clears it.
    fn set_override(&mut self, driver: Option<&str>) -> io::Result<()>;

    /// A write to a driver's `bind`.
    fn bind_to(&mut self, driver: &str) -> io::Result<()>;

    /// The meaning of an error of one of these.
    fn why(&self, error: &io::Error, driver: &str) -> String;
}

/// Binds a VF to a driver, or with `None` to none. Returns the driver before.
pub(crate) fn bind(
    vf: VfId,
    address: Bdf,
    wanted: Option<&str>,
    function: &mut impl Bindable,
) -> Result<Option<String>, FabricError> {
    let before = Binding::of(function);
    let refused = |why: String, source| FabricError::Refused {
        what: match wanted {
            Some(driver) => format!("bind {vf} ({address}) to {driver}"),
            None => format!("take {vf} ({address}) from its driver"),
        },
        why,
        source,
    };
    if let Some(driver) = wanted {
        if before.driver.as_deref() == Some(driver) {
            // Whoever bound it may have been ended before the override was as it belongs to the driver.
            let belongs = Some(driver).filter(|driver| is_stand_in(driver));
            if before.driver_override.as_deref() != belongs {
                let source = function.set_override(belongs);
                source.map_err(|source| refused(function.why(&source, driver), source))?;
            }
            return Ok(before.driver);
        }
        if !is_name(driver) || !function.is_loaded(driver) {
            let why = format!("no PCI driver of that name is loaded; try 'modprobe {driver}'");
            return Err(refused(why, Errno::NOENT.into()));
        }
    }
    match take(function, wanted) {
        Ok(()) => Ok(before.driver),
        Err(source) => {
            let mut why = function.why(&source, wanted.unwrap_or_default());
            why += &match put_back(function, before) {
                Ok(()) => "; it is bound as before".to_owned(),
                Err(error) => format!("; putting its driver back failed too: {error}"),
            };
            Err(refused(why, source))
        }
    }
}

/// Whether a driver takes whatever device it is told to take, in the place of the device's own driver.
fn is_stand_in(driver: &str) -> bool {
    driver.contains("vfio") || ["pci-stub", "uio_pci_generic"].contains(&driver)
}

/// A driver's name becomes part of a path.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
}

/// How a function is bound.
#[derive(PartialEq, Eq)]
struct Binding {
    driver: Option<String>,
    driver_override: Option<String>,
}

impl Binding {
    fn of(function: &impl Bindable) -> Self {
        Self { driver: function.driver(), driver_override: function.driver_override() }
    }
}

/// Binds it to `wanted`, or to nothing, whatever it was bound to.
fn take(function: &mut impl Bindable, wanted: Option<&str>) -> io::Result<()> {
    function.unbind()?;
    function.set_override(wanted.filter(|driver| is_stand_in(driver)))?;
    wanted.map_or(Ok(()), |driver| bind_to(function, driver))
}

fn put_back(function: &mut impl Bindable, before: Binding) -> io::Result<()> {
    if Binding::of(function) == before {
        return Ok(());
    }
    function.unbind()?;
    function.set_override(before.driver_override.as_deref())?;
    before.driver.map_or(Ok(()), |driver| bind_to(function, &driver))
}

fn bind_to(function: &mut impl Bindable, driver: &str) -> io::Result<()> {
    match function.bind_to(driver) {
        // While sriov_drivers_autoprobe is off the kernel binds a VF only to the driver its override names, even when
        // told to by hand (pci_device_can_probe); bound once, it stays without the override.
        Err(error) if Errno::from_io_error(&error) == Some(Errno::NODEV) && !is_stand_in(driver) => {
            function.set_override(Some(driver))?;
            let outcome = function.bind_to(driver);
            function.set_override(None)?;
            outcome?;
        }
        outcome => outcome?,
    }
    // Some drivers (nvme) only begin to start the device here, and let go of it later when that fails.
    match function.driver() {
        Some(now) if now == driver => Ok(()),
        _ => Err(io::Error::other("the driver let go of it again")),
    }
}
