// The plan beside the choice: it follows each edit, is applied from here, and its progress is seen here.
import { useEffect, useState } from "preact/hooks";
import { api, Problem } from "../../api/client.ts";
import type { Plan, Relaxation, VfRequest, Way } from "../../api/types.ts";
import { applied, choice, discard, setCount, setRequest } from "../../model/choice.ts";
import { type Draft, isEmpty, NOTHING, partitionNamed, specOf } from "../../model/draft.ts";
import { partitionOf } from "../../model/machine.ts";
import { Signal, useSignal } from "../../model/signal.ts";
import { isAdministrator, mayChange, reload, reloadNow, say, store } from "../../model/store.ts";
import { PlanView } from "../../parts/planview.tsx";
import { ProblemBox } from "../../parts/problem.tsx";
import { Progress, runHeading } from "../../parts/progress.tsx";
import { optionFor } from "../ways.tsx";

/** The change that was begun here, while it is looked at. */
const begun = new Signal<number | null>(null);
/** What it makes so. */
let asked: Draft = NOTHING;

export function PlanPane() {
  const draft = useSignal(choice.draft);
  const options = useSignal(choice.options);
  const inventory = useSignal(store.inventory);
  const base = useSignal(store.spec);
  const runs = useSignal(store.runs);
  const number = useSignal(begun);
  const [plan, setPlan] = useState<Plan | null>(null);
  const [error, setError] = useState<unknown>(null);
  const [working, setWorking] = useState(false);
  const run = number === null ? undefined : runs.get(number);
  const ended = run?.ended;

  useEffect(() => {
    if (isEmpty(draft) || number !== null) {
      setPlan(null);
      setError(null);
      return;
    }
    let over = false;
    setWorking(true);
    const timer = setTimeout(() => {
      api.plan({ intent: "apply", spec: specOf(draft) }, options).then(
        (made) => { if (!over) { setPlan(made); setError(null); setWorking(false); } },
        (problem: unknown) => { if (!over) { setPlan(null); setError(problem); setWorking(false); } },
      );
    }, 120);
    return () => {
      over = true;
      clearTimeout(timer);
    };
  }, [draft, options, inventory?.generation, base, number]);

  useEffect(() => {
    if (!run || !ended) return;
    say(runHeading(run));
    if (run.state === "done") void reloadNow("inventory", "partitions", "spec").then(() => applied(asked));
  }, [number, ended]);

  async function apply(): Promise<void> {
    if (!plan) return;
    setWorking(true);
    try {
      const drafted = draft;
      const change = await api.begin(plan);
      asked = drafted;
      begun.value = Number(change.id.split("-")[1]);
      say("The plan is being carried out");
    } catch (problem) {
      setError(problem);
      // It went stale while it was looked at: what is made anew is looked at again.
      if (problem instanceof Problem && (problem.status === 412 || problem.error.reasons?.some((reason) => reason.rule === "plan-current"))) {
        say("The host or another choice has moved on: here is the plan as it is now");
        reload("inventory", "spec", "partitions");
      }
    } finally {
      setWorking(false);
      reload("changes");
    }
  }

  const offer = (way: Way) => optionFor(way, options, (allowed) => (choice.options.value = allowed)) ?? offerEdit(way);

  if (number !== null) {
    return (
      <>
        <div class="head"><h2>Plan {number}</h2></div>
        {run ? <Progress run={run} /> : <p class="quiet">It has begun …</p>}
        <div class="row">
          {run && !ended ? <button type="button" onClick={() => void cancel(number)}>Cancel and roll back</button> : null}
          <button type="button" class="primary" disabled={!!run && !ended} onClick={() => (begun.value = null)}>{run?.state === "done" ? "Choose on" : "Back to the choice"}</button>
        </div>
      </>
    );
  }
  if (isEmpty(draft)) {
    return (
      <>
        <div class="head"><h2>Plan</h2></div>
        <p class="quiet">Nothing is chosen that is not so already. The plan stands here as soon as there is an edit.</p>
      </>
    );
  }
  return (
    <>
      <div class="head">
        <h2>Plan</h2>
        {working ? <span class="quiet">working …</span> : null}
      </div>
      <div aria-live="polite" aria-busy={working}>
        {error ? <ProblemBox error={error} offer={offer} /> : null}
        {plan ? <PlanView plan={plan} offer={offer} /> : null}
      </div>
      <div class="row options">
        <Allow name="allow_disruption">Disturbing who runs is allowed</Allow>
        {isAdministrator() ? <Allow name="allow_management_nic">Changing adapters that the host uses is allowed</Allow> : null}
      </div>
      <div class="row apply">
        <button type="button" onClick={discard}>Discard</button>
        <button type="button" class={`primary${plan?.disturbs.length ? " warn" : ""}`} disabled={!plan?.steps.length || working || !mayChange()} onClick={() => void apply()}>
          {plan?.disturbs.length ? "Apply, and disturb" : "Apply"}
        </button>
      </div>
      {mayChange() ? null : <p class="quiet">You may look, and not change: that needs the group ioward-admin.</p>}
    </>
  );
}

function Allow({ name, children }: { name: "allow_disruption" | "allow_management_nic"; children: string }) {
  const options = useSignal(choice.options);
  return (
    <label class="check">
      <input type="checkbox" checked={!!options[name]} onChange={(event) => (choice.options.value = { ...options, [name]: event.currentTarget.checked })} />
      {children}
    </label>
  );
}

async function cancel(number: number): Promise<void> {
  const change = store.changes.value.find((one) => one.id.endsWith(`-${number}`));
  try {
    if (change) await api.cancel(change.id);
    say("It is being rolled back");
  } catch {
    say("It has ended already");
  }
  reload("changes");
}

/** A button that makes a way's edits, where all of them are edits of the draft. */
function offerEdit(way: Way) {
  if (!way.gives.every(canGive)) return null;
  return <button type="button" class="small" onClick={() => way.gives.forEach(give)}>Do so</button>;
}

function requestOf(give: Relaxation): VfRequest | undefined {
  const owner = give.request ?? "";
  const partition = partitionNamed(store.spec.value ?? { version: 1 }, choice.draft.value, partitionOf(owner));
  return partition?.vf?.find((vf) => `${partition.name}/${vf.name}` === owner);
}

function canGive(give: Relaxation): boolean {
  if (give.relaxation === "other-vf-count") return true;
  return (give.relaxation === "leave-out" || give.relaxation === "together") && !!requestOf(give);
}

function give(one: Relaxation): void {
  if (one.relaxation === "other-vf-count") return setCount(one.pf ?? "", one.vfs ?? 0);
  const request = requestOf(one);
  if (!request) return;
  choice.partition.value = partitionOf(one.request ?? "");
  const left = { ...request } as Record<string, unknown>;
  if (one.relaxation === "together") {
    const own = `${partitionOf(one.request ?? "")}/`;
    left["apart_from"] = (request.apart_from ?? []).filter((apart) => apart.vf !== one.with && own + apart.vf !== one.with);
  } else {
    delete left[one.key ?? ""];
    if (one.key === "pf") delete left["index"];
  }
  setRequest(left as unknown as VfRequest);
}
