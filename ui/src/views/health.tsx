// Health: what differs, what hangs, what is nobody's, and what the host lacks; each with what to do.
import { useState } from "preact/hooks";
import { api } from "../api/client.ts";
import type { Finding, Orphan } from "../api/types.ts";
import { useSignal } from "../model/signal.ts";
import { isAdministrator, reload, say, store, watch } from "../model/store.ts";
import { counted, driftText, vfText } from "../model/words.ts";
import { Dialog } from "../parts/dialog.tsx";
import { ProblemBox } from "../parts/problem.tsx";

export function HealthView() {
  watch("orphans", "doctor");
  const drift = useSignal(store.drift);
  const stuck = useSignal(store.stuck);
  const orphans = useSignal(store.orphans);
  const doctor = useSignal(store.doctor);
  const missing = Array.isArray(doctor) ? doctor.filter((one) => one.verdict === "missing").length : 0;
  const well = !drift.length && !stuck.size && !missing;
  return (
    <>
      <div class="title">
        <h1>Health</h1>
        <p class={well ? "good" : "bad"}>{well ? "✓ Everything is as it is to be" : `${counted(drift.length + stuck.size + missing, "thing")} to look at`}</p>
      </div>
      <div class="columns">
        <section class="panel" aria-labelledby="h-drift">
          <h2 id="h-drift">Drift</h2>
          {drift.length ? (
            <ul class="plain findings">
              {drift.map((one, at) => (
                <li key={at} class="bad">
                  <span class="mark" aria-hidden="true">▲</span>
                  <div>
                    <p>{driftText(one)}.</p>
                    {one.breaks?.length ? <p>Breaks {one.breaks.join(", ")}.</p> : null}
                    <p class="remedy">{one.left_because ? `Left as it is: ${one.left_because}.` : "ioward repairs it by itself."}</p>
                  </div>
                </li>
              ))}
            </ul>
          ) : (
            <p class="quiet">The host is as it was set.</p>
          )}
          <h2>Stuck adapters</h2>
          {stuck.size ? (
            <ul class="plain findings">
              {[...stuck].map((pf) => (
                <li key={pf} class="bad">
                  <span class="mark" aria-hidden="true">✕</span>
                  <div><p>{pf} has not returned from a change.</p><p class="remedy">To do: look for its driver in the kernel's log; a program that has one of its VFs open may have to end. Others are served meanwhile.</p></div>
                </li>
              ))}
            </ul>
          ) : (
            <p class="quiet">Every adapter answers.</p>
          )}
          <Orphans orphans={orphans} />
        </section>
        <section class="panel" aria-labelledby="h-doctor">
          <h2 id="h-doctor">What this host needs for SR-IOV</h2>
          <Doctor doctor={doctor} />
        </section>
      </div>
    </>
  );
}

const MARK = { well: "✓", warning: "!", missing: "✕" } as const;
const TONE = { well: "good", warning: "warning", missing: "bad" } as const;
const WORD = { well: "as it should be", warning: "could be better", missing: "missing" } as const;
const ORDER = { missing: 0, warning: 1, well: 2 } as const;

function Doctor({ doctor }: { doctor: Finding[] | "older" | null }) {
  if (doctor === "older") return <p class="quiet">This daemon is older than the page and does not tell. <code>ioward doctor</code> on the host does.</p>;
  if (!doctor) return <p class="quiet">Looking …</p>;
  const findings = [...doctor].sort((a, b) => ORDER[a.verdict] - ORDER[b.verdict]);
  return (
    <ul class="plain findings">
      {findings.map((one, at) => (
        <li key={at} class={TONE[one.verdict]}>
          <span class="mark" aria-hidden="true">{MARK[one.verdict]}</span>
          <div>
            <p><span class="sr">{WORD[one.verdict]}: </span><b>{one.check}</b>{one.function ? <span class="address"> {one.function}</span> : null}: {one.found}</p>
            {one.remedy ? <p class="remedy">To do: {one.remedy}</p> : null}
          </div>
        </li>
      ))}
    </ul>
  );
}

function Orphans({ orphans }: { orphans: Orphan[] | null }) {
  const [asked, setAsked] = useState(false);
  const [error, setError] = useState<unknown>(null);
  async function reap(): Promise<void> {
    try {
      const reaped = await api.reap();
      const failed = reaped.filter((one) => one.error);
      setError(failed.length ? new Error(failed.map((one) => `${vfText(one)}: ${one.error}`).join("; ")) : null);
      say(`${counted(reaped.length - failed.length, "VF")} reset and left without a driver`);
      setAsked(false);
    } catch (problem) {
      setError(problem);
    }
    reload("orphans", "inventory");
  }
  return (
    <>
      <h2>Orphans</h2>
      {orphans?.length ? (
        <>
          <ul class="plain">{orphans.map((one) => <li key={one.address}><span class="address">{one.address}</span> <span class="quiet">{vfText(one)}</span></li>)}</ul>
          <p class="quiet">Bound to vfio-pci, and nobody's. They may be meant for a machine that is to start later.</p>
          {isAdministrator() ? <button type="button" onClick={() => setAsked(true)}>Give them back</button> : null}
        </>
      ) : (
        <p class="quiet">No VF is bound to vfio-pci without an owner.</p>
      )}
      {asked ? (
        <Dialog title="Give orphans back?" onClose={() => setAsked(false)}>
          <p>{counted(orphans?.length ?? 0, "VF")} will be reset and left without a driver. Whoever wanted to use one has to bind it again.</p>
          {error ? <ProblemBox error={error} /> : null}
          <footer><button type="button" onClick={() => setAsked(false)}>Leave them</button><button type="button" class="primary warn" onClick={reap}>Give them back</button></footer>
        </Dialog>
      ) : null}
    </>
  );
}
