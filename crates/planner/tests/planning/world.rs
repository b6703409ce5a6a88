//! A host to plan for, built in a line, and what a person asks of it.

use ioward_model::{
    AdapterSpec, Class, Conditions, HexId, Holder, HostUse, Intent, Inventory, Netdev, NumaNode,
    NvmeController, NvmeResources, NvmeSecondary, Options, PartitionSpec, PhysicalFunction, Plan, Reason,
    Spec, Sriov, State, VfRequest,
};
use ioward_pci::Bdf;
use ioward_planner::{Machine, lint, plan};

pub const NIC: &str = "0000:01:00.0";
pub const NIC2: &str = "0000:02:00.0";
pub const SSD: &str = "0000:03:00.0";

pub const SAFE: Options = Options { allow_management_nic: false, allow_disruption: false, force: false };
pub const DISRUPT: Options = Options { allow_disruption: true, ..SAFE };
pub const MANAGEMENT: Options = Options { allow_management_nic: true, ..SAFE };
pub const ANYTHING: Options = Options { allow_management_nic: true, allow_disruption: true, force: false };

pub fn at(address: &str) -> Bdf {
    address.parse().unwrap()
}

/// A host and what ioward has done to it so far.
#[derive(Clone, Debug)]
pub struct World {
    pub inventory: Inventory,
    pub state: State,
}

/// A host with an IOMMU and no adapters.
pub fn host() -> World {
    let inventory = Inventory { generation: 7, iommu: true, ..Inventory::default() };
    World { inventory, state: State::default() }
}

impl World {
    /// With so many NUMA nodes, each twice as far from the others as from itself.
    pub fn nodes(mut self, count: u32) -> Self {
        let distance = |from, to| (to, if from == to { 10 } else { 21 });
        let node = |id| NumaNode { id, distances: (0..count).map(|to| distance(id, to)).collect() };
        self.inventory.numa_nodes = (0..count).map(node).collect();
        self
    }

    /// With a NIC at 1 Gbit/s whose driver autoprobes.
    pub fn nic(self, address: &str, total_vfs: u16) -> Self {
        let last = self.inventory.physical_functions.len();
        let netdev = Netdev {
            name: format!("eth{last}"),
            ifindex: 2,
            mac: Some(format!("02:00:00:00:00:{last:02x}").parse().unwrap()),
            permanent_mac: None,
            speed_mbps: Some(1000),
            carrier: Some(true),
            up: true,
            mtu: Some(1500),
        };
        self.adapter(address, total_vfs, Class::Network, vec![netdev], None)
    }

    /// With an NVMe controller that has 2 queues and 1 interrupt for each VF.
    pub fn nvme(self, address: &str, total_vfs: u16) -> Self {
        let total = u32::from(total_vfs);
        let resources = NvmeResources {
            queues_total: 2 * total,
            queues_assigned: 0,
            queues_max_per_vf: 2 * total_vfs,
            interrupts_total: total,
            interrupts_assigned: 0,
            interrupts_max_per_vf: total_vfs,
        };
        let secondary = |index| NvmeSecondary {
            controller_id: index + 1,
            index,
            online: false,
            queues: 0,
            interrupts: 0,
        };
        let controller = NvmeController {
            name: "nvme0".into(),
            namespaces: vec!["nvme0n1".into()],
            serial: None,
            model: None,
            state: None,
            resources: Some(resources),
            secondaries: (0..total_vfs).map(secondary).collect(),
        };
        self.adapter(address, total_vfs, Class::Nvme, Vec::new(), Some(controller))
    }

    pub fn adapter(
        mut self,
        address: &str,
        total_vfs: u16,
        class: Class,
        netdevs: Vec<Netdev>,
        nvme: Option<NvmeController>,
    ) -> Self {
        let sriov = Sriov {
            total_vfs,
            initial_vfs: total_vfs,
            num_vfs: 0,
            vf_enable: false,
            first_vf_offset: 128,
            vf_stride: 2,
            vf_device_id: HexId(0x10ca),
            supported_page_sizes: vec![4096],
            system_page_size: 4096,
            ari: true,
            function_dependency_link: None,
            vf_bars: Vec::new(),
        };
        self.inventory.physical_functions.push(PhysicalFunction {
            address: at(address),
            vendor_id: HexId(0x8086),
            device_id: HexId(0x10c9),
            name: "adapter".into(),
            class,
            subclass: None,
            driver: Some("driver".into()),
            numa_node: None,
            iommu_group: Some(1),
            iommu_group_shared_with: Vec::new(),
            serial_number: None,
            link: None,
            msix_vectors: None,
            sriov: Some(sriov),
            drivers_autoprobe: Some(true),
            vf_msix_total: None,
            netdevs,
            rdma_devices: Vec::new(),
            id: None,
            capabilities: None,
            nvme,
            in_use_by_host: Vec::new(),
            errors: None,
            health: None,
            service: ioward_model::Service::Serving,
            conditions: Conditions::default(),
            vfs_assigned: 0,
            vfs_available: total_vfs,
            out_of_service: None,
            virtual_functions: Vec::new(),
            reasons: Vec::new(),
        });
        self
    }

    /// The adapter added last, otherwise.
    pub fn but(mut self, change: impl FnOnce(&mut PhysicalFunction)) -> Self {
        change(self.inventory.physical_functions.last_mut().unwrap());
        self
    }

    /// The adapter added last gives so many VFs already, bound as autoprobe has it.
    pub fn giving(mut self, vfs: u16) -> Self {
        let pf = self.inventory.physical_functions.last().unwrap().address;
        self.write_numvfs(pf, vfs);
        self
    }

    /// The adapter added last carries the host's address.
    pub fn used_by_host(self) -> Self {
        self.but(|pf| pf.in_use_by_host.push(address_in_use()))
    }

    /// A VF of the adapter added last carries an address of the host.
    pub fn with_vf_used_by_host(self, index: usize) -> Self {
        self.but(|pf| pf.virtual_functions[index].in_use_by_host.push(address_in_use()))
    }

    /// A VF of the adapter added last is bound by somebody else.
    pub fn with_vf_lent_by_somebody(self, index: usize) -> Self {
        self.but(|pf| pf.virtual_functions[index].driver = Some("vfio-pci".into()))
    }

    /// A VF of the adapter added last is in the hands of somebody who is no partition.
    pub fn with_vf_held(self, index: usize, driver: &str, holder: Holder) -> Self {
        self.but(|pf| {
            let vf = &mut pf.virtual_functions[index];
            (vf.driver, vf.holder) = (Some(driver.into()), Some(holder));
        })
    }

    /// Somebody writes sriov_numvfs behind ioward's back.
    pub fn write_numvfs(&mut self, pf: Bdf, to: u16) {
        let from = self.pf(pf).num_vfs();
        let mut machine = Machine::new(&self.inventory, &State::default());
        for (from, to) in [(from, 0), (0, to)] {
            if from != to {
                machine.carry_out(&ioward_model::Step::SetVfCount { pf, from, to }).unwrap();
            }
        }
        self.inventory = machine.inventory().clone();
    }

    /// The host starts anew: no VFs, autoprobe on, no partition runs.
    pub fn reboot(&mut self) {
        for pf in self.inventory.physical_functions.iter().map(|pf| pf.address).collect::<Vec<_>>() {
            self.write_numvfs(pf, 0);
        }
        for pf in &mut self.inventory.physical_functions {
            pf.drivers_autoprobe = Some(true);
            let secondaries = pf.nvme.iter_mut().flat_map(|nvme| &mut nvme.secondaries);
            secondaries.for_each(|vf| (vf.queues, vf.interrupts, vf.online) = (0, 0, false));
        }
        self.state.partitions.values_mut().for_each(|partition| partition.running = false);
    }

    pub fn pf(&self, address: Bdf) -> &PhysicalFunction {
        self.inventory.physical_function(address).unwrap()
    }

    /// A plan that the linter has nothing against, and that is the same when it is made again.
    pub fn plan(&self, intent: &Intent, options: Options) -> Result<Plan, Vec<Reason>> {
        let result = plan(&self.inventory, &self.state, intent, &options);
        assert_eq!(
            plan(&self.inventory, &self.state, intent, &options),
            result,
            "the same input gave another plan"
        );
        match &result {
            Ok(plan) => {
                let problems = lint(plan, &self.inventory, &self.state);
                assert!(problems.is_empty(), "{}\n\nin {}", problems.join("\n"), lines(plan).join("\n"));
            }
            Err(reasons) => assert!((1..=32).contains(&reasons.len()), "{} reasons", reasons.len()),
        }
        result
    }

    /// Plans and carries out; the steps as a person reads them.
    #[track_caller]
    pub fn does(&mut self, intent: &Intent, options: Options) -> Vec<String> {
        let plan = self.plan(intent, options).unwrap_or_else(|reasons| panic!("refused: {}", told(&reasons)));
        self.carry_out(&plan);
        lines(&plan)
    }

    pub fn carry_out(&mut self, plan: &Plan) {
        let mut machine = Machine::new(&self.inventory, &self.state);
        for step in &plan.steps {
            machine.carry_out(step).unwrap();
        }
        self.inventory = machine.inventory().clone();
        self.state = machine.state().clone();
        self.state.revision = plan.id;
        for pf in &mut self.inventory.physical_functions {
            pf.out_of_service = self.state.out_of_service.get(&pf.address).cloned();
        }
    }

    /// Why not, as a person reads it.
    #[track_caller]
    pub fn refuses(&self, intent: &Intent, options: Options) -> String {
        match self.plan(intent, options) {
            Err(reasons) => told(&reasons),
            Ok(plan) => panic!("planned: {}", lines(&plan).join("\n")),
        }
    }

    /// Which VF an owner has, as `0000:01:00.0/0`.
    pub fn vf_of(&self, owner: &str) -> String {
        let owner: ioward_model::Owner = owner.parse().unwrap();
        let held = &self.state.partitions[&owner.partition].vfs[&owner.vf];
        format!("{}/{}", held.vf.pf, held.vf.index)
    }
}

pub fn lines(plan: &Plan) -> Vec<String> {
    plan.steps.iter().map(ToString::to_string).collect()
}

pub fn told(reasons: &[Reason]) -> String {
    reasons.iter().map(|reason| format!("[{:?}] {reason}", reason.rule)).collect::<Vec<_>>().join("\n")
}

fn address_in_use() -> HostUse {
    HostUse::Address { netdev: "eth0".into(), address: "192.0.2.1/24".into() }
}

/// A Spec in its text form, without its first line.
pub fn spec(parts: &[String]) -> Intent {
    let text = format!("version = 1\n{}", parts.join("\n"));
    Intent::Apply { spec: Spec::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{error}\n{text}")) }
}

/// A partition whose VFs are written `name class key=value…`, the values as in TOML.
pub fn partition(name: &str, vfs: &[&str]) -> String {
    let vfs: Vec<_> = vfs.iter().map(|vf| inline(vf)).collect();
    format!("[[partition]]\nname = \"{name}\"\nboot = {{ kernel = \"/k\" }}\nvf = [{}]\n", vfs.join(", "))
}

/// The same partition as a `libvirt` domain or a `netns` namespace of its name.
pub fn of_kind(kind: &str, partition: &str) -> String {
    let name = partition.split('"').nth(1).unwrap();
    partition.replace("boot = { kernel = \"/k\" }", &format!("{kind} = \"{name}\""))
}

fn inline(vf: &str) -> String {
    let mut words = vf.split_whitespace();
    let (name, class) = (words.next().unwrap(), words.next().unwrap());
    let rest: String = words.map(|word| format!(", {word}")).collect();
    format!("{{ name = \"{name}\", class = \"{class}\"{rest} }}")
}

/// An adapter with a number of VFs; the empty word leaves it out.
pub fn adapter(pf: &str, vfs: &str) -> String {
    let vfs = if vfs.is_empty() { String::new() } else { format!("vfs = {vfs}\n") };
    format!("[[adapter]]\npf = \"{pf}\"\n{vfs}")
}

/// A Spec with this one partition.
pub fn only(name: &str, vfs: &[&str]) -> Intent {
    spec(&[partition(name, vfs)])
}

pub fn partition_of(name: &str, vfs: &[&str]) -> PartitionSpec {
    let Intent::Apply { spec } = only(name, vfs) else { unreachable!() };
    spec.partitions[0].clone()
}

pub fn request(vf: &str) -> VfRequest {
    partition_of("any", &[vf]).vfs[0].clone()
}

pub fn attach(name: &str, vf: &str) -> Intent {
    Intent::Attach { partition: name.parse().unwrap(), vfs: vec![request(vf)] }
}

pub fn detach(name: &str, vf: &str) -> Intent {
    Intent::Detach { partition: name.parse().unwrap(), vf: vf.parse().unwrap() }
}

pub fn remove(name: &str) -> Intent {
    Intent::Remove { partition: name.parse().unwrap() }
}

pub fn start(name: &str) -> Intent {
    Intent::Start { partition: name.parse().unwrap() }
}

pub fn stop(name: &str) -> Intent {
    Intent::Stop { partition: name.parse().unwrap() }
}

pub fn evacuate(pf: &str) -> Intent {
    Intent::Evacuate { pf: at(pf), leave_out: false }
}

pub fn bring_back(pf: &str) -> Intent {
    Intent::Return { pf: at(pf) }
}

/// The same Spec with the VFs of one adapter left to the need.
pub fn as_needed(pf: Bdf) -> Intent {
    Intent::Apply {
        spec: Spec {
            version: 1,
            adapters: vec![AdapterSpec { pf, vfs: None, spare: None }],
            partitions: Vec::new(),
        },
    }
}
