// The picture of the machine, from the inventory: nodes, adapters, ports, and a cell for each VF there is or could be.
import type { Drift, Inventory, Partition, PhysicalFunction, VfId, VirtualFunction } from "../api/types.ts";

/** What a cell is drawn as. `possible`: the VF is not there, and could be made. */
export type CellState = "possible" | "free" | "assigned" | "running" | "drifted" | "stuck" | "foreign";

export const STATE_WORDS: Record<CellState, string> = {
  possible: "can be made",
  free: "free",
  assigned: "assigned, off",
  running: "assigned, runs",
  drifted: "drifted",
  stuck: "stuck",
  foreign: "in other hands",
};

export interface Cell {
  key: string;
  id: VfId;
  state: CellState;
  /** `web/net0`, or null. */
  owner: string | null;
  partition: string | null;
  vf: VirtualFunction | null;
}

export interface Port {
  pf: PhysicalFunction;
  cells: Cell[];
  stuck: boolean;
}

export interface Adapter {
  key: string;
  name: string;
  ports: Port[];
}

export interface Node {
  /** null: the firmware names none. */
  id: number | null;
  adapters: Adapter[];
}

export const cellKey = (pf: string, index: number): string => `${pf}/${index}`;

/** The partition of an owner as `web/net0`. */
export const partitionOf = (owner: string): string => owner.split("/", 1)[0] ?? owner;

export interface Facts {
  inventory: Inventory;
  partitions: Partition[];
  drift: Drift[];
  stuck: ReadonlySet<string>;
}

export function picture({ inventory, partitions, drift, stuck }: Facts): Node[] {
  const running = new Set(partitions.filter((partition) => partition.running).map((partition) => partition.name));
  const drifted = driftedVfs(drift, partitions);
  const nodes = new Map<number | null, Map<string, Adapter>>();
  for (const node of inventory.numa_nodes ?? []) nodes.set(node.id, new Map());
  for (const pf of inventory.physical_functions) {
    const node = pf.numa_node ?? null;
    const adapters = nodes.get(node) ?? new Map<string, Adapter>();
    nodes.set(node, adapters);
    const key = adapterKey(pf);
    const adapter = adapters.get(key) ?? { key, name: pf.name, ports: [] };
    adapters.set(key, adapter);
    adapter.ports.push(port(pf, running, drifted, stuck.has(pf.address)));
  }
  return [...nodes].map(([id, adapters]) => ({ id, adapters: [...adapters.values()] })).filter((node) => node.id !== null || node.adapters.length);
}

/** Ports of one adapter have one serial number, or are functions of one device. */
function adapterKey(pf: PhysicalFunction): string {
  return pf.address.replace(/\.[0-7]$/, "");
}

function driftedVfs(drift: Drift[], partitions: Partition[]): Set<string> {
  const keys = new Set<string>();
  const owners = new Map<string, VfId>(partitions.flatMap((partition) => partition.vfs.map((vf) => [`${partition.name}/${vf.name}`, vf] as const)));
  for (const one of drift) {
    if (one.vf) keys.add(cellKey(one.vf.pf, one.vf.index));
    for (const owner of one.breaks ?? []) {
      const vf = owners.get(owner);
      if (vf) keys.add(cellKey(vf.pf, vf.index));
    }
  }
  return keys;
}

function port(pf: PhysicalFunction, running: Set<string>, drifted: Set<string>, stuck: boolean): Port {
  const vfs = new Map((pf.virtual_functions ?? []).map((vf) => [vf.index, vf]));
  const count = Math.max(pf.sriov?.total_vfs ?? 0, ...[...vfs.keys()].map((index) => index + 1), 0);
  const cells = Array.from({ length: count }, (_, index): Cell => {
    const vf = vfs.get(index) ?? null;
    const owner = vf?.owner ?? null;
    const partition = owner ? partitionOf(owner) : null;
    const key = cellKey(pf.address, index);
    return { key, id: { pf: pf.address, index }, state: stateOf(vf, partition, running, drifted.has(key), stuck), owner, partition, vf };
  });
  return { pf, cells, stuck };
}

function stateOf(vf: VirtualFunction | null, partition: string | null, running: Set<string>, drifted: boolean, stuck: boolean): CellState {
  if (stuck) return "stuck";
  if (drifted) return "drifted";
  if (!vf) return "possible";
  if (partition) return running.has(partition) ? "running" : "assigned";
  const held = vf.holder && vf.holder.kind !== "nobody";
  return held || vf.in_use_by_host?.length ? "foreign" : "free";
}

export const COLOURS = 8;

/** A colour for each partition. It stays the same when others come and go, as far as there are colours. */
export function colours(names: string[]): Map<string, number> {
  const taken = new Set<number>();
  const colour = new Map<string, number>();
  for (const name of [...new Set(names)].sort()) {
    let hash = 7;
    for (const letter of name) hash = (hash * 31 + letter.charCodeAt(0)) >>> 0;
    let slot = hash % COLOURS;
    for (let tries = 0; tries < COLOURS && taken.has(slot); tries += 1) slot = (slot + 1) % COLOURS;
    taken.add(slot);
    colour.set(name, slot);
  }
  return colour;
}

/** Adapters that are stuck, by the events about them. */
export function stuckAfter(events: { event: string; pf?: string }[]): Set<string> {
  const stuck = new Set<string>();
  for (const event of events) {
    if (!event.pf) continue;
    if (event.event === "adapter-stuck") stuck.add(event.pf);
    if (event.event === "adapter-answers") stuck.delete(event.pf);
  }
  return stuck;
}
