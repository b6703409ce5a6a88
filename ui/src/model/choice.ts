// The choice that is being made. It stays while other views are looked at.
import type { Options, PartitionSpec, VfRequest } from "../api/types.ts";
import { type Draft, isEmpty, NOTHING, partitionNamed, partitionsOf, put, rebased, withCount, without, withoutEdit, withoutRequest, withPartition, withRequest } from "./draft.ts";
import type { Cell } from "./machine.ts";
import { Signal } from "./signal.ts";
import { say, store } from "./store.ts";

const UNDOS = 100;

export const choice = {
  draft: new Signal<Draft>(NOTHING),
  /** The partition that is chosen for. */
  partition: new Signal<string | null>(null),
  /** The request that goes where a cell is picked; null: a picked cell is one more VF. */
  request: new Signal<string | null>(null),
  options: new Signal<Options>({}),
  undo: new Signal<Draft[]>([]),
};

const base = () => store.spec.value ?? { version: 1 };

function set(draft: Draft): void {
  choice.undo.value = [...choice.undo.value, choice.draft.value].slice(-UNDOS);
  choice.draft.value = draft;
  // What was allowed was allowed for another plan.
  if (isEmpty(draft)) choice.options.value = {};
}

export function undo(): void {
  const before = choice.undo.value.at(-1);
  if (!before) return;
  choice.undo.value = choice.undo.value.slice(0, -1);
  choice.draft.value = rebased(base(), before);
  if (choice.partition.value && !currentPartition()) pickPartition(null);
  say("Undone");
}

export function discard(): void {
  set(NOTHING);
  if (!currentPartition()) pickPartition(null);
}

/** What was applied is held now, and no edit any more. */
export function applied(done: Draft): void {
  choice.draft.value = rebased(base(), without(choice.draft.value, done));
  choice.options.value = {};
  if (isEmpty(choice.draft.value)) choice.undo.value = [];
}

export function currentPartition(): PartitionSpec | undefined {
  return choice.partition.value === null ? undefined : partitionNamed(base(), choice.draft.value, choice.partition.value);
}

export function pickPartition(name: string | null): void {
  choice.partition.value = name;
  choice.request.value = null;
}

export function setPartition(partition: PartitionSpec): void {
  set(withPartition(base(), choice.draft.value, partition));
}

/** A partition that is not there yet is forgotten; of another, its edits are. */
export function dropEdits(name: string): void {
  set(withoutEdit(choice.draft.value, name));
  if (!currentPartition()) pickPartition(null);
}

export function setRequest(request: VfRequest, instead?: string): void {
  if (choice.partition.value === null) return;
  set(withRequest(base(), choice.draft.value, choice.partition.value, request, instead));
}

export function takeRequest(partition: string, name: string): void {
  set(withoutRequest(base(), choice.draft.value, partition, name));
  if (choice.request.value === name) choice.request.value = null;
  say(`${partition}/${name} is taken out of the choice`);
}

/** Puts the VF of a cell: for the request that is picked, or for one more. */
export function putAt(cell: Cell, kind: string, request: string | null = choice.request.value): void {
  const name = choice.partition.value;
  if (name === null) return say("Pick a partition first");
  const made = put(base(), choice.draft.value, name, cell.id, kind, request);
  set(made.draft);
  choice.request.value = null;
  say(`${name}/${made.request} is VF ${cell.id.index} of ${cell.id.pf}`);
}

export function setCount(pf: string, vfs: number | null): void {
  set(withCount(base(), choice.draft.value, pf, vfs));
}

/** A Spec that was loaded becomes the choice. */
export function load(spec: { adapter?: { pf: string }[]; partition?: PartitionSpec[] }): void {
  const draft: Draft = {
    partitions: Object.fromEntries((spec.partition ?? []).map((one) => [one.name, one])),
    adapters: Object.fromEntries((spec.adapter ?? []).map((one) => [one.pf, one])),
  };
  set(rebased(base(), draft));
  if (!currentPartition()) pickPartition(partitionsOf(base(), choice.draft.value)[0]?.name ?? null);
}
