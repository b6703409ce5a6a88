//! The metrics there are. docs/metrics.md describes each; the dashboard of packaging/grafana is made of them.

/// What a family's values mean over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Counts up, from 0 when the daemon starts (or from wherever the adapter counts).
    Counter,
    /// How it is now.
    Gauge,
    /// Counts in buckets.
    Histogram,
}

impl Kind {
    /// Its word in the text format.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Metrics of one name.
#[derive(Debug)]
pub(crate) struct Family {
    pub name: &'static str,
    pub kind: Kind,
    /// The names of its labels. Each has values from a fixed list, or one for each adapter, VF or partition there is.
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

macro_rules! families {
    ($($constant:ident $name:literal $kind:ident [$($label:literal),*] $help:literal;)*) => {
        $(pub(crate) const $constant: Family =
            Family { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };)*

        /// All of them, in the order in which they are printed.
        pub(crate) const ALL: &[&Family] = &[$(&$constant),*];
    };
}

families! {
    BUILD "ioward_build_info" Gauge ["version"] "1; the version of the daemon is its label.";
    GENERATION "ioward_inventory_generation" Gauge [] "Generation of the inventory.";
    REVISION "ioward_state_revision" Gauge [] "Revision of the state.";
    TOTAL_VFS "ioward_adapter_total_vfs" Gauge ["pf"] "VFs that a PF can give at most (TotalVFs).";
    VFS "ioward_vfs" Gauge ["pf", "state"] "VFs of a PF in each state.";
    STUCK "ioward_adapter_stuck" Gauge ["pf"] "1 while an adapter does not return from the kernel, else 0.";
    SERVICE "ioward_adapter_service" Gauge ["pf", "state"] "1 for the state that an adapter is in (docs/faults.md), else 0.";
    ERRORS "ioward_adapter_errors_total" Counter ["pf", "severity"] "Errors that a PF has reported by AER.";
    HEALTH_ERRORS "ioward_adapter_health_errors_total" Counter ["pf", "reporter", "port"] "Errors that a health reporter of a PF's driver has noted (devlink).";
    OUT_OF_SERVICE "ioward_adapter_out_of_service" Gauge ["pf"] "1 while an adapter is out of service, else 0.";
    VF_OUT_OF_SERVICE "ioward_vf_out_of_service" Gauge ["pf", "index"] "1 for each VF that is locked out by itself.";
    PARTITIONS "ioward_partitions" Gauge ["state"] "Partitions that run and that do not.";
    DRIFT "ioward_drift" Gauge ["kind"] "Differences between host and state that are left, as last found.";
    RX_BYTES "ioward_vf_receive_bytes_total" Counter ["partition", "vf", "pf", "index"] "Bytes that a partition's VF has received.";
    TX_BYTES "ioward_vf_transmit_bytes_total" Counter ["partition", "vf", "pf", "index"] "Bytes that a partition's VF has sent.";
    RX_PACKETS "ioward_vf_receive_packets_total" Counter ["partition", "vf", "pf", "index"] "Frames that a partition's VF has received.";
    TX_PACKETS "ioward_vf_transmit_packets_total" Counter ["partition", "vf", "pf", "index"] "Frames that a partition's VF has sent.";
    RX_DROPPED "ioward_vf_receive_dropped_total" Counter ["partition", "vf", "pf", "index"] "Received frames of a partition's VF that were dropped.";
    TX_DROPPED "ioward_vf_transmit_dropped_total" Counter ["partition", "vf", "pf", "index"] "Frames to send of a partition's VF that were dropped.";
    OPERATIONS "ioward_vf_operations_total" Counter ["op", "outcome", "asker"] "Operations on VFs that partitions (over their channels) and users (over the API) have asked for.";
    PLANS "ioward_plans_total" Counter ["outcome"] "Plans of users that have ended.";
    FAILOVERS "ioward_failovers_total" Counter ["to"] "Switches between primaries and standbys that ioward has made by itself.";
    RESETS "ioward_machine_resets_total" Counter ["outcome"] "Resets of machines that an error had halted.";
    STEPS "ioward_step_duration_seconds" Histogram ["step", "outcome"] "How long steps of plans and repairs took.";
    REFUSALS "ioward_refusals_total" Counter ["rule"] "Reasons for which plans were refused.";
}
