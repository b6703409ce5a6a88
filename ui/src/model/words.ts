// Values in words, as `ioward` says them.
import type { AssignedVf, Drift, Event, Holder, HostUse, Link, Process, Reason, Relaxation, Settings, Step, VfId, Vlan, Way } from "../api/types.ts";

export function counted(count: number, noun: string, plural = `${noun}s`): string {
  return `${count} ${count === 1 ? noun : plural}`;
}

export function vfText(vf: VfId): string {
  return `VF ${vf.index} of ${vf.pf}`;
}

/** Mbit/s, as a person says it. */
export function speed(mbps: number | null | undefined): string {
  if (!mbps || mbps < 0) return "no link";
  return mbps >= 1000 ? `${+(mbps / 1000).toFixed(1)} Gbit/s` : `${mbps} Mbit/s`;
}

export function pcieLink(link: Link | null | undefined): string {
  if (!link) return "no PCIe link";
  const now = `${+(link.speed_mts / 1000).toFixed(1)} GT/s ×${link.width}`;
  const slower = link.speed_mts < link.max_speed_mts || link.width < link.max_width;
  return slower ? `${now} (can do ${+(link.max_speed_mts / 1000).toFixed(1)} ×${link.max_width})` : now;
}

export function bytes(count: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (count >= 1000 && unit < units.length - 1) {
    count /= 1000;
    unit += 1;
  }
  return `${unit === 0 ? Math.round(count) : count.toFixed(1)} ${units[unit]}`;
}

export function vlanText(vlan: number | Vlan): string {
  if (typeof vlan === "number") return String(vlan);
  const parts = [String(vlan.id)];
  if (vlan.protocol) parts.push(vlan.protocol);
  if (vlan.priority) parts.push(`priority ${vlan.priority}`);
  return parts.join(", ");
}

/** Settings as pairs of a name and a value; those that are not set are left out. */
export function settingPairs(settings: Settings | undefined): [string, string][] {
  const pairs: [string, string][] = [];
  for (const [name, value] of Object.entries(settings ?? {})) {
    if (value === null || value === undefined) continue;
    if (name === "vlan") pairs.push([name, vlanText(value as number | Vlan)]);
    else if (typeof value === "boolean") pairs.push([name, value ? "on" : "off"]);
    else pairs.push([name, typeof value === "object" ? JSON.stringify(value) : String(value)]);
  }
  return pairs;
}

export function hostUse(use: HostUse): string {
  switch (use.use) {
    case "address":
      return `${use.netdev} has address ${use.address}`;
    case "default-route":
      return `the default route leaves through ${use.netdev}`;
    case "stacked":
      return `${use.netdev} belongs to ${use.upper}`;
    case "block-device":
      return `${use.device} is used by ${use.used_by}`;
    default:
      return use.use;
  }
}

function processText({ pid, command, runs }: Process): string {
  switch (runs.is) {
    case "libvirt-domain":
      return `libvirt domain ${runs.name} (qemu pid ${pid})`;
    case "proxmox-vm":
      return `Proxmox VM ${runs.id}${runs.name ? `, ${runs.name}` : ""} (qemu pid ${pid})`;
    case "qemu":
      return runs.name ? `QEMU machine ${runs.name} (pid ${pid})` : `a QEMU machine (pid ${pid})`;
    case "pod":
      return `Kubernetes pod ${runs.uid} (${runs.machine ?? command}, pid ${pid})`;
    case "container":
      return `container ${runs.name} (${command}, pid ${pid})`;
    default:
      return `${command} (pid ${pid})`;
  }
}

export function holderText(holder: Holder): string {
  if (holder.kind === "process" && holder.runs) return processText(holder as Process);
  if (holder.kind === "network-namespace") {
    const name = holder.name ? `network namespace ${holder.name}` : "another network namespace";
    const netdevs = (holder.netdevs ?? []).map((netdev) => `, as ${netdev}`).join("");
    return name + netdevs + (holder.process ? `, where ${processText(holder.process)} is` : "");
  }
  return "nobody";
}

/** A reason as a sentence; what to do is said apart. */
export function reasonText(reason: Reason): string {
  const who = reason.request ? `${reason.request}${reason.and_more ? ` and ${reason.and_more} more` : ""}: ` : "";
  const where = reason.function ? `${reason.function}: ` : "";
  return `${who}${where}needed is ${reason.required}; found is ${reason.found}.`;
}

export function relaxationText(give: Relaxation): string {
  switch (give.relaxation) {
    case "allow-disruption":
      return "disturbing partitions that run is allowed";
    case "allow-management-nic":
      return "changing an adapter that the host uses is allowed";
    case "leave-out":
      return `${give.request} does without ${give.key}`;
    case "other-numa-node":
      return `${give.request} may be on NUMA node ${give.node}`;
    case "together":
      return `${give.request} need not be apart from ${give.with}`;
    case "give-up-vf":
      return `${give.partition} gives up one VF of ${give.pf}`;
    case "other-vf-count":
      return `${give.pf} gives ${counted(give.vfs ?? 0, "VF")}`;
    default:
      return give.relaxation;
  }
}

export function wayText(way: Way): string {
  return way.gives.map(relaxationText).join(", and ");
}

export const DECIDED_BY: Record<string, string> = {
  kept: "it has it already",
  pinned: "it was chosen by hand",
  "only-one": "no other suits",
  disruption: "nothing that runs is disturbed",
  "host-use": "the host does not use it",
  redundancy: "it is apart from what it would rather be apart from",
  "numa-node": "it is nearer to the partition's NUMA node",
  "vf-count": "its number of VFs need not change",
  "free-capacity": "it leaves the faster one free",
  address: "it has the lower address",
  together: "others need what would be better for it",
};

const joined = (settings: unknown): string =>
  settingPairs(settings as Settings).map(([name, value]) => `${name}=${value}`).join(" ");

/** A step, as `ioward plan --steps` says it. */
export function stepText(step: Step): string {
  const vf = step.vf ? vfText(step.vf) : "";
  const to = step.to as Record<string, unknown> | string | number | boolean | null | undefined;
  const inTo = (to ?? {}) as { vf?: VfId; name?: string; original?: { num_vfs: number } };
  const inFrom = (step.from ?? {}) as { vf?: VfId; name?: string };
  switch (step.step) {
    case "hold-adapter":
      return `note how ${step.pf} was found: ${counted(inTo.original?.num_vfs ?? 0, "VF")}`;
    case "release-adapter":
      return `let go of ${step.pf}`;
    case "set-autoprobe":
      return `turn driver autoprobe ${to ? "on" : "off"} for ${step.pf}`;
    case "set-vf-count":
      return `set the number of VFs of ${step.pf} from ${String(step.from)} to ${String(to)}`;
    case "assign":
      return `assign ${inTo.vf ? vfText(inTo.vf) : "a VF"} to ${step.owner}`;
    case "unassign":
      return `take ${inFrom.vf ? vfText(inFrom.vf) : "a VF"} from ${step.owner}`;
    case "configure-vf":
      return `configure ${vf}: ${joined(to)}`;
    case "bind-driver":
      return to ? `bind ${vf} to ${String(to)}` : `leave ${vf} without a driver`;
    case "reset-vf":
      return `reset ${vf}`;
    case "define-partition":
      return `${step.from ? "redefine" : "create"} partition ${inTo.name}`;
    case "undefine-partition":
      return `remove partition ${inFrom.name}`;
    case "create-channel":
      return `create the channel of ${step.partition}`;
    case "destroy-channel":
      return `destroy the channel of ${step.partition}`;
    case "attach-vf":
      return `attach ${vf} as ${step.owner}`;
    case "detach-vf":
      return `detach ${step.owner} (${vf})`;
    case "adopt-vf":
      return `take over ${vf} as ${step.owner}`;
    case "release-vf":
      return `forget ${step.owner} (${vf}), which its domain keeps`;
    case "take-out-of-service":
      return `take ${step.pf} out of service`;
    case "return-to-service":
      return `return ${step.pf} to service`;
    case "attach-standby":
      return `give ${step.owner} a standby on a bridge`;
    case "detach-standby":
      return `take the standby of ${step.owner} away`;
    case "switch-over":
      return to ? `have the standby of ${step.owner} active` : `have ${step.owner} active again`;
    case "start-partition":
      return `start partition ${step.partition}`;
    case "stop-partition":
      return `stop partition ${step.partition}${step.force ? " at once" : ""}`;
    default:
      return step.step;
  }
}

export function driftText(drift: Drift): string {
  const vf = drift.vf ? vfText(drift.vf) : "";
  const found = drift.found;
  switch (drift.drift) {
    case "adapter-missing":
      return found ? `Another adapter is at ${drift.pf}` : `${drift.pf} is not there`;
    case "vf-count":
      return `${drift.pf} has ${counted(Number(found), "VF")} and is to have ${String(drift.noted)}`;
    case "driver":
      return `${vf} has ${found ? `driver ${String(found)}` : "no driver"} and is to have ${String(drift.noted ?? "vfio-pci")}`;
    case "settings":
      return `${vf} has ${joined(found) || "other settings"} and is to have ${joined(drift.noted)}`;
    case "partition-missing":
      return `The hypervisor does not know ${drift.partition}`;
    case "channel-missing":
      return `The channel of ${drift.partition} is gone`;
    case "not-attached":
      return `${vf} is not attached to its partition`;
    case "still-attached":
      return `${vf} is in its machine, and its standby is active`;
    case "standby-missing":
      return `${drift.owner} has lost its standby`;
    default:
      return drift.drift;
  }
}

/** What a VF falls back on, or is the standby of, in words; null: neither. */
export function standbyText(vf: AssignedVf): string | null {
  const standby = vf.standby_bridge ? `bridge ${vf.standby_bridge}` : vf.failover?.partner;
  if (vf.failed_over) {
    const { why } = vf.failed_over;
    const words = why === "asked" ? "asked for" : why === "guest" ? "asked for by the partition" : why.fault.what;
    return `failed over to ${standby}: ${words}`;
  }
  if (vf.failover?.role === "standby") return `standby of ${vf.failover.partner}${vf.failover.active ? ", and active" : ""}`;
  return standby ? `falls back on ${standby}` : null;
}

/** An event in words. */
export function eventText(event: Event): string {
  const plan = `Plan ${event.plan}`;
  switch (event.event) {
    case "plan-started":
      return `${plan} begins: ${counted(event.steps ?? 0, "step")}`;
    case "step-started":
      return `${plan}, step ${event.step}: ${typeof event.what === "object" ? stepText(event.what) : ""}`;
    case "step-done":
      return `${plan}, step ${event.step} done${event.note ? `; ${event.note}` : ""}`;
    case "step-failed":
      return `${plan}, step ${event.step} failed: ${event.error}`;
    case "step-undone":
      return event.error
        ? `${plan}, step ${event.step} could not be undone: ${event.error}`
        : `${plan}, step ${event.step} undone`;
    case "plan-done":
      return `${plan} done`;
    case "plan-failed":
      return event.undone
        ? `${plan} failed, everything is as before: ${event.error}`
        : `${plan} failed and could not be undone: ${event.error}`;
    case "plan-interrupted":
      return `${plan} was cut off by the end of the daemon: ${event.done} of ${counted(event.steps ?? 0, "step")} done`;
    case "inventory-changed":
      return `The host changed (generation ${event.generation})`;
    case "adapter-stuck":
      return `Adapter ${event.pf} is stuck: ${String(event.what)}`;
    case "adapter-answers":
      return event.num_vfs === undefined
        ? `Adapter ${event.pf} was stuck, and is gone`
        : `Adapter ${event.pf} answers again, with ${counted(event.num_vfs, "VF")}`;
    case "adapter-service":
      return event.service?.state === "serving"
        ? `Adapter ${event.pf} serves again`
        : `Adapter ${event.pf} is ${event.service?.state}: ${event.service?.what ?? ""}`;
    case "adapter-attempted":
      return event.error
        ? `Adapter ${event.pf} is frozen and could not be recovered: ${event.error}`
        : `Adapter ${event.pf} is frozen; it was ${event.how === "reset" ? "reset" : "given its driver anew"}`;
    case "adapter-moved":
      return `Adapter ${event.from} is at ${event.to} now`;
    case "adapter-set-aside":
      return `Adapter ${event.from} is missing; it is noted as ${event.to} until it comes back`;
    case "host-booted":
      return "The host has booted; it is made as it is to be";
    case "host-restored":
      return `The host is restored after its boot${event.left?.length ? `, but for ${counted(event.left.length, "difference")}` : ""}`;
    case "partition-started":
      return `${event.partition} started with the host`;
    case "drift-found":
      return `Drift: ${event.drift ? driftText(event.drift) : ""}`;
    case "drift-repaired":
      return `Drift repaired: ${event.drift ? driftText(event.drift) : ""}`;
    case "drift-gone":
      return `Drift is gone: ${event.drift ? driftText(event.drift) : ""}`;
    case "repair-failed":
      return `A repair failed: ${typeof event.what === "object" ? stepText(event.what) : ""}: ${event.error}`;
    case "orphan-reaped":
      return `${event.orphan ? vfText(event.orphan) : "A VF"} belonged to nobody; it has no driver now`;
    case "partition-ended":
      return `${event.partition} ended: ${event.why}`;
    case "partition-started-elsewhere":
      return `${event.partition} was started, and not by ioward`;
    case "partition-gone":
      return `${event.partition} is gone: ${event.why}`;
    case "partition-halted":
      return `${event.partition} has halted: ${event.halt}${event.faulty?.length ? `, by an error of ${event.faulty.join(", ")}` : ""}`;
    case "partition-reset":
      return event.error
        ? `${event.partition} has halted, and could not be reset: ${event.error}`
        : `${event.partition} had halted, and was reset after ${Math.round((event.after_ms ?? 0) / 1000)} s`;
    case "partition-left-halted":
      return `${event.partition} has halted again and again, and is reset no more`;
    case "partition-goes-on":
      return `${event.partition} executes again`;
    case "vf-locked-out":
      return `The VF at ${event.address}${event.owner ? `, which ${event.owner} is,` : ""} is locked out: ${String(event.what)}`;
    case "failed-over":
      return `${event.partition}/${event.vf} has failed over to ${event.standby}: ${event.why}`;
    case "failed-back":
      return `${event.partition}/${event.vf} is active again`;
    case "partition-leaves":
      return `${event.partition} is being moved to ${event.peer}`;
    case "partition-left":
      return `${event.partition} has been moved to ${event.peer}, and is not this host's any more`;
    case "partition-stays":
      return `${event.partition} stays here, and is not moved to ${event.peer}: ${event.why}`;
    case "partition-came":
      return `${event.partition} has come from ${event.peer}, and runs here`;
    case "vf-taken-out":
      return `${event.partition}/${event.vf} was taken out, and not by ioward: ${event.why}`;
    case "channel-opened":
      return `Channel of ${event.partition}: ${event.agent} said hello`;
    case "channel-misused":
      return `Channel of ${event.partition} misused: ${String(event.what)}`;
    case "channel-events-left-out":
      return `Channel of ${event.partition}: ${event.count} more events were left out`;
    case "missed":
      return `${event.count} events were missed`;
    case "restarted":
      return "The daemon has been started anew";
    default:
      return event.event;
  }
}

export function time(ms: number): string {
  return new Date(ms).toLocaleTimeString("en-GB");
}

export function date(ms: number): string {
  return new Date(ms).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "medium" });
}
