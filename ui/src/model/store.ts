// All that the page knows of the host, kept up to date by the events.
import { api, Problem } from "../api/client.ts";
import { follow, type StreamState } from "../api/stream.ts";
import type { AuditDropped, AuditEntry, Change, Drift, Event, Finding, Inventory, Orphan, Partition, Spec, WhoAmI } from "../api/types.ts";
import { type Runs, runsAfter } from "./runs.ts";
import { Signal } from "./signal.ts";
import { stuckAfter } from "./machine.ts";

/** Events that are kept in the page. */
const KEPT = 3000;

export const store = {
  inventory: new Signal<Inventory | null>(null),
  partitions: new Signal<Partition[]>([]),
  spec: new Signal<Spec | null>(null),
  drift: new Signal<Drift[]>([]),
  orphans: new Signal<Orphan[] | null>(null),
  changes: new Signal<Change[]>([]),
  audit: new Signal<(AuditEntry | AuditDropped)[] | null>(null),
  doctor: new Signal<Finding[] | "older" | null>(null),
  events: new Signal<Event[]>([]),
  runs: new Signal<Runs>(new Map()),
  stuck: new Signal<ReadonlySet<string>>(new Set()),
  who: new Signal<WhoAmI | null>(null),
  stream: new Signal<StreamState>({ state: "connecting" }),
  /** Why nothing can be shown; null: all is well. */
  trouble: new Signal<Problem | null>(null),
  /** What a screen reader is to say. */
  said: new Signal(""),
};

export function say(text: string): void {
  store.said.value = store.said.value === text ? `${text} ` : text;
}

/** Whether this user may change something. A daemon that does not tell is an older one, whose users are all root. */
export function mayChange(): boolean {
  return store.who.value?.role !== "viewer";
}

export function isAdministrator(): boolean {
  return !store.who.value || store.who.value.role === "administrator";
}

type Part = "inventory" | "partitions" | "spec" | "drift" | "orphans" | "changes" | "audit" | "doctor";

const load: Record<Part, () => Promise<void>> = {
  inventory: async () => void (store.inventory.value = await api.host()),
  partitions: async () => void (store.partitions.value = await api.partitions()),
  spec: async () => void (store.spec.value = await api.spec()),
  drift: async () => void (store.drift.value = await api.drift()),
  orphans: async () => void (store.orphans.value = await api.orphans()),
  changes: async () => void (store.changes.value = await api.changes()),
  audit: async () => void (store.audit.value = await api.audit()),
  doctor: async () => {
    try {
      store.doctor.value = (await api.doctor()).findings;
    } catch (error) {
      if (error instanceof Problem && error.isUnknownRoute) store.doctor.value = "older";
      else throw error;
    }
  },
};

const ALWAYS: Part[] = ["inventory", "partitions", "spec", "drift", "changes"];
/** Loaded once a view asks for them, and kept up to date from then on. */
const watched = new Set<Part>();
const due = new Set<Part>();
let timer: ReturnType<typeof setTimeout> | undefined;
let loading: Promise<void> | null = null;

/** Has these parts loaded soon; what is asked for several times meanwhile is loaded once. */
export function reload(...parts: Part[]): void {
  for (const part of parts) due.add(part);
  timer ??= setTimeout(() => void run(), 80);
}

/** Loads these parts now, and is done when they are there. */
export async function reloadNow(...parts: Part[]): Promise<void> {
  for (const part of parts) due.add(part);
  await loading;
  await run();
}

export function watch(...parts: Part[]): void {
  const fresh = parts.filter((part) => !watched.has(part));
  for (const part of parts) watched.add(part);
  if (fresh.length) reload(...fresh);
}

async function run(): Promise<void> {
  clearTimeout(timer);
  timer = undefined;
  if (loading) {
    await loading;
    if (!due.size) return;
  }
  const parts = [...due];
  due.clear();
  loading = (async () => {
    const results = await Promise.allSettled(parts.map((part) => load[part]()));
    const failed = results.flatMap((result) => (result.status === "rejected" ? [result.reason as unknown] : []));
    const problem = failed.find((error): error is Problem => error instanceof Problem && error.error.kind !== "busy");
    store.trouble.value = problem ?? null;
    for (const error of failed) if (!(error instanceof Problem)) console.error(error);
  })();
  await loading;
  loading = null;
}

/** What an event makes the page look at again. */
function affected(event: Event): Part[] {
  const kind = event.event;
  if (kind === "restarted" || kind === "missed") return [...ALWAYS, ...watched];
  if (kind === "plan-done" || kind === "plan-failed") return [...ALWAYS, "orphans"];
  if (kind === "plan-started") return ["changes"];
  if (kind === "step-done" || kind === "step-undone") return ["inventory", "partitions", "changes"];
  if (kind === "inventory-changed") return ["inventory", "drift", "orphans", "doctor"];
  if (kind.startsWith("drift-") || kind.startsWith("adapter-") || kind.startsWith("repair-")) return ["inventory", "drift", "partitions"];
  if (kind.startsWith("partition-") || kind.startsWith("vf-")) return ["inventory", "partitions", "drift", "spec"];
  if (kind.startsWith("channel-")) return ["partitions", "audit"];
  return ["inventory", "partitions", "drift"];
}

let pending: Event[] = [];

function take(): void {
  const events = pending;
  pending = [];
  // The numbers of an earlier run of the daemon count no more.
  const restarted = events.some((event) => event.event === "restarted");
  const before = restarted ? [] : store.events.value;
  const last = before.at(-1)?.number ?? 0;
  const fresh = events.filter((event) => event.event !== "restarted" && (restarted || event.number > last || event.event === "missed"));
  const all = [...before, ...fresh].slice(-KEPT);
  store.events.value = all;
  store.runs.value = runsAfter(restarted ? new Map() : store.runs.value, fresh);
  const stuck = stuckAfter(all);
  if ([...stuck].sort().join() !== [...store.stuck.value].sort().join()) store.stuck.value = stuck;
  const parts = new Set(events.flatMap(affected));
  reload(...[...parts].filter((part) => ALWAYS.includes(part) || watched.has(part)));
}

/** Begins to follow the host. */
export function start(): { retry(): void } {
  let was: StreamState["state"] = "connecting";
  void api.whoami().then((who) => (store.who.value = who), () => {});
  reload(...ALWAYS);
  return follow({
    events(events) {
      if (!pending.length) setTimeout(take, 60);
      pending.push(...events);
    },
    state(state) {
      if (state.state === "live" && was === "lost") {
        say("Connected again");
        reload(...ALWAYS, ...watched);
      }
      if (state.state === "lost" && was !== "lost") say("The connection is lost; it is being made again");
      // While it is tried again it is still lost.
      if (state.state !== "connecting") was = state.state;
      if (state.state !== "connecting" || was !== "lost") store.stream.value = state;
    },
  });
}
