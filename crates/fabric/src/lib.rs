//! The PCI side of a host: what adapters there are, how many VFs they give, what those are bound to and how they are set.
//!
//! [`Fabric`] is the seam between the management partition and the machine. Arguments and results are plain data, so
//! that the two can be put into processes with different privileges. [`linux`] is the real machine,
//! [`sim`] a simulated one.

mod binding;
mod describe;
mod error;
pub mod linux;
pub mod sim;
mod vf_count;

pub use error::FabricError;

use async_trait::async_trait;
use ioward_model::{Inventory, Recovery, VfId, VfSettings, VfStatistics, doctor::Finding};
use ioward_pci::Bdf;
use tokio::sync::mpsc;

/// The PCI side of one machine.
///
/// Every operation is idempotent: what is so already is left alone and is no error. Every operation ends: one that the
/// kernel does not answer within its bound fails with [`FabricError::Stuck`].
#[async_trait]
pub trait Fabric: Send + Sync {
    /// Looks at the whole host. `generation` is 0, and no VF has an owner: those are the caller's to fill in.
    ///
    /// # Errors
    /// Only when the host can't be looked at at all. A function that can't be read is in the result, with a Reason.
    async fn identify(&self) -> Result<Inventory, FabricError>;

    /// Sets `sriov_drivers_autoprobe` of a PF.
    ///
    /// # Errors
    /// When the PF is not there or the kernel refuses.
    async fn set_autoprobe(&self, pf: Bdf, on: bool) -> Result<(), FabricError>;

    /// Sets NumVFs of a PF and waits until its VFs are there, or gone. The kernel allows 0 to N and N to 0 only.
    ///
    /// # Errors
    /// When the PF is not there or the kernel refuses: [`FabricError::Refused`] says why in words.
    async fn set_vf_count(&self, pf: Bdf, count: u16) -> Result<(), FabricError>;

    /// Where a VF is.
    ///
    /// # Errors
    /// When it does not exist.
    async fn vf_address(&self, vf: VfId) -> Result<Bdf, FabricError>;

    /// The driver a VF is bound to.
    ///
    /// # Errors
    /// When the VF does not exist.
    async fn driver(&self, vf: VfId) -> Result<Option<String>, FabricError>;

    /// Binds a VF to a driver, or with `None` to none and takes its `driver_override` away. Returns the driver before.
    ///
    /// # Errors
    /// When the VF does not exist or the driver does not take it; it is then bound as before.
    async fn bind(&self, vf: VfId, driver: Option<&str>) -> Result<Option<String>, FabricError>;

    /// Resets a VF (FLR).
    ///
    /// # Errors
    /// When the VF does not exist or has no function-level reset.
    async fn reset(&self, vf: VfId) -> Result<(), FabricError>;

    /// A VF's settings, as its PF reports them.
    ///
    /// # Errors
    /// When the VF does not exist or its PF's driver does not answer.
    async fn settings(&self, vf: VfId) -> Result<VfSettings, FabricError>;

    /// Changes settings of a VF through its PF: those that `change` names. Those already made when one fails are put
    /// back.
    ///
    /// # Errors
    /// When the adapter has no such setting or its driver refuses it.
    async fn configure(&self, vf: VfId, change: &VfSettings) -> Result<(), FabricError>;

    /// A VF's traffic counters.
    ///
    /// # Errors
    /// When the VF does not exist or its PF does not count.
    async fn statistics(&self, vf: VfId) -> Result<VfStatistics, FabricError>;

    /// Whether any process of this host has a VF open through VFIO.
    ///
    /// # Errors
    /// When the VF does not exist, or processes can't be looked at.
    async fn is_open(&self, vf: VfId) -> Result<bool, FabricError>;

    /// Whether the host can give VFs to partitions at all, and what is missing for it. Without findings where nobody knows.
    ///
    /// # Errors
    /// When the host can't be looked at at all.
    async fn doctor(&self) -> Result<Vec<Finding>, FabricError> {
        Ok(Vec::new())
    }

    /// Tries to recover a PF that had a fault. What is not well afterwards shows in the next look.
    ///
    /// # Errors
    /// When the PF is not there, can't be recovered in that way, or its driver can't be bound anew since somebody has a VF open.
    async fn recover(&self, pf: Bdf, how: Recovery) -> Result<(), FabricError>;

    /// Says that something about functions, drivers or links has changed, so that a look is worth while. It may say so
    /// without reason and may miss something. It ends at once where nobody tells.
    async fn changes(&self) -> mpsc::Receiver<()>;
}
