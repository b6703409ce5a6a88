// Partitions: their state, VFs, channel, agent and policy; and what can be done with them, asked first.
import { useEffect, useState } from "preact/hooks";
import { api, Problem } from "../api/client.ts";
import type { AssignedVf, Intent, Options, Partition, Plan, Way } from "../api/types.ts";
import { colours } from "../model/machine.ts";
import { useSignal } from "../model/signal.ts";
import { mayChange, reload, say, store } from "../model/store.ts";
import { counted, settingPairs, standbyText } from "../model/words.ts";
import { Dialog } from "../parts/dialog.tsx";
import { PlanView } from "../parts/planview.tsx";
import { ProblemBox } from "../parts/problem.tsx";
import { Progress } from "../parts/progress.tsx";
import { linkTo, route } from "../parts/route.ts";
import { ConsoleDialog } from "./console.tsx";
import { optionFor } from "./ways.tsx";

interface Asked {
  title: string;
  verb: string;
  intent: Intent;
}

export function PartitionsView() {
  const partitions = useSignal(store.partitions);
  const { query } = useSignal(route);
  const [asked, setAsked] = useState<Asked | null>(null);
  const [reset, setReset] = useState<AssignedVf | null>(null);
  const [console, setConsole] = useState<string | null>(null);
  useSignal(store.who);
  const colour = colours(partitions.map((one) => one.name));
  const wanted = query.get("partition");
  useEffect(() => {
    if (wanted) document.getElementById(`partition-${wanted}`)?.scrollIntoView({ block: "nearest" });
  }, [wanted]);
  return (
    <>
      <div class="title">
        <h1>Partitions</h1>
        <p class="quiet">{counted(partitions.length, "partition")}, {partitions.filter((one) => one.running).length} running</p>
        {mayChange() ? <a class="button" href={linkTo("choose", { new: "1" })}>New partition</a> : null}
      </div>
      {partitions.length ? null : <p class="quiet">There is none yet. <a href={linkTo("choose", { new: "1" })}>Choose</a> VFs for a first one.</p>}
      <div class="cards">
        {partitions.map((one) => (
          <Card key={one.name} partition={one} colour={colour.get(one.name) ?? 0} ask={setAsked} reset={setReset} openConsole={setConsole} wanted={wanted === one.name} />
        ))}
      </div>
      {asked ? <ActionDialog asked={asked} onClose={() => setAsked(null)} /> : null}
      {reset ? <ResetDialog vf={reset} onClose={() => setReset(null)} /> : null}
      {console ? <ConsoleDialog partition={console} onClose={() => setConsole(null)} /> : null}
    </>
  );
}

function kindText(partition: Partition): string {
  if (partition.libvirt) return `libvirt domain ${partition.libvirt}`;
  if (partition.netns) return typeof partition.netns === "string" ? `network namespace ${partition.netns}` : "network namespace";
  return `${counted(partition.cpus ?? 1, "CPU")}, ${partition.memory ?? "512MiB"}`;
}

interface CardProps {
  partition: Partition;
  colour: number;
  wanted: boolean;
  ask: (asked: Asked) => void;
  reset: (vf: AssignedVf) => void;
  openConsole: (name: string) => void;
}

function Card({ partition, colour, ask, reset, openConsole, wanted }: CardProps) {
  const { name, running } = partition;
  const namespace = !!partition.netns;
  return (
    <article class={`card${wanted ? " wanted" : ""}`} id={`partition-${name}`} aria-labelledby={`title-${name}`}>
      <header>
        <i class={`cell ${running ? "running" : "assigned"} c${colour}`} aria-hidden="true">{name[0]}</i>
        <h2 id={`title-${name}`}>{name}</h2>
        <span class={`badge ${running && !partition.halted ? "good" : ""}`}>{!running ? "off" : partition.halted ? `halted: ${partition.halted}` : "runs"}</span>
        <span class="quiet">{kindText(partition)}</span>
      </header>
      <dl class="inline">
        <div><dt>Channel</dt><dd>{partition.channel ? "there" : "none"}</dd></div>
        <div><dt>Agent</dt><dd>{partition.agent ?? "has not said hello"}</dd></div>
        {running && partition.pid ? <div><dt>Process</dt><dd>{partition.pid}{partition.accelerator ? `, ${partition.accelerator}` : ""}</dd></div> : null}
      </dl>
      {partition.vfs.length ? (
        <table>
          <caption class="sr">VFs of {name}</caption>
          <thead>
            <tr><th scope="col">VF</th><th scope="col">Function</th><th scope="col">Settings</th><th scope="col"><span class="sr">Actions</span></th></tr>
          </thead>
          <tbody>
            {partition.vfs.map((vf) => (
              <tr key={vf.name}>
                <th scope="row">{vf.name}<span class="quiet">{vf.class}</span></th>
                <td class="address">{vf.address ?? "not there"}<span class="quiet">VF {vf.index} of {vf.pf}</span></td>
                <td>{settingPairs(vf.settings).map(([key, value]) => <span key={key} class="pair"><span class="quiet">{key}</span> {value}</span>)}
                  {standbyText(vf) ? <p class="may">{standbyText(vf)}</p> : null}
                  {vf.guest_may.length ? <p class="may"><span class="quiet">its guest may change</span> {vf.guest_may.join(", ")}</p> : null}
                </td>
                <td>
                  {mayChange() && !namespace ? <button type="button" class="small" aria-label={`Reset ${name}/${vf.name}`} onClick={() => reset(vf)}>Reset</button> : null}{" "}
                  {mayChange() && (vf.standby_bridge || vf.failover?.role === "primary") ? (
                    <button type="button" class="small" aria-label={`${vf.failed_over ? "Have active again" : "Fail over"} ${name}/${vf.name}`} onClick={() => ask({ title: vf.failed_over ? `Have ${name}/${vf.name} active again?` : `Have the standby of ${name}/${vf.name} active?`, verb: vf.failed_over ? "Go back" : "Fail over", intent: { intent: "failover", partition: name, vf: vf.name, back: !!vf.failed_over } })}>
                      {vf.failed_over ? "Back" : "Fail over"}
                    </button>
                  ) : null}{" "}
                  {mayChange() ? (
                    <button type="button" class="small" aria-label={`Detach ${name}/${vf.name}`} onClick={() => ask({ title: `Detach ${name}/${vf.name}?`, verb: "Detach", intent: { intent: "detach", partition: name, vf: vf.name } })}>
                      Detach
                    </button>
                  ) : null}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      ) : (
        <p class="quiet">It has no VFs.</p>
      )}
      <footer>
        {mayChange() ? (
          <>
            {namespace ? null : running ? (
              <button type="button" aria-label={`Stop ${name}`} onClick={() => ask({ title: `Stop ${name}?`, verb: "Stop", intent: { intent: "stop", partition: name } })}>Stop</button>
            ) : (
              <button type="button" aria-label={`Start ${name}`} onClick={() => ask({ title: `Start ${name}?`, verb: "Start", intent: { intent: "start", partition: name } })}>Start</button>
            )}
            <a class="button" aria-label={`Attach VFs to ${name}`} href={linkTo("choose", { partition: name })}>Attach VFs</a>
            {partition.console && running ? <button type="button" aria-label={`Console of ${name}`} onClick={() => openConsole(name)}>Console</button> : null}
            <span class="gap" />
            {partition.libvirt ? (
              <button type="button" aria-label={`Release ${name}`} onClick={() => ask({ title: `Release ${name}?`, verb: "Release", intent: { intent: "release", partition: name } })}>Release</button>
            ) : null}
            <button type="button" class="danger" aria-label={`Remove ${name}`} onClick={() => ask({ title: `Remove ${name}?`, verb: "Remove", intent: { intent: "remove", partition: name } })}>Remove</button>
          </>
        ) : null}
        <a class="quiet" href={linkTo("history", { partition: name })} aria-label={`History of ${name}`}>History</a>
      </footer>
    </article>
  );
}

/** A Function Level Reset in the partition's place. */
function ResetDialog({ vf, onClose }: { vf: AssignedVf; onClose: () => void }) {
  const [error, setError] = useState<unknown>(null);
  async function reset(): Promise<void> {
    try {
      await api.operate(vf.pf, vf.index, { op: "reset", vf: vf.name });
      say(`${vf.name} is reset`);
      reload("inventory", "audit");
      onClose();
    } catch (problem) {
      setError(problem instanceof Problem && problem.status === 404 ? new Error("This daemon is older than the page and resets no VF for others.") : problem);
    }
  }
  return (
    <Dialog title={`Reset ${vf.name}?`} onClose={onClose}>
      <p>VF {vf.index} of {vf.pf} is reset (Function Level Reset): what its guest was doing with it is lost, and what the host has set stays.</p>
      {error ? <ProblemBox error={error} /> : null}
      <footer>
        <button type="button" onClick={onClose}>Leave it</button>
        <button type="button" class="primary warn" onClick={() => void reset()}>Reset</button>
      </footer>
    </Dialog>
  );
}

/** Shows what it would do and whom it disturbs; then does it, and shows how that goes. */
function ActionDialog({ asked, onClose }: { asked: Asked; onClose: () => void }) {
  const [options, setOptions] = useState<Options>({});
  const [plan, setPlan] = useState<Plan | null>(null);
  const [error, setError] = useState<unknown>(null);
  const [change, setChange] = useState<number | null>(null);
  const [busy, setBusy] = useState(false);
  const inventory = useSignal(store.inventory);
  const runs = useSignal(store.runs);
  const run = change === null ? undefined : runs.get(change);
  useEffect(() => {
    if (change !== null) return;
    let ended = false;
    api.plan(asked.intent, options).then(
      (made) => { if (!ended) { setPlan(made); setError(null); } },
      (problem: unknown) => { if (!ended) { setError(problem); setPlan(null); } },
    );
    return () => { ended = true; };
  }, [asked, options, inventory?.generation, change]);

  async function begin(): Promise<void> {
    if (!plan) return;
    setBusy(true);
    try {
      const begun = await api.begin(plan);
      setChange(Number(begun.id.split("-")[1]));
    } catch (problem) {
      setError(problem);
    } finally {
      setBusy(false);
      reload("changes");
    }
  }

  const forceable = asked.intent.intent === "stop" || asked.intent.intent === "detach" || asked.intent.intent === "remove";
  const offer = (way: Way) => optionFor(way, options, setOptions);
  return (
    <Dialog title={asked.title} onClose={onClose}>
      {run ? (
        <Progress run={run} />
      ) : change !== null ? (
        <p class="quiet">It has begun …</p>
      ) : (
        <>
          {error ? <ProblemBox error={error} offer={offer} /> : null}
          {plan ? <PlanView plan={plan} offer={offer} /> : error ? null : <p class="quiet">Working out what that would change …</p>}
          {forceable ? (
            <label class="check">
              <input type="checkbox" checked={!!options.force} onChange={(event) => setOptions({ ...options, force: event.currentTarget.checked })} />
              Without asking the guest (force)
            </label>
          ) : null}
        </>
      )}
      <footer>
        {change === null ? (
          <>
            <button type="button" onClick={onClose}>Leave it</button>
            <button type="button" class={`primary${plan?.disturbs.length || asked.intent.intent === "remove" ? " warn" : ""}`} disabled={!plan?.steps.length || busy} onClick={begin}>
              {asked.verb}
            </button>
          </>
        ) : (
          <button type="button" class="primary" onClick={onClose}>{run?.ended ? "Close" : "Close; it goes on"}</button>
        )}
      </footer>
    </Dialog>
  );
}
