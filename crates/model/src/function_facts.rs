//! The facts about a function that decide whether it may be handed to a partition.

use ioward_pci::Bdf;

/// Who a function is, and with whom. On a Linux host this is what sysfs says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FunctionFacts {
    /// The physical function that it is a virtual function of; `None` when it is none.
    pub physical: Option<Bdf>,
    /// Whether it is a PCI bridge.
    pub is_bridge: bool,
    /// The driver it is bound to.
    pub driver: Option<String>,
    /// The names of all devices of its IOMMU group, itself among them; `None` when it is in no group. Not every device is a
    /// PCI function.
    pub group: Option<Vec<String>>,
}
