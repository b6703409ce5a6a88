// Plans that are carried out, by step, as the events tell.
import type { Event } from "../api/types.ts";
import { stepText } from "./words.ts";

export type StepState = "waits" | "runs" | "done" | "failed" | "undone" | "stays";

export interface RunStep {
  text: string;
  state: StepState;
  note?: string;
}

export interface Run {
  plan: number;
  steps: RunStep[];
  state: "runs" | "rolls-back" | "done" | "rolled-back" | "incomplete";
  error?: string;
  began: number;
  ended?: number;
}

/** Runs that are remembered. */
const KEPT = 64;

export type Runs = ReadonlyMap<number, Run>;

/** The runs with these events in them. */
export function runsAfter(runs: Runs, events: Event[]): Runs {
  const all = new Map(runs);
  let touched = false;
  for (const event of events) {
    if (event.plan === undefined) continue;
    const run = after(all.get(event.plan), event, event.plan);
    if (!run) continue;
    touched = true;
    all.set(event.plan, run);
  }
  if (!touched) return runs;
  for (const plan of [...all.keys()].slice(0, Math.max(0, all.size - KEPT))) all.delete(plan);
  return all;
}

function after(known: Run | undefined, event: Event, plan: number): Run | null {
  const run: Run = known ? { ...known, steps: [...known.steps] } : { plan, steps: [], state: "runs", began: event.time_ms };
  const set = (state: StepState, note?: string): void => {
    const at = (event.step ?? 1) - 1;
    while (run.steps.length <= at) run.steps.push({ text: `step ${run.steps.length + 1}`, state: "waits" });
    const step = run.steps[at] as RunStep;
    const text = typeof event.what === "object" ? stepText(event.what) : step.text;
    run.steps[at] = { text, state, note: note ?? step.note };
  };
  switch (event.event) {
    case "plan-started":
      while (run.steps.length < (event.steps ?? 0)) run.steps.push({ text: `step ${run.steps.length + 1}`, state: "waits" });
      break;
    case "step-started":
      set("runs");
      break;
    case "step-done":
      set("done", event.note);
      break;
    case "step-failed":
      set("failed", event.error);
      Object.assign(run, { state: "rolls-back", error: event.error });
      break;
    case "step-undone":
      set(event.error ? "stays" : "undone", event.error);
      run.state = "rolls-back";
      break;
    case "plan-done":
      Object.assign(run, { state: "done", ended: event.time_ms });
      break;
    case "plan-failed":
      Object.assign(run, { state: event.undone ? "rolled-back" : "incomplete", error: event.error, ended: event.time_ms });
      break;
    default:
      return null;
  }
  return run;
}
