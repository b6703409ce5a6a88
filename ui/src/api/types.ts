// The values of the API, as docs/api.md, docs/inventory.md, docs/plan.md and docs/spec.md describe them. Fields are added
// in later versions; what the page does not know it leaves alone.

export type Address = string;

export interface VfId {
  pf: Address;
  index: number;
}

export interface Vlan {
  id: number;
  protocol?: string;
  priority?: number;
}

export interface Settings {
  mac?: string;
  vlan?: number | Vlan;
  trust?: boolean;
  spoofchk?: boolean;
  min_tx_rate?: string;
  max_tx_rate?: string;
  link_state?: string;
  queues?: number;
  interrupts?: number;
  online?: boolean;
}

export interface Reason {
  rule: string;
  function?: Address;
  request?: string;
  and_more?: number;
  key?: string;
  required: string;
  found: string;
  remedy?: string;
}

export interface HostUse {
  use: string;
  netdev?: string;
  address?: string;
  upper?: string;
  device?: string;
  used_by?: string;
}

export interface Process {
  pid: number;
  command: string;
  runs: { is: string; name?: string; id?: string; uid?: string; container?: string; machine?: string };
}

export interface Holder extends Partial<Process> {
  kind: string;
  name?: string;
  netdevs?: string[];
  process?: Process;
}

export interface VirtualFunction {
  index: number;
  address: Address;
  driver?: string | null;
  iommu_group?: number | null;
  iommu_group_shared_with?: Address[];
  msix_vectors?: number | null;
  flr?: boolean;
  vgpu_type?: number;
  netdevs?: string[];
  in_use_by_host?: HostUse[];
  settings?: Settings;
  owner?: string | null;
  holder?: Holder;
  reasons?: Reason[];
}

export interface Netdev {
  name: string;
  mac?: string | null;
  speed_mbps?: number | null;
  carrier?: boolean | null;
  up: boolean;
  mtu?: number | null;
}

export interface Link {
  speed_mts: number;
  width: number;
  max_speed_mts: number;
  max_width: number;
}

export interface PhysicalFunction {
  address: Address;
  id?: string;
  name: string;
  class: string;
  subclass?: string | null;
  driver?: string | null;
  capabilities?: string[];
  numa_node?: number | null;
  iommu_group?: number | null;
  iommu_group_shared_with?: Address[];
  serial_number?: string | null;
  link?: Link | null;
  msix_vectors?: number | null;
  sriov?: { total_vfs: number; num_vfs: number; vf_enable: boolean } | null;
  drivers_autoprobe?: boolean | null;
  rdma_devices?: string[];
  netdevs?: Netdev[];
  nvme?: {
    name: string;
    namespaces?: string[];
    model?: string | null;
    resources?: { queues_total: number; queues_assigned: number; interrupts_total: number; interrupts_assigned: number } | null;
  } | null;
  in_use_by_host?: HostUse[];
  vfs_assigned: number;
  vfs_available: number;
  virtual_functions?: VirtualFunction[];
  reasons?: Reason[];
}

export interface Inventory {
  generation: number;
  iommu: boolean;
  numa_nodes?: { id: number; distances?: number[] }[];
  physical_functions: PhysicalFunction[];
}

export type GuestMay = string[] | Record<string, boolean | string>;

export interface VfRequest extends Settings {
  name: string;
  class: string;
  subclass?: string;
  pf?: Address;
  index?: number;
  min_link_speed?: string;
  carrier?: boolean;
  min_pcie_bandwidth?: string;
  numa?: string;
  needs?: string[];
  min_msix_vectors?: number;
  min_namespaces?: number;
  apart_from?: { vf: string; by?: string; prefer?: boolean }[];
  guest_may?: GuestMay;
}

export interface PartitionSpec {
  name: string;
  cpus?: number;
  memory?: string;
  autostart?: boolean;
  boot?: { kernel?: string; initrd?: string; cmdline?: string; disk?: string };
  libvirt?: string;
  netns?: string | { pid_file: string };
  numa_node?: number;
  guest?: { os?: string; drivers?: string[] };
  vf?: VfRequest[];
}

export interface AdapterSpec {
  pf: Address;
  vfs?: number | "max";
  spare?: number;
}

export interface Spec {
  version: number;
  adapter?: AdapterSpec[];
  partition?: PartitionSpec[];
}

export interface AssignedVf extends VfId {
  name: string;
  class: string;
  address?: Address | null;
  settings: Settings;
  guest_may: string[];
  /** Its part in a pair of two VFs. */
  failover?: { role: "primary" | "standby"; partner: string; active: boolean };
  /** The bridge that its standby is on. */
  standby_bridge?: string;
  failed_over?: { since_ms: number; why: "asked" | "guest" | { fault: { what: string } } };
}

export interface Partition {
  name: string;
  running: boolean;
  /** Why its machine executes nothing, although it is there. */
  halted?: string | null;
  accelerator?: string | null;
  pid?: number | null;
  cpus?: number;
  memory?: string;
  libvirt?: string;
  netns?: string | { pid_file: string };
  channel: boolean;
  agent?: string | null;
  console?: string | null;
  vfs: AssignedVf[];
}

export interface Drift {
  drift: string;
  pf?: Address;
  vf?: VfId;
  partition?: string;
  owner?: string;
  noted?: unknown;
  found?: unknown;
  breaks?: string[];
  left_because?: string;
}

export interface Orphan extends VfId {
  address: Address;
  error?: string;
}

export interface Relaxation {
  relaxation: string;
  request?: string;
  key?: string;
  node?: number;
  with?: string;
  partition?: string;
  pf?: Address;
  vfs?: number;
}

export interface Way {
  gives: Relaxation[];
}

export interface Step {
  step: string;
  pf?: Address;
  vf?: VfId;
  owner?: string;
  partition?: string;
  to?: unknown;
  from?: unknown;
  force?: boolean;
}

export interface Options {
  allow_management_nic?: boolean;
  allow_disruption?: boolean;
  force?: boolean;
}

export interface Placement {
  owner: string;
  vf: VfId;
  decided_by: string;
  over?: Address;
  suited: number;
}

export interface Plan {
  id: number;
  parent: number;
  generation: number;
  intent: Intent;
  options: Options;
  steps: Step[];
  before?: { vf: VfId; settings: Settings }[];
  disturbs: { who: string; function: Address; what: string }[];
  left_out?: Reason[];
  placements?: Placement[];
  instead?: Way[];
}

export type Intent =
  | { intent: "apply"; spec: Spec }
  | { intent: "evacuate-host" }
  | { intent: "failover"; partition: string; vf: string; back: boolean }
  | { intent: "remove" | "start" | "stop" | "release"; partition: string }
  | { intent: "attach"; partition: string; vfs: VfRequest[] }
  | { intent: "detach"; partition: string; vf: string }
  | { intent: "adopt"; domain: string; partition?: string };

export interface Change {
  id: string;
  revision: number;
  intent: string;
  status: "running" | "cancelling" | "done" | "rolled-back" | "incomplete";
  steps: number;
  steps_done: number;
  begun_ms: number;
  ended_ms?: number;
  error?: string;
}

export interface Event {
  number: number;
  time_ms: number;
  event: string;
  plan?: number;
  /** The number of a step; its number of steps for `plan-started` is `steps`. */
  step?: number;
  steps?: number;
  done?: number;
  under_way?: number;
  what?: Step | string;
  note?: string;
  error?: string;
  undone?: boolean;
  generation?: number;
  pf?: Address;
  num_vfs?: number;
  service?: { state: string; what?: string };
  how?: string;
  from?: Address;
  to?: Address;
  drift?: Drift;
  partition?: string;
  vf?: string;
  why?: string;
  standby?: string;
  halt?: string;
  faulty?: Address[];
  after_ms?: number;
  address?: Address;
  owner?: string;
  peer?: string;
  agent?: string;
  count?: number;
  epoch?: number;
  orphan?: Orphan;
  left?: Drift[];
  stopped?: string[];
}

export interface Candidate {
  vf: VfId;
  address?: Address;
  reasons: Reason[];
}

export interface Compatible {
  request: string;
  candidates: Candidate[];
}

export interface AuditEntry {
  time_ms: number;
  partition: string;
  request: { op: string; vf?: string; change?: Settings };
  verdict: { verdict: "granted" | "refused" | "failed"; why?: string };
  number?: number;
  /** The user who asked in the partition's place; left out: the partition itself. */
  uid?: number;
}

export interface AuditDropped {
  partition: string;
  dropped: { changes?: number; refusals?: number; reads?: number };
}

export interface Statistics {
  rx_bytes: number;
  tx_bytes: number;
  rx_packets: number;
  tx_packets: number;
  rx_dropped: number;
  tx_dropped: number;
}

export interface Finding {
  check: string;
  function?: Address;
  verdict: "well" | "warning" | "missing";
  found: string;
  remedy?: string;
}

export interface ApiError {
  kind: string;
  message: string;
  reasons?: Reason[];
  ways?: Way[];
}

export interface WhoAmI {
  uid: number;
  role: "viewer" | "operator" | "administrator";
}
