// All about one VF: settings, traffic, group, who has it, and why it can't be given.
import { useEffect, useRef, useState } from "preact/hooks";
import { api, Problem } from "../api/client.ts";
import type { Statistics } from "../api/types.ts";
import { type Cell, type Port, STATE_WORDS } from "../model/machine.ts";
import { bytes, holderText, hostUse, pcieLink, reasonText, settingPairs, speed } from "../model/words.ts";
import type { Mark } from "./grid.tsx";
import { linkTo } from "./route.ts";

const INTERVAL_MS = 2000;
const POINTS = 40;

interface Props {
  cell: Cell | null;
  port: Port | null;
  mark?: Mark | undefined;
  /** Whose it is by the choice, where one is made. */
  chosen?: string | null;
}

export function CellDetails({ cell, port, mark, chosen }: Props) {
  if (!cell || !port) {
    return (
      <div class="details empty">
        <h2>A virtual function</h2>
        <p class="quiet">Point at a cell, or move to it with the arrow keys, to see all about it.</p>
      </div>
    );
  }
  const { vf } = cell;
  const { pf } = port;
  const facts: [string, string][] = [];
  const add = (name: string, value: string | number | null | undefined): void => {
    if (value !== null && value !== undefined && value !== "") facts.push([name, String(value)]);
  };
  add("Address", vf?.address);
  add("Driver", vf ? (vf.driver ?? "none") : null);
  add("IOMMU group", vf?.iommu_group);
  add("Shares its group with", vf?.iommu_group_shared_with?.join(", "));
  add("MSI-X vectors", vf?.msix_vectors);
  add("Function Level Reset", vf?.flr === undefined ? null : vf.flr ? "yes" : "no");
  add("Host's interface", vf?.netdevs?.join(", "));
  const why = whyNot(cell, port);
  return (
    <div class="details">
      <h2>VF {cell.id.index} <span class="quiet">of {cell.id.pf}</span></h2>
      <p class="state"><i class={`cell ${cell.state} c7`} aria-hidden="true" /> {STATE_WORDS[cell.state]}</p>
      {cell.owner ? <p>Held by <a href={linkTo("partitions", { partition: cell.partition ?? "" })}>{cell.owner}</a></p> : null}
      {vf?.holder && vf.holder.kind !== "nobody" ? <p>Held by {holderText(vf.holder)}</p> : null}
      {vf?.in_use_by_host?.map((use, at) => <p key={at}>In use by the host: {hostUse(use)}</p>)}
      {chosen !== undefined && chosen !== cell.owner ? <p class="good">{chosen ? `Goes to ${chosen}` : `Is taken from ${cell.owner}`}</p> : null}
      {chosen ? null : mark?.rank !== undefined ? <p class="good">{mark.rank === 0 ? "Suits best" : `Suits, number ${mark.rank + 1}`}</p> : null}
      {chosen ? null : mark?.reasons?.length ? (
        <div class="why"><h3>Does not suit</h3><ul class="plain">{mark.reasons.map((reason, at) => <li key={at}>{reasonText(reason)}{reason.remedy ? ` To do: ${reason.remedy}.` : ""}</li>)}</ul></div>
      ) : why.length ? (
        <div class="why"><h3>Can't be given</h3><ul class="plain">{why.map((one, at) => <li key={at}>{one}</li>)}</ul></div>
      ) : null}
      {vf ? <Traffic key={cell.key} pf={cell.id.pf} index={cell.id.index} /> : null}
      <Facts heading="Settings" facts={settingPairs(vf?.settings)} />
      <Facts heading="Function" facts={facts} />
      <Facts
        heading="Port"
        facts={[
          ["Adapter", pf.name],
          ["PCIe", pcieLink(pf.link)],
          ...(pf.netdevs?.length ? [["Link", pf.netdevs.map((one) => `${one.name} ${speed(one.carrier ? one.speed_mbps : null)}`).join(", ")] as [string, string]] : []),
          ...(pf.capabilities?.length ? [["Can set", pf.capabilities.join(", ")] as [string, string]] : []),
        ]}
      />
      {vf?.reasons?.map((reason, at) => <p key={at} class="quiet">{reasonText(reason)}</p>)}
    </div>
  );
}

function Facts({ heading, facts }: { heading: string; facts: [string, string][] }) {
  if (!facts.length) return null;
  return (
    <>
      <h3>{heading}</h3>
      <dl>{facts.map(([name, value]) => <div key={name}><dt>{name}</dt><dd>{value}</dd></div>)}</dl>
    </>
  );
}

/** Why nobody could be given it, by the facts alone; what a request needs is asked of the daemon. */
function whyNot(cell: Cell, port: Port): string[] {
  const why: string[] = [];
  const { pf } = port;
  if (port.stuck) why.push("Its adapter does not answer.");
  if (cell.state === "foreign") why.push("Somebody else has it.");
  if (cell.vf?.iommu_group_shared_with?.length) why.push("It shares its IOMMU group with other functions.");
  if (!cell.owner && pf.vfs_available === 0) why.push("Its adapter can give no more VFs.");
  for (const reason of pf.reasons ?? []) why.push(reasonText(reason));
  return why;
}

interface Sample {
  at: number;
  statistics: Statistics;
}

/** A small live chart of a VF's traffic; nothing where the adapter or the daemon tells none. */
function Traffic({ pf, index }: { pf: string; index: number }) {
  const [samples, setSamples] = useState<Sample[]>([]);
  const ended = useRef(false);
  useEffect(() => {
    ended.current = false;
    let timer: ReturnType<typeof setTimeout>;
    const look = async (): Promise<void> => {
      try {
        const statistics = await api.statistics(pf, index);
        if (ended.current) return;
        setSamples((before) => [...before, { at: Date.now(), statistics }].slice(-POINTS));
      } catch (error) {
        if (!(error instanceof Problem) || error.status !== 0) return;
      }
      if (!ended.current) timer = setTimeout(look, INTERVAL_MS);
    };
    // Whoever only passes by asks for nothing.
    timer = setTimeout(look, 250);
    return () => {
      ended.current = true;
      clearTimeout(timer);
    };
  }, [pf, index]);
  const last = samples.at(-1);
  if (!last) return null;
  const rates = samples.slice(1).map((sample, at) => {
    const before = samples[at] as Sample;
    const seconds = Math.max(0.001, (sample.at - before.at) / 1000);
    const rate = (key: "rx_bytes" | "tx_bytes"): number => Math.max(0, (sample.statistics[key] - before.statistics[key]) / seconds);
    return { rx: rate("rx_bytes"), tx: rate("tx_bytes") };
  });
  const now = rates.at(-1);
  const most = Math.max(1, ...rates.flatMap((rate) => [rate.rx, rate.tx]));
  const line = (key: "rx" | "tx"): string => rates.map((rate, at) => `${(at / (POINTS - 2)) * 100},${30 - (rate[key] / most) * 28}`).join(" ");
  return (
    <>
      <h3>Traffic</h3>
      <svg class="spark" viewBox="0 0 100 31" preserveAspectRatio="none" role="img" aria-label="Traffic of the last minute">
        <polyline class="rx" points={line("rx")} />
        <polyline class="tx" points={line("tx")} />
      </svg>
      <dl>
        <div><dt><i class="key rx" />Received</dt><dd>{now ? `${bytes(now.rx)}/s, ` : ""}{bytes(last.statistics.rx_bytes)} in all</dd></div>
        <div><dt><i class="key tx" />Sent</dt><dd>{now ? `${bytes(now.tx)}/s, ` : ""}{bytes(last.statistics.tx_bytes)} in all</dd></div>
        <div><dt>Dropped</dt><dd>{last.statistics.rx_dropped} received, {last.statistics.tx_dropped} to send</dd></div>
      </dl>
    </>
  );
}
