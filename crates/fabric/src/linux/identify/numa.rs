//! The host's NUMA nodes and their distances.

use ioward_model::NumaNode;

use crate::linux::root::HostRoot;

const NODES: &str = "sys/devices/system/node";

/// The largest hosts have some hundreds (MAX_NUMNODES of Linux is 1024 at most).
const MAX_NODES: usize = 1024;

/// All nodes, by number. Leaves out a node with unreadable distances, which is not worth a Reason.
pub(super) fn read(root: &HostRoot) -> Vec<NumaNode> {
    let names = root.list(NODES).unwrap_or_default();
    let number = |name: &String| name.strip_prefix("node")?.parse().ok();
    let mut ids: Vec<u32> = names.iter().filter_map(number).take(MAX_NODES).collect();
    ids.sort_unstable();
    ids.dedup();
    ids.iter().filter_map(|id| node(root, *id, &ids)).collect()
}

/// The attribute has one distance for each online node, in order (drivers/base/node.c `distance_show`).
fn node(root: &HostRoot, id: u32, ids: &[u32]) -> Option<NumaNode> {
    let text = root.text(&format!("{NODES}/node{id}/distance")).ok()?;
    let distances: Vec<u32> = text.split_whitespace().map_while(|word| word.parse().ok()).collect();
    let complete = distances.len() == ids.len();
    complete.then(|| NumaNode { id, distances: ids.iter().copied().zip(distances).collect() })
}
