// What happened: changes, events and what partitions asked for, filtered.
import { useMemo, useState } from "preact/hooks";
import type { AuditDropped, AuditEntry, Change, Event } from "../api/types.ts";
import { api } from "../api/client.ts";
import { useSignal } from "../model/signal.ts";
import { mayChange, store, watch } from "../model/store.ts";
import { counted, date, eventText, settingPairs, time } from "../model/words.ts";
import { ProblemBox } from "../parts/problem.tsx";
import { Progress } from "../parts/progress.tsx";
import { linkTo, route } from "../parts/route.ts";

/** Lines that are drawn at once. */
const SHOWN = 400;

interface Line {
  at: number;
  key: string;
  kind: string;
  tone: "" | "good" | "bad";
  text: string;
  partition: string | null;
  plan: number | null;
}

export function HistoryView() {
  watch("audit");
  const changes = useSignal(store.changes);
  const events = useSignal(store.events);
  const audit = useSignal(store.audit);
  const { query } = useSignal(route);
  const partitions = useSignal(store.partitions);
  const partition = query.get("partition") ?? "";
  const plan = Number(query.get("plan") ?? 0);
  const [text, setText] = useState("");
  const [what, setWhat] = useState<"all" | "events" | "audit">("all");
  const [steps, setSteps] = useState(false);
  const lines = useMemo(() => {
    const all: Line[] = [];
    if (what !== "audit") all.push(...events.filter((event) => steps || plan || !event.event.startsWith("step-")).map(ofEvent));
    if (what !== "events" && !plan) (audit ?? []).forEach((one, at) => { if ("verdict" in one) all.push(ofAudit(one, at)); });
    const sought = text.toLowerCase();
    return all
      .filter((line) => (!partition || line.partition === partition || mentions(line.text, partition)) && (!plan || line.plan === plan) && (!sought || line.text.toLowerCase().includes(sought)))
      .sort((a, b) => b.at - a.at);
  }, [events, audit, partition, plan, text, what, steps]);
  const set = (name: string, value: string): void => {
    const next = Object.fromEntries(query);
    delete next[name];
    location.hash = linkTo("history", value ? { ...next, [name]: value } : next);
  };
  const dropped = (audit ?? []).filter((one): one is AuditDropped => "dropped" in one);
  return (
    <>
      <div class="title">
        <h1>What happened</h1>
        <p class="quiet">{counted(changes.length, "change")} of this run of the daemon, {counted(events.length, "event")}</p>
      </div>
      <Changes changes={changes} chosen={plan} choose={(number) => set("plan", number === plan ? "" : String(number))} />
      <div class="filters" role="search" aria-label="Filter what happened">
        <label>Shown
          <select value={what} onChange={(event) => setWhat(event.currentTarget.value as typeof what)}>
            <option value="all">events and audit</option>
            <option value="events">events</option>
            <option value="audit">audit</option>
          </select>
        </label>
        <label>Partition
          <select value={partition} onChange={(event) => set("partition", event.currentTarget.value)}>
            <option value="">all</option>
            {[...new Set([...partitions.map((one) => one.name), ...(partition ? [partition] : [])])].map((name) => <option key={name}>{name}</option>)}
          </select>
        </label>
        <label>Text <input type="search" value={text} onInput={(event) => setText(event.currentTarget.value)} /></label>
        <label class="check"><input type="checkbox" checked={steps} onChange={(event) => setSteps(event.currentTarget.checked)} />Single steps</label>
        {plan ? <button type="button" class="small" onClick={() => set("plan", "")}>Plan {plan} only ✕</button> : null}
      </div>
      {lines.length ? null : <p class="quiet">Nothing of that has happened.</p>}
      <ol class="timeline" aria-label="What happened, latest first">
        {lines.slice(0, SHOWN).map((line) => (
          <li key={line.key} class={line.tone}>
            <time dateTime={new Date(line.at).toISOString()} title={date(line.at)}>{time(line.at)}</time>
            <span class="kind">{line.kind}</span>
            <span>{line.text}</span>
          </li>
        ))}
      </ol>
      {lines.length > SHOWN ? <p class="quiet">{lines.length - SHOWN} earlier ones are not shown; filter to find them.</p> : null}
      {dropped.length ? (
        <p class="quiet">Not kept any more: {dropped.map((one) => `${one.partition}: ${Object.entries(one.dropped).filter(([, count]) => count).map(([kind, count]) => `${count} ${kind}`).join(", ")}`).join("; ")}</p>
      ) : null}
    </>
  );
}

const mentions = (text: string, name: string): boolean => text.split(/[^A-Za-z0-9_-]+/).includes(name);

const BAD = new Set(["step-failed", "plan-failed", "adapter-stuck", "drift-found", "repair-failed", "channel-misused", "partition-ended", "partition-gone", "vf-taken-out"]);
const GOOD = new Set(["plan-done", "drift-repaired", "drift-gone", "adapter-answers", "host-restored"]);

function ofEvent(event: Event): Line {
  return {
    at: event.time_ms,
    key: `e${event.number}-${event.event}`,
    kind: event.event.split("-")[0] ?? event.event,
    tone: BAD.has(event.event) ? "bad" : GOOD.has(event.event) ? "good" : "",
    text: eventText(event),
    partition: event.partition ?? null,
    plan: event.plan ?? null,
  };
}

function ofAudit(entry: AuditEntry, at: number): Line {
  const { op, vf, change } = entry.request;
  const settings = settingPairs(change).map(([name, value]) => `${name}=${value}`).join(" ");
  const { verdict, why } = entry.verdict;
  return {
    at: entry.time_ms,
    key: `a${entry.number ?? at}-${entry.time_ms}`,
    kind: "audit",
    tone: verdict === "granted" ? "" : "bad",
    text: `${entry.uid === undefined ? entry.partition : `User ${entry.uid}, for ${entry.partition},`} asked: ${[op, vf, settings].filter(Boolean).join(" ")}; ${verdict}${why ? `: ${why}` : ""}`,
    partition: entry.partition,
    plan: null,
  };
}

const STATUS: Record<Change["status"], { text: string; tone: string }> = {
  running: { text: "runs", tone: "" },
  cancelling: { text: "is rolled back", tone: "bad" },
  done: { text: "done", tone: "good" },
  "rolled-back": { text: "rolled back", tone: "bad" },
  incomplete: { text: "not all undone", tone: "bad" },
};

function Changes({ changes, chosen, choose }: { changes: Change[]; chosen: number; choose: (number: number) => void }) {
  const runs = useSignal(store.runs);
  const [error, setError] = useState<unknown>(null);
  if (!changes.length) return <p class="quiet">No change in this run of the daemon.</p>;
  const run = runs.get(chosen);
  return (
    <section aria-label="Changes">
      {error ? <ProblemBox error={error} /> : null}
      <div class="scroll" tabIndex={0} role="group" aria-label="Table of changes">
      <table class="changes">
        <thead><tr><th scope="col">Plan</th><th scope="col">What</th><th scope="col">Status</th><th scope="col">Steps</th><th scope="col">Began</th><th scope="col">Took</th><th scope="col">Why it failed</th><th scope="col"><span class="sr">Actions</span></th></tr></thead>
        <tbody>
          {[...changes].reverse().slice(0, 12).map((change) => {
            const number = Number(change.id.split("-")[1]);
            const status = STATUS[change.status];
            return (
              <tr key={change.id} class={number === chosen ? "chosen" : ""}>
                <th scope="row"><button type="button" class="link" aria-pressed={number === chosen} onClick={() => choose(number)}>Plan {number}</button></th>
                <td>{change.intent}</td>
                <td><span class={`badge ${status.tone}`}>{status.text}</span></td>
                <td class="number">{change.steps_done} of {change.steps}</td>
                <td>{time(change.begun_ms)}</td>
                <td class="number">{change.ended_ms ? `${((change.ended_ms - change.begun_ms) / 1000).toFixed(1)} s` : ""}</td>
                <td>{change.error ?? ""}</td>
                <td>{change.status === "running" && mayChange() ? <button type="button" class="small" onClick={() => void api.cancel(change.id).then(() => setError(null), setError)}>Cancel</button> : null}</td>
              </tr>
            );
          })}
        </tbody>
      </table>
      </div>
      {run ? <Progress run={run} /> : null}
    </section>
  );
}
