// A plan that is carried out, step by step; a roll-back is seen as one.
import type { Run, StepState } from "../model/runs.ts";

const MARK: Record<StepState, string> = { waits: "·", runs: "▸", done: "✓", failed: "✕", undone: "↶", stays: "!" };
const WORD: Record<StepState, string> = {
  waits: "waits",
  runs: "under way",
  done: "done",
  failed: "failed",
  undone: "undone",
  stays: "could not be undone",
};

const HEADING: Record<Run["state"], string> = {
  runs: "Being carried out",
  "rolls-back": "A step failed: everything is being rolled back",
  done: "Done",
  "rolled-back": "Rolled back: everything is as it was before",
  incomplete: "Not everything could be rolled back",
};

export function runHeading(run: Run): string {
  return HEADING[run.state];
}

export function Progress({ run }: { run: Run }) {
  const done = run.steps.filter((step) => step.state === "done").length;
  const back = run.state === "rolls-back" || run.state === "rolled-back" || run.state === "incomplete";
  return (
    <div class={`progress ${run.state}`}>
      <p class="heading">
        <strong>{runHeading(run)}</strong>
        <span class="quiet number">{done} of {run.steps.length} steps</span>
      </p>
      <progress max={Math.max(1, run.steps.length)} value={done} aria-label={back ? "Steps that are not undone yet" : "Steps done"} />
      {run.error ? <p class="problem-text">{run.error}</p> : null}
      <ol class="steps" tabIndex={0} aria-label="Steps">
        {run.steps.map((step, at) => (
          <li key={at} class={step.state}>
            <span class="mark" aria-hidden="true">{MARK[step.state]}</span>
            <span>{step.text}{step.note ? <span class="quiet">: {step.note}</span> : null}</span>
            <span class="sr">{WORD[step.state]}</span>
          </li>
        ))}
      </ol>
    </div>
  );
}
