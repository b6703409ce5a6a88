// The difference that a plan makes, by function and by partition, from its steps alone: as `ioward plan` says it.
import type { PartitionSpec, Plan, Settings, VfId } from "../api/types.ts";
import { cellKey } from "./machine.ts";
import { counted, settingPairs, vfText } from "./words.ts";

export type Sign = "+" | "~" | "-";

export interface Line {
  sign: Sign;
  what: string;
  /** Old → new, or what is set. */
  parts: string[];
  /** The cell that it is about. */
  cell?: string;
}

interface OfVf {
  vf: VfId;
  from?: string;
  to?: string;
  of?: string;
  settings: Settings;
  again: boolean;
}

interface OfPartition {
  made?: PartitionSpec;
  changed?: { from: PartitionSpec; to: PartitionSpec };
  gone?: boolean;
  runs?: boolean;
  channel?: boolean;
}

export function diffOf(plan: Plan): { functions: Line[]; partitions: Line[] } {
  const counts = new Map<string, [number, number]>();
  const released = new Set<string>();
  const vfs = new Map<string, OfVf>();
  const partitions = new Map<string, OfPartition>();
  const ofVf = (vf: VfId): OfVf => {
    const key = cellKey(vf.pf, vf.index);
    const known = vfs.get(key) ?? { vf, settings: {}, again: false };
    vfs.set(key, known);
    return known;
  };
  const ofPartition = (name: string): OfPartition => {
    const known = partitions.get(name) ?? {};
    partitions.set(name, known);
    return known;
  };
  for (const step of plan.steps) {
    const to = step.to as never as { vf: VfId } & Settings & PartitionSpec;
    const from = step.from as never as { vf: VfId } & PartitionSpec;
    switch (step.step) {
      case "set-vf-count": {
        const pf = step.pf ?? "";
        counts.set(pf, [counts.get(pf)?.[0] ?? Number(step.from), Number(step.to)]);
        if (step.to === 0) for (const one of vfs.values()) if (one.vf.pf === pf) Object.assign(one, { again: true, settings: {} });
        break;
      }
      case "release-adapter":
        released.add(step.pf ?? "");
        break;
      case "assign":
        Object.assign(ofVf(to.vf), { to: step.owner, settings: {} });
        break;
      case "unassign":
        ofVf(from.vf).from = step.owner;
        break;
      case "configure-vf":
        if (step.vf) Object.assign(ofVf(step.vf).settings, to);
        break;
      case "attach-vf":
      case "detach-vf":
      case "adopt-vf":
      case "release-vf":
        if (step.vf) ofVf(step.vf).of = step.owner;
        break;
      case "define-partition":
        if (step.from) ofPartition(to.name).changed = { from, to };
        else ofPartition(to.name).made = to;
        break;
      case "undefine-partition":
        ofPartition(from.name).gone = true;
        break;
      case "create-channel":
      case "destroy-channel":
        ofPartition(step.partition ?? "").channel = step.step === "create-channel";
        break;
      case "start-partition":
      case "stop-partition":
        ofPartition(step.partition ?? "").runs = step.step === "start-partition";
        break;
    }
  }
  const before = new Map((plan.before ?? []).map((one) => [cellKey(one.vf.pf, one.vf.index), one.settings]));
  const functions: Line[] = [];
  const pfs = new Set([...counts.keys(), ...[...vfs.values()].map((one) => one.vf.pf), ...released]);
  for (const pf of [...pfs].sort()) {
    const count = counts.get(pf);
    if (count) functions.push(countLine(pf, count));
    else if (released.has(pf)) functions.push({ sign: "~", what: pf, parts: ["left as it was found"] });
    const its = [...vfs].filter(([, one]) => one.vf.pf === pf).sort(([, a], [, b]) => a.vf.index - b.vf.index);
    for (const [key, one] of its) {
      const line = vfLine(one, before.get(key));
      if (line) functions.push({ ...line, cell: key });
    }
  }
  const lines = [...partitions].sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, one]) => partitionLine(name, one));
  return { functions, partitions: lines.filter((line) => line.parts.length > 0 || line.sign !== "~") };
}

function countLine(pf: string, [from, to]: [number, number]): Line {
  if (from === 0) return { sign: "+", what: pf, parts: [`${counted(to, "VF")} made`] };
  if (to === 0) return { sign: "-", what: pf, parts: [`${counted(from, "VF")} gone`] };
  return { sign: "~", what: pf, parts: [from === to ? `${counted(to, "VF")} made again` : `${from} → ${to} VFs`] };
}

function vfLine(one: OfVf, before: Settings | undefined): Line | null {
  const what = vfText(one.vf);
  const old = new Map(settingPairs(before));
  const settings = settingPairs(one.settings).map(([name, value]) => {
    const was = one.to ? undefined : old.get(name);
    return was === undefined ? `${name} ${value}` : `${name} ${was} → ${value}`;
  });
  if (one.from && one.to) return { sign: "~", what, parts: [one.from === one.to ? `${one.to}, made again` : `${one.from} → ${one.to}`, ...settings] };
  if (one.to) return { sign: "+", what, parts: [`nobody → ${one.to}`, ...settings] };
  if (one.from) return { sign: "-", what, parts: [`${one.from} → nobody`, "left as it was found"] };
  if (one.again || settings.length || one.of) return { sign: "~", what, parts: [...(one.of ? [one.of] : []), ...(one.again ? ["made again"] : []), ...settings] };
  return null;
}

function partitionLine(name: string, one: OfPartition): Line {
  const parts: string[] = [];
  if (one.made) {
    const { cpus, memory, libvirt, netns } = one.made;
    if (libvirt) parts.push(`domain ${libvirt}`);
    else if (netns) parts.push("network namespace");
    else parts.push(counted(cpus ?? 1, "CPU"), memory ?? "512MiB");
  }
  if (one.changed) parts.push(...changes(one.changed.from, one.changed.to));
  if (one.channel !== undefined) parts.push(one.channel ? "gets a channel" : "loses its channel");
  if (one.runs !== undefined) parts.push(one.runs ? "off → runs" : "runs → off");
  if (one.gone) parts.push("forgotten");
  return { sign: one.made ? "+" : one.gone ? "-" : "~", what: name, parts };
}

function changes(from: PartitionSpec, to: PartitionSpec): string[] {
  const said: string[] = [];
  for (const key of ["cpus", "memory", "numa_node", "autostart"] as const) {
    if (from[key] !== to[key]) said.push(`${key} ${String(from[key] ?? "none")} → ${String(to[key] ?? "none")}`);
  }
  const were = new Map((from.vf ?? []).map((vf) => [vf.name, vf]));
  const are = new Map((to.vf ?? []).map((vf) => [vf.name, vf]));
  for (const name of are.keys()) if (!were.has(name)) said.push(`+ ${name}`);
  for (const name of were.keys()) if (!are.has(name)) said.push(`− ${name}`);
  for (const [name, vf] of are) {
    const was = were.get(name);
    if (was && JSON.stringify(was.guest_may ?? {}) !== JSON.stringify(vf.guest_may ?? {})) said.push(`${name}: what its guest may change`);
  }
  return said;
}
