// A plan before it is carried out: old → new, whom it disturbs, and how nobody would be.
import type { ComponentChildren } from "preact";
import type { Plan, Way } from "../api/types.ts";
import { diffOf, type Line } from "../model/diff.ts";
import { counted, DECIDED_BY, stepText, vfText, wayText } from "../model/words.ts";
import { ReasonLine } from "./problem.tsx";

const SIGN_WORD = { "+": "new", "~": "changed", "-": "gone" } as const;
const SIGN_CLASS = { "+": "new", "~": "changed", "-": "gone" } as const;

function Lines({ heading, lines }: { heading: string; lines: Line[] }) {
  if (!lines.length) return null;
  return (
    <>
      <h3>{heading}</h3>
      <ul class="plain diff">
        {lines.map((line, at) => (
          <li key={at} class={SIGN_CLASS[line.sign]}>
            <span class="sign" aria-hidden="true">{line.sign === "-" ? "−" : line.sign}</span>
            <span class="sr">{SIGN_WORD[line.sign]}: </span>
            <span>
              <b>{line.what}</b> {line.parts.join(", ")}
            </span>
          </li>
        ))}
      </ul>
    </>
  );
}

interface Props {
  plan: Plan;
  offer?: (way: Way) => ComponentChildren;
}

export function PlanView({ plan, offer }: Props) {
  if (!plan.steps.length) return <p class="quiet">Nothing to do: everything is as it is wanted.</p>;
  const diff = diffOf(plan);
  const placements = (plan.placements ?? []).filter((one) => one.decided_by !== "kept");
  return (
    <div class="plan">
      <Lines heading="Functions" lines={diff.functions} />
      <Lines heading="Partitions" lines={diff.partitions} />
      {plan.disturbs.length ? (
        <div class="disturbs">
          <h3>Disturbs</h3>
          <ul class="plain">
            {plan.disturbs.map((one, at) => (
              <li key={at}><b>{one.who}</b>, on {one.function}: {one.what}</li>
            ))}
          </ul>
          {plan.instead?.length ? (
            <>
              <p class="quiet">Nobody would be disturbed if</p>
              <ul class="plain ways">
                {plan.instead.map((way, at) => <li key={at}><span>{wayText(way)}</span>{offer?.(way)}</li>)}
              </ul>
            </>
          ) : null}
        </div>
      ) : (
        <p class="nobody"><span aria-hidden="true">✓ </span>Disturbs nobody</p>
      )}
      {plan.left_out?.length ? (
        <>
          <h3>Left out, and left alone</h3>
          <ul class="plain">{plan.left_out.map((reason, at) => <ReasonLine key={at} reason={reason} />)}</ul>
        </>
      ) : null}
      {placements.length ? (
        <details>
          <summary>Why these</summary>
          <ul class="plain">
            {placements.map((one) => (
              <li key={one.owner}>
                <b>{one.owner}</b>: {vfText(one.vf)}{one.over ? ` over ${one.over}` : ""}: {DECIDED_BY[one.decided_by] ?? one.decided_by}
              </li>
            ))}
          </ul>
        </details>
      ) : null}
      <details>
        <summary>{counted(plan.steps.length, "step")}</summary>
        <ol class="numbered">{plan.steps.map((step, at) => <li key={at}>{stepText(step)}</li>)}</ol>
      </details>
    </div>
  );
}
