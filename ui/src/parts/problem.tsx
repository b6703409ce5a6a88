// An answer that is no success, as sentences with what to do.
import type { ComponentChildren } from "preact";
import { Problem } from "../api/client.ts";
import type { Reason, Way } from "../api/types.ts";
import { reasonText, wayText } from "../model/words.ts";

const TITLES: Record<string, string> = {
  invalid: "This makes no sense",
  refused: "Refused",
  busy: "Another change is being carried out",
  "not-found": "Not there",
  forbidden: "Not yours to do",
  precondition: "It has changed since",
  failed: "It did not work",
};

export function ReasonLine({ reason }: { reason: Reason }) {
  return (
    <li>
      <span>{reasonText(reason)}</span>
      {reason.remedy ? <span class="remedy">To do: {reason.remedy}.</span> : null}
    </li>
  );
}

interface Props {
  error: unknown;
  /** What is offered for a way, if anything. */
  offer?: (way: Way) => ComponentChildren;
}

export function ProblemBox({ error, offer }: Props) {
  if (!(error instanceof Problem)) return <div class="problem" role="alert">{error instanceof Error ? error.message : String(error)}</div>;
  const { kind, message, reasons = [], ways = [] } = error.error;
  const title = error.status === 0 ? "No answer" : error.status === 401 ? "This session has ended" : (TITLES[kind] ?? "It did not work");
  return (
    <div class="problem" role="alert">
      <strong>{title}</strong>
      {reasons.length === 0 ? <p>{message}</p> : null}
      {reasons.length ? <ul class="plain">{reasons.map((reason, at) => <ReasonLine key={at} reason={reason} />)}</ul> : null}
      {error.status === 401 ? <p>Run <code>ioward ui</code> again and open the address that it prints.</p> : null}
      {ways.length ? (
        <>
          <p class="quiet">It would be possible if</p>
          <ul class="plain ways">
            {ways.map((way, at) => (
              <li key={at}>
                <span>{wayText(way)}</span>
                {offer?.(way)}
              </li>
            ))}
          </ul>
        </>
      ) : null}
    </div>
  );
}
