// The choice: which partition gets which VFs. Cells that suit light up, and the plan follows each edit.
import { useEffect, useMemo, useState } from "preact/hooks";
import { api } from "../api/client.ts";
import type { Compatible, Spec } from "../api/types.ts";
import { choice, currentPartition, load, pickPartition, putAt, setCount, takeRequest, undo } from "../model/choice.ts";
import { chosenOwners, freeName, isEmpty, partitionsOf, specOf } from "../model/draft.ts";
import { type Cell, cellKey, partitionOf, type Port } from "../model/machine.ts";
import { useSignal } from "../model/signal.ts";
import { mayChange, say, store } from "../model/store.ts";
import { CellDetails } from "../parts/details.tsx";
import { Legend, MachineGrid, type Mark } from "../parts/grid.tsx";
import { route } from "../parts/route.ts";
import { usePicture } from "../parts/usepicture.ts";
import { Files } from "./choose/files.tsx";
import { PartitionPane } from "./choose/partition.tsx";
import { PlanPane } from "./choose/planpane.tsx";

const NO_SPEC: Spec = { version: 1 };

export function ChooseView() {
  const base = useSignal(store.spec) ?? NO_SPEC;
  const inventory = useSignal(store.inventory);
  const draft = useSignal(choice.draft);
  const name = useSignal(choice.partition);
  const request = useSignal(choice.request);
  const undos = useSignal(choice.undo);
  const { query } = useSignal(route);
  useSignal(store.who);
  const [looked, setLooked] = useState<string | null>(null);
  const [creating, setCreating] = useState(false);
  const all = useMemo(() => partitionsOf(base, draft), [base, draft]);
  const picture = usePicture(all.map((one) => one.name));
  const owners = useMemo(() => (inventory ? chosenOwners(base, draft, inventory) : new Map<string, string>()), [base, draft, inventory]);
  const classes = useMemo(() => new Map((inventory?.physical_functions ?? []).map((pf) => [pf.address, pf.class])), [inventory]);
  const marks = useMarks(name, request);

  useEffect(() => {
    const wanted = query.get("partition");
    if (wanted) pickPartition(wanted);
    if (query.get("new")) {
      pickPartition(null);
      setCreating(true);
    } else if (!choice.partition.value) pickPartition(all[0]?.name ?? null);
  }, [query, !!store.spec.value]);

  useEffect(() => {
    const onKey = (event: KeyboardEvent): void => {
      const typing = event.target instanceof HTMLElement && event.target.matches("input, textarea, select");
      if (!typing && event.key === "z" && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        undo();
      }
    };
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, []);

  function pick(cell: Cell): void {
    const owner = owners.get(cell.key);
    if (owner && partitionOf(owner) === name) {
      const vf = owner.slice(owner.indexOf("/") + 1);
      choice.request.value = choice.request.value === vf ? null : vf;
      say(choice.request.value ? `${owner} is picked: it goes to the cell that is picked next` : `${owner} is not picked any more`);
    } else if (mayChange()) {
      putAt(cell, classes.get(cell.id.pf) ?? "network");
    }
  }

  function key(cell: Cell, pressed: string): boolean {
    if (pressed === "Enter" || pressed === " ") pick(cell);
    else if (pressed === "Delete" || pressed === "Backspace" || pressed === "x") take(owners.get(cell.key));
    else if (pressed === "Escape" && choice.request.value) choice.request.value = null;
    else return false;
    return true;
  }

  function take(owner: string | undefined): void {
    if (!owner || !mayChange()) return;
    takeRequest(partitionOf(owner), owner.slice(owner.indexOf("/") + 1));
  }

  /** A request from the list, or a VF from its cell, is put on another cell. */
  function drop(cell: Cell, dragged: string): void {
    const owner = dragged.startsWith("cell:") ? owners.get(dragged.slice(5)) : dragged.startsWith("request:") ? dragged.slice(8) : undefined;
    if (!owner || !mayChange()) return;
    if (partitionOf(owner) !== name) pickPartition(partitionOf(owner));
    putAt(cell, classes.get(cell.id.pf) ?? "network", owner.slice(owner.indexOf("/") + 1));
  }

  const found = picture.find(looked);
  return (
    <div class="choose">
      <div class="title">
        <h1>Choose</h1>
        <p class="quiet">Nothing changes before you apply.</p>
        <span class="gap" />
        <button type="button" disabled={!undos.length} onClick={undo} title="Ctrl+Z">Undo</button>
        <Files load={(spec) => { load(spec); setCreating(false); }} />
      </div>
      <div class="choose-panes">
        <section class="panel chosen-for" aria-label="Partition">
          <PartitionPane all={all} colours={picture.colours} owners={owners} creating={creating} setCreating={setCreating} />
        </section>
        <section class="picture" aria-label="Machine">
          <Legend colours={picture.colours} names={picture.names} />
          <p class="hint quiet">
            {name === null
              ? "Pick a partition, or make one: the cells that suit it light up."
              : request
                ? <>Cells that suit <b>{name}/{request}</b> are lit, the best brightest. Pick where it is to go.</>
                : <>Pick a lit cell to give <b>{name}</b> one more VF; Delete takes one out.</>}{" "}
            <span class="keys"><kbd>↑↓←→</kbd> move, <kbd>b</kbd> best, <kbd>n</kbd>/<kbd>p</kbd> next and previous that suit, <kbd>Enter</kbd> put, <kbd>Delete</kbd> take</span>
          </p>
          <MachineGrid
            nodes={picture.nodes}
            colours={picture.colours}
            owners={owners}
            marks={name === null ? null : marks}
            mine={name}
            selected={selectedKey(owners, name, request)}
            onLook={(cell) => setLooked(cell?.key ?? null)}
            onPick={pick}
            onKey={key}
            onDrop={drop}
            portExtra={(port) => <Count port={port} />}
            hint="Arrow keys move. Enter puts a VF into the partition, Delete takes it out. B goes to the best that suits, N and P to the next and the previous."
          />
        </section>
        <div class="beside">
          <section class="panel" aria-label="Plan" id="plan"><PlanPane /></section>
          <aside class="panel looked" aria-label="The virtual function that is looked at">
            <CellDetails cell={found?.cell ?? null} port={found?.port ?? null} mark={looked ? marks?.get(looked) : undefined} chosen={looked ? (owners.get(looked) ?? null) : undefined} />
          </aside>
        </div>
      </div>
      {isEmpty(draft) ? null : <button type="button" class="to-plan" onClick={() => document.getElementById("plan")?.scrollIntoView()}>See the plan</button>}
    </div>
  );
}

function selectedKey(owners: Map<string, string>, name: string | null, request: string | null): string | null {
  if (!name || !request) return null;
  for (const [key, owner] of owners) if (owner === `${name}/${request}`) return key;
  return null;
}

/** How many VFs a port gives: by the draft, by what was asked for before, or as many as are needed. */
function Count({ port }: { port: Port }) {
  const base = useSignal(store.spec);
  const draft = useSignal(choice.draft);
  const { address, sriov } = port.pf;
  const most = sriov?.total_vfs ?? 0;
  if (!mayChange() || most === 0) return null;
  const edited = draft.adapters[address];
  const asked = edited ?? base?.adapter?.find((one) => one.pf === address);
  return (
    <label class={`vf-count${edited ? " edited" : ""}`}>
      VFs
      <input
        type="number"
        min={0}
        max={most}
        aria-label={`VFs that ${address} is to give`}
        placeholder="auto"
        value={asked?.vfs === "max" ? most : (asked?.vfs ?? "")}
        onChange={(event) => {
          const text = event.currentTarget.value.trim();
          setCount(address, text === "" ? null : Math.max(0, Math.min(most, Math.round(Number(text)) || 0)));
        }}
      />
      {edited ? <button type="button" class="icon" aria-label={`Leave the number of VFs of ${address} as it is`} onClick={() => setCount(address, null)}>↶</button> : null}
    </label>
  );
}

/** How each cell suits the request that is picked, or, where none is, one more VF of the cell's class. */
function useMarks(name: string | null, request: string | null): Map<string, Mark> | null {
  const base = useSignal(store.spec);
  const draft = useSignal(choice.draft);
  const inventory = useSignal(store.inventory);
  const [marks, setMarks] = useState<Map<string, Mark> | null>(null);
  useEffect(() => {
    const partition = currentPartition();
    if (!partition || !base || !inventory) return setMarks(null);
    let ended = false;
    const netns = !!partition.netns;
    const probes = [...new Set(inventory.physical_functions.map((pf) => pf.class))]
      .filter((kind) => !netns || kind === "network")
      .map((kind, at) => ({ name: `${freeName(partition, kind)}-${at}`, class: kind }));
    const asking = request ? partition : { ...partition, vf: [...(partition.vf ?? []), ...probes] };
    const spec = specOf({ ...draft, partitions: { ...draft.partitions, [partition.name]: asking } });
    const wanted = request ? [request] : probes.map((one) => one.name);
    const timer = setTimeout(() => {
      api.compatible(spec, partition.name).then(
        (answer) => { if (!ended) setMarks(marksOf(answer, wanted.map((one) => `${partition.name}/${one}`))); },
        () => { if (!ended) setMarks(null); },
      );
    }, 60);
    return () => {
      ended = true;
      clearTimeout(timer);
    };
  }, [name, request, base, draft, inventory]);
  return marks;
}

function marksOf(answer: Compatible[], wanted: string[]): Map<string, Mark> {
  const marks = new Map<string, Mark>();
  for (const { request, candidates } of answer) {
    if (!wanted.includes(request)) continue;
    const ports: string[] = [];
    candidates.forEach(({ vf, reasons }, rank) => {
      const key = cellKey(vf.pf, vf.index);
      if (!reasons.length) {
        if (!ports.includes(vf.pf)) ports.push(vf.pf);
        marks.set(key, { rank, grade: ports.indexOf(vf.pf) });
      }
      // Of several requests, the one of the cell's own class tells why not.
      else if (!marks.has(key) || !reasons.some((reason) => reason.rule === "class")) {
        if (marks.get(key)?.rank === undefined) marks.set(key, { reasons });
      }
    });
  }
  return marks;
}
