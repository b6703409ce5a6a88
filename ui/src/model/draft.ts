// What is being chosen: the Spec of what is held, and what the person has made different. Values are never changed in place.
import type { AdapterSpec, Inventory, PartitionSpec, Spec, VfId, VfRequest } from "../api/types.ts";
import { cellKey } from "./machine.ts";

/** Differences from what is held, by name and by address. */
export interface Draft {
  partitions: Record<string, PartitionSpec>;
  adapters: Record<string, AdapterSpec>;
}

export const NOTHING: Draft = { partitions: {}, adapters: {} };

export const isEmpty = (draft: Draft): boolean => !Object.keys(draft.partitions).length && !Object.keys(draft.adapters).length;

/** All partitions, with the edits in them. */
export function partitionsOf(base: Spec, draft: Draft): PartitionSpec[] {
  const held = base.partition ?? [];
  const made = Object.values(draft.partitions).filter((edited) => !held.some((one) => one.name === edited.name));
  return [...held.map((one) => draft.partitions[one.name] ?? one), ...made];
}

export function partitionNamed(base: Spec, draft: Draft, name: string): PartitionSpec | undefined {
  return partitionsOf(base, draft).find((partition) => partition.name === name);
}

/** Only what is different is asked for: what others do meanwhile is left as it is. */
export function specOf(draft: Draft): Spec {
  const spec: Spec = { version: 1 };
  const adapters = Object.values(draft.adapters);
  const partitions = Object.values(draft.partitions);
  if (adapters.length) spec.adapter = adapters;
  if (partitions.length) spec.partition = partitions;
  return spec;
}

/** All that would be held then: what is saved. */
export function wholeSpec(base: Spec, draft: Draft): Spec {
  const adapters = [...(base.adapter ?? []).map((one) => draft.adapters[one.pf] ?? one)];
  for (const one of Object.values(draft.adapters)) if (!adapters.some((held) => held.pf === one.pf)) adapters.push(one);
  const spec: Spec = { version: 1 };
  if (adapters.length) spec.adapter = adapters;
  const partitions = partitionsOf(base, draft);
  if (partitions.length) spec.partition = partitions;
  return spec;
}

const same = (one: unknown, other: unknown): boolean => canonical(one) === canonical(other);

/** A text that is the same for what means the same: what is empty or not so is as good as left out. */
function canonical(value: unknown): string {
  return JSON.stringify(value, (_, inner: unknown) =>
    inner && typeof inner === "object" && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).filter(([, one]) => !isNothing(one)).sort(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  );
}

const isNothing = (value: unknown): boolean =>
  value === undefined || value === null || value === false || (typeof value === "object" && Object.keys(value).length === 0);

/** What is left of a draft when what it was at some time has been carried out. */
export function without(draft: Draft, done: Draft): Draft {
  const left = <T>(now: Record<string, T>, then: Record<string, T>): Record<string, T> =>
    Object.fromEntries(Object.entries(now).filter(([key, one]) => one !== then[key]));
  return { partitions: left(draft.partitions, done.partitions), adapters: left(draft.adapters, done.adapters) };
}

/** Edits that are no different from what is held are dropped, as when somebody else has made the same. */
export function rebased(base: Spec, draft: Draft): Draft {
  const partitions = Object.entries(draft.partitions).filter(
    ([name, edited]) => !same(edited, base.partition?.find((held) => held.name === name)),
  );
  const adapters = Object.entries(draft.adapters).filter(([pf, edited]) => !same(edited, base.adapter?.find((held) => held.pf === pf)));
  return { partitions: Object.fromEntries(partitions), adapters: Object.fromEntries(adapters) };
}

export function withPartition(base: Spec, draft: Draft, partition: PartitionSpec): Draft {
  return rebased(base, { ...draft, partitions: { ...draft.partitions, [partition.name]: partition } });
}

export function withoutEdit(draft: Draft, name: string): Draft {
  const { [name]: _, ...partitions } = draft.partitions;
  return { ...draft, partitions };
}

export function withCount(base: Spec, draft: Draft, pf: string, vfs: number | null): Draft {
  const { [pf]: _, ...others } = draft.adapters;
  return rebased(base, { ...draft, adapters: vfs === null ? others : { ...others, [pf]: { pf, vfs } } });
}

export function withRequest(base: Spec, draft: Draft, name: string, request: VfRequest, instead?: string): Draft {
  const partition = partitionNamed(base, draft, name);
  if (!partition) return draft;
  const vfs = partition.vf ?? [];
  const place = vfs.findIndex((one) => one.name === (instead ?? request.name));
  const changed = place < 0 ? [...vfs, request] : vfs.map((one, at) => (at === place ? request : one));
  return withPartition(base, draft, { ...partition, vf: changed });
}

export function withoutRequest(base: Spec, draft: Draft, name: string, vf: string): Draft {
  const partition = partitionNamed(base, draft, name);
  if (!partition) return draft;
  return withPartition(base, draft, { ...partition, vf: (partition.vf ?? []).filter((one) => one.name !== vf) });
}

const PREFIX: Record<string, string> = { network: "net", nvme: "disk", display: "gpu", accelerator: "acc", other: "dev" };

/** A name that is free in the partition: net0, net1, … */
export function freeName(partition: PartitionSpec, kind: string): string {
  const prefix = PREFIX[kind] ?? "vf";
  for (let number = 0; ; number += 1) {
    const name = `${prefix}${number}`;
    if (!partition.vf?.some((vf) => vf.name === name)) return name;
  }
}

/** The VF goes to the partition: by the request of that name, or by a new one. */
export function put(base: Spec, draft: Draft, name: string, at: VfId, kind: string, request: string | null): { draft: Draft; request: string } {
  const partition = partitionNamed(base, draft, name);
  if (!partition) return { draft, request: request ?? "" };
  const given = partition.vf?.find((vf) => vf.name === request);
  const made: VfRequest = given ? { ...given, pf: at.pf, index: at.index } : { name: freeName(partition, kind), class: kind, pf: at.pf, index: at.index };
  return { draft: withRequest(base, draft, name, made), request: made.name };
}

/** Where each VF goes by the draft: owners by cell. Requests that name no VF are where they are held now, if they are. */
export function chosenOwners(base: Spec, draft: Draft, inventory: Inventory): Map<string, string> {
  const heldAt = new Map<string, string>();
  for (const pf of inventory.physical_functions) {
    for (const vf of pf.virtual_functions ?? []) if (vf.owner) heldAt.set(vf.owner, cellKey(pf.address, vf.index));
  }
  const owners = new Map<string, string>();
  for (const partition of partitionsOf(base, draft)) {
    for (const vf of partition.vf ?? []) {
      const owner = `${partition.name}/${vf.name}`;
      if (vf.pf !== undefined && vf.index !== undefined) {
        owners.set(cellKey(vf.pf, vf.index), owner);
        continue;
      }
      const key = heldAt.get(owner);
      if (key && (vf.pf === undefined || key.startsWith(`${vf.pf}/`))) owners.set(key, owner);
    }
  }
  return owners;
}
