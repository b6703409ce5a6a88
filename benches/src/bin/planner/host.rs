//! A large host and a large Spec, the same in every run.

use ioward_model::{
    Apart, Boot, Class, FailureDomain, HexId, Intent, Inventory, Machine, Netdev, NumaNode, Outcome,
    PartitionSpec, PhysicalFunction, Plan, Spec, Sriov, State, Step, VfRef, VfRequest, VirtualFunction,
};
use ioward_pci::Bdf;

/// NUMA nodes.
const NODES: u32 = 4;

/// PFs on adapters of two ports, of 10, 25 and 100 Gbit/s, spread over the NUMA nodes.
pub fn inventory(pfs: u16, vfs_each: u16) -> Inventory {
    let node = |id: u32| NumaNode {
        id,
        distances: (0..NODES)
            .map(|to| (to, if to == id { 10 } else { 21 + 10 * (to.abs_diff(id) / 2) }))
            .collect(),
    };
    Inventory {
        generation: 1,
        iommu: true,
        vfio_pci: Some(true),
        numa_nodes: (0..NODES).map(node).collect(),
        physical_functions: (0..pfs).map(|n| pf(n, vfs_each)).collect(),
    }
}

fn pf(n: u16, total_vfs: u16) -> PhysicalFunction {
    let adapter = n / 2;
    let address = Bdf::from_routing_id(u32::from(adapter / 200), (adapter % 200 + 1) << 8 | (n & 1));
    let speed = [10_000, 25_000, 25_000, 100_000][usize::from(adapter % 4)];
    let sriov = Sriov {
        total_vfs,
        initial_vfs: total_vfs,
        num_vfs: total_vfs,
        vf_enable: true,
        first_vf_offset: 16,
        vf_stride: 2,
        vf_device_id: HexId(0x1889),
        supported_page_sizes: vec![4096],
        system_page_size: 4096,
        ari: true,
        function_dependency_link: None,
        vf_bars: Vec::new(),
    };
    let vf = |index: u16| VirtualFunction {
        index,
        address: address.virtual_function(16, 2, index).unwrap_or(address),
        driver: None,
        iommu_group: Some(u32::from(n) << 8 | u32::from(index)),
        iommu_group_shared_with: Vec::new(),
        msix_vectors: None,
        flr: None,
        vgpu_type: None,
        netdevs: Vec::new(),
        in_use_by_host: Vec::new(),
        settings: ioward_model::VfSettings::default(),
        owner: None,
        errors: None,
        out_of_service: None,
        holder: None,
        reasons: Vec::new(),
    };
    PhysicalFunction {
        address,
        vendor_id: HexId(0x8086),
        device_id: HexId(0x159b),
        name: "a port".to_owned(),
        class: Class::Network,
        subclass: None,
        driver: Some("ice".to_owned()),
        numa_node: Some(u32::from(adapter / 4) % NODES),
        iommu_group: Some(1 << 24 | u32::from(n)),
        iommu_group_shared_with: Vec::new(),
        serial_number: Some(format!("serial-{adapter}")),
        link: None,
        msix_vectors: None,
        sriov: Some(sriov),
        drivers_autoprobe: Some(false),
        vf_msix_total: None,
        netdevs: vec![Netdev {
            name: format!("eth{n}"),
            ifindex: u32::from(n) + 1,
            mac: None,
            permanent_mac: None,
            speed_mbps: Some(speed),
            carrier: Some(true),
            up: true,
            mtu: Some(1500),
        }],
        rdma_devices: Vec::new(),
        id: None,
        capabilities: None,
        nvme: None,
        in_use_by_host: Vec::new(),
        errors: None,
        health: None,
        service: ioward_model::Service::Serving,
        conditions: ioward_model::Conditions::default(),
        vfs_assigned: 0,
        vfs_available: total_vfs,
        out_of_service: None,
        virtual_functions: (0..total_vfs).map(vf).collect(),
        reasons: Vec::new(),
    }
}

/// Partitions with two VFs on different adapters, near their NUMA node; some of them want fast links.
pub fn spec(partitions: usize, pfs: u16) -> Spec {
    let nodes = u32::from(pfs / 8).clamp(1, NODES);
    let partition = |n: usize| {
        let request = |name: &str| VfRequest {
            min_link_speed: (n.is_multiple_of(5)).then(|| "25Gbit".parse().unwrap()),
            ..VfRequest::new(name.parse().unwrap(), Class::Network)
        };
        let apart =
            Apart { vf: VfRef::Own("net0".parse().unwrap()), by: FailureDomain::Adapter, prefer: false };
        PartitionSpec {
            name: format!("p{n:04}").parse().unwrap(),
            kind: Machine { cpus: 2, ..Machine::new(Boot { disk: Some("/disk".into()), ..Boot::default() }) }
                .into(),
            // A little more on some nodes than on others, so that not all of it fits where it should be.
            numa_node: Some(u32::try_from(n * n % 7).unwrap() % nodes),
            guest: None,
            vfs: vec![request("net0"), VfRequest { apart_from: vec![apart], ..request("net1") }],
        }
    };
    Spec { version: 1, adapters: Vec::new(), partitions: (0..partitions).map(partition).collect() }
}

/// The host and the state once a plan is carried out.
pub fn carry_out(inventory: &Inventory, plan: &Plan) -> (Inventory, State) {
    let (mut inventory, mut state) = (inventory.clone(), State::default());
    let Intent::Apply { .. } = &plan.intent else { panic!("a Spec is applied") };
    let mut settings = std::collections::BTreeMap::new();
    let mut bound = std::collections::BTreeSet::new();
    for step in &plan.steps {
        match step {
            Step::ConfigureVf { vf, to } => _ = settings.insert(*vf, to.clone()),
            Step::BindDriver { vf, .. } => _ = bound.insert(*vf),
            // The state finds a VF by looking through all it has: only what the planner goes by is noted here.
            Step::Assign { owner, to } => {
                let partition = state.partitions.get_mut(&owner.partition).unwrap();
                partition.vfs.insert(owner.vf.clone(), to.clone());
            }
            Step::AttachVf { owner, .. } => {
                let partition = state.partitions.get_mut(&owner.partition).unwrap();
                partition.vfs.get_mut(&owner.vf).unwrap().attached = true;
            }
            step => state.record(step, &Outcome::default()),
        }
    }
    for held in state.partitions.values_mut().flat_map(|partition| partition.vfs.values_mut()) {
        held.settings = settings.get(&held.vf).cloned().unwrap_or_default();
        held.original_driver = Some(None);
    }
    for pf in &mut inventory.physical_functions {
        for vf in &mut pf.virtual_functions {
            let id = ioward_model::VfId { pf: pf.address, index: vf.index };
            vf.settings = settings.get(&id).cloned().unwrap_or_default();
            vf.driver = bound.contains(&id).then(|| "vfio-pci".to_owned());
        }
    }
    state.revision = plan.id;
    (inventory, state)
}
