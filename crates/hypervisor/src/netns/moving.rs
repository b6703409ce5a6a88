//! A VF's interface on its way into a namespace, and back home.
//!
//! ```text
//!   driver makes it      into()                       home(); the namespace goes
//!  ───────────────> home ───────> partition's namespace ─────────────────────────> home, under the name it had before
//! ```
//!
//! Where it is, is looked up each time and never remembered: administrators, containers and the kernel move interfaces too. While a
//! namespace is open here it does not go, so that an interface can be taken out of one that has lost its name.

use std::{
    io, thread,
    time::{Duration, Instant},
};

use ioward_model::NamespaceRef;
use ioward_netlink::Link;
use ioward_pci::Bdf;
use rustix::io::Errno;

use super::{find::Place, kernel::Kernel, record::HeldVf};

/// Has the kernel choose the number.
const ANY_NAME: &[u8] = b"eth%d";
/// Between two looks for an interface that is being made.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Attempts to bring an interface home: one, and one after its old name was taken from under it, and one more.
const ATTEMPTS: u32 = 3;
/// Hands a VF to a program, and makes no interface of it.
const VFIO: &str = "vfio-pci";

/// Moves interfaces.
pub(super) struct Mover<'k, K> {
    kernel: &'k K,
    /// How long drivers may take to make interfaces, and the kernel to bring them back from a namespace that goes.
    bound: Duration,
    until: Instant,
}

/// Where the interface of a function is.
enum Whereabouts {
    Home(Link),
    There(Link),
    Elsewhere,
}

impl<'k, K: Kernel> Mover<'k, K> {
    /// For one operation, in which all waiting together ends within the bound.
    pub(super) fn new(kernel: &'k K, bound: Duration) -> Self {
        Self { kernel, bound, until: Instant::now() + bound }
    }

    /// Moves a VF's interface into the namespace, under its name there; nothing where it is there already. `note` is told the name that
    /// it has at home, before it is moved.
    ///
    /// # Errors
    /// Why not, in words. It is home then, or there under another name where even that failed.
    pub(super) fn into(
        &self,
        namespace: &NamespaceRef,
        vf: &HeldVf,
        note: impl FnOnce(&[u8]) -> Result<(), String>,
    ) -> Result<(), String> {
        let there = self.kernel.find(namespace).map_err(|absent| absent.to_string())?;
        let home = self.home_place()?;
        let link = loop {
            match self.locate(vf.function, &home, Some(&there))? {
                Whereabouts::There(_) => return Ok(()),
                Whereabouts::Home(link) => break link,
                Whereabouts::Elsewhere => self.wait_for_driver(vf.function)?,
            }
        };
        let name = vf.name.as_str().as_bytes();
        if self.links(&there)?.iter().any(|other| other.is_called(name)) {
            return Err(taken(vf));
        }
        note(&link.name)?;
        if let Err(error) = self.kernel.move_link(&home, link.index, &there, name) {
            let why = match Errno::from_io_error(&error) {
                Some(Errno::EXIST) => taken(vf),
                _ => format!("does not take it: {error}"),
            };
            return Err(self.take_back(vf.function, &home, &there, &link.name, why));
        }
        // It may have lost its name, and another may have it now. This one lives until it is let go of here.
        match self.kernel.find(namespace) {
            Ok(now) if now.identity == there.identity => Ok(()),
            _ => {
                let why = "has gone, just when the VF was moved into it".to_owned();
                Err(self.take_back(vf.function, &home, &there, &link.name, why))
            }
        }
    }

    /// Takes a VF's interface home, under the name that it had there, or another one that is free. Nothing where it is home already, or
    /// the VF has none. One that can't be found is ended: its driver is let go of the VF.
    ///
    /// # Errors
    /// Why not, in words.
    pub(super) fn home(&self, namespace: &NamespaceRef, vf: &HeldVf) -> Result<(), String> {
        let there = self.kernel.find(namespace).ok();
        let home = self.home_place()?;
        let before = vf.before.as_deref().map(str::as_bytes);
        let mut failures = 0;
        loop {
            match self.locate(vf.function, &home, there.as_ref())? {
                Whereabouts::Home(link) => {
                    self.rename_back(&link, &home, vf);
                    return Ok(());
                }
                Whereabouts::There(link) => {
                    let Some(there) = &there else { continue };
                    if let Err(error) = self.bring(&link, there, &home, before) {
                        failures += 1;
                        if failures == ATTEMPTS {
                            return self.end_interface(vf.function, &error.to_string());
                        }
                    }
                }
                Whereabouts::Elsewhere if !self.has_interface(vf.function)? => return Ok(()),
                Whereabouts::Elsewhere if Instant::now() < self.until => thread::sleep(LOOK_AGAIN),
                Whereabouts::Elsewhere => {
                    return self.end_interface(vf.function, "it is in none that is known");
                }
            }
        }
    }

    /// Whether a VF's interface is seen not to be in the namespace.
    pub(super) fn is_out(&self, namespace: &NamespaceRef, function: Bdf) -> bool {
        match self.kernel.find(namespace) {
            Ok(there) => {
                self.links(&there).is_ok_and(|links| links.iter().all(|link| link.function != Some(function)))
            }
            Err(_) => self.kernel.is_home(function),
        }
    }

    fn home_place(&self) -> Result<Place, String> {
        self.kernel.home().map_err(|error| format!("can't be told from the host's own: {error}"))
    }

    fn links(&self, place: &Place) -> Result<Vec<Link>, String> {
        self.kernel.links(place).map_err(|error| format!("can't be looked into: {error}"))
    }

    fn locate(&self, function: Bdf, home: &Place, there: Option<&Place>) -> Result<Whereabouts, String> {
        let its = |place: &Place| -> Result<Vec<Link>, String> {
            let mut links = self.links(place)?;
            links.retain(|link| link.function == Some(function));
            Ok(links)
        };
        // Home first and last: it may come home between the looks.
        for place in [Some(home), there, Some(home)].into_iter().flatten() {
            let mut links = its(place)?;
            if links.len() > 1 {
                return Err(format!("takes no VF with {} interfaces, as this one has", links.len()));
            }
            match links.pop() {
                Some(link) if place.identity == home.identity => return Ok(Whereabouts::Home(link)),
                Some(link) => return Ok(Whereabouts::There(link)),
                None => {}
            }
        }
        Ok(Whereabouts::Elsewhere)
    }

    fn wait_for_driver(&self, function: Bdf) -> Result<(), String> {
        let driver =
            self.driver(function)?.ok_or("takes interfaces, and the VF has none without a driver")?;
        if Instant::now() >= self.until {
            return Err(format!(
                "does not have its interface: {driver} has made none within {} s, or it is in another namespace",
                self.bound.as_secs()
            ));
        }
        thread::sleep(LOOK_AGAIN);
        Ok(())
    }

    /// The way that always works: whatever namespace an interface is in, it ends with its driver. Whoever gives the VF its next
    /// driver, or the same one, gets a new one at home.
    fn end_interface(&self, function: Bdf, why: &str) -> Result<(), String> {
        tracing::warn!(
            "{function} is taken from its driver: no network namespace gives its interface back: {why}"
        );
        let unbound = self.kernel.unbind(function);
        unbound.map_err(|error| format!("does not give it back: {why}; nor does its driver: {error}"))
    }

    fn has_interface(&self, function: Bdf) -> Result<bool, String> {
        Ok(self.driver(function)?.is_some_and(|driver| driver != VFIO))
    }

    fn driver(&self, function: Bdf) -> Result<Option<String>, String> {
        let driver = self.kernel.driver(function);
        driver.map_err(|error| format!("can't be given {function}, whose driver can't be looked at: {error}"))
    }

    /// After a failure: brings the interface home if it got there. Gives the reason to tell.
    fn take_back(&self, function: Bdf, home: &Place, there: &Place, before: &[u8], why: String) -> String {
        match self.locate(function, home, Some(there)) {
            Ok(Whereabouts::There(link)) => match self.bring(&link, there, home, Some(before)) {
                Ok(()) => why,
                Err(error) => format!("{why}; and it can't be taken back: {error}"),
            },
            Ok(Whereabouts::Home(_) | Whereabouts::Elsewhere) => why,
            Err(error) => format!("{why}; and it {error}"),
        }
    }

    fn bring(&self, link: &Link, there: &Place, home: &Place, before: Option<&[u8]>) -> io::Result<()> {
        let at_home = self.kernel.links(home)?;
        let is_free = |name: &&[u8]| !at_home.iter().any(|other| other.is_called(name));
        let name = before.filter(is_free).unwrap_or(ANY_NAME);
        self.kernel.move_link(there, link.index, home, name)
    }

    /// Gives an interface that the kernel has brought home its old name. Nobody depends on that: the next name will do.
    fn rename_back(&self, link: &Link, home: &Place, vf: &HeldVf) {
        // default_device_exit_net() in net/core/dev.c keeps its name or calls it dev%d; any other somebody has given it since.
        let is_ours = link.name == vf.name.as_str().as_bytes() || link.name.starts_with(b"dev");
        let Some(before) = vf.before.as_deref().map(str::as_bytes).filter(|_| is_ours) else { return };
        let is_taken =
            self.kernel.links(home).is_ok_and(|links| links.iter().any(|link| link.is_called(before)));
        if !is_taken && let Err(error) = self.kernel.rename_link(link.index, before) {
            tracing::debug!("interface {} of {} keeps its name: {error}", link.index, vf.function);
        }
    }
}

fn taken(vf: &HeldVf) -> String {
    format!(
        "has an interface {0} already; rename that (ip link set {0} name …), or give the VF another name in the Spec",
        vf.name
    )
}
