// The partition that is chosen for: which one, or a new one, and the VFs that it asks for.
import { useState } from "preact/hooks";
import type { PartitionSpec, VfRequest } from "../../api/types.ts";
import { choice, currentPartition, dropEdits, pickPartition, setPartition, setRequest, takeRequest } from "../../model/choice.ts";
import { freeName } from "../../model/draft.ts";
import { useSignal } from "../../model/signal.ts";
import { mayChange, store } from "../../model/store.ts";
import { settingPairs } from "../../model/words.ts";
import { NewPartition } from "./newpartition.tsx";
import { RequestForm } from "./request.tsx";

interface Props {
  all: PartitionSpec[];
  colours: Map<string, number>;
  owners: Map<string, string>;
  creating: boolean;
  setCreating: (creating: boolean) => void;
}

export function PartitionPane({ all, colours, owners, creating, setCreating }: Props) {
  const name = useSignal(choice.partition);
  const draft = useSignal(choice.draft);
  const held = useSignal(store.spec);
  const [editing, setEditing] = useState<string | null>(null);
  const partition = currentPartition();
  const isNew = !!partition && !held?.partition?.some((one) => one.name === partition.name);
  const edited = name !== null && name in draft.partitions;
  const where = new Map([...owners].map(([key, owner]) => [owner, key]));
  return (
    <>
      <div class="head">
        <h2>For</h2>
        {mayChange() ? <button type="button" class="small" onClick={() => setCreating(!creating)} aria-expanded={creating}>New partition</button> : null}
      </div>
      {creating ? <NewPartition all={all} done={(made) => { setCreating(false); if (made) { setPartition(made); pickPartition(made.name); } }} /> : null}
      <div class="picks" role="radiogroup" aria-label="Partition that is chosen for">
        {all.map((one) => (
          <label key={one.name} class={one.name === name ? "on" : ""}>
            <input type="radio" name="partition" checked={one.name === name} onChange={() => { pickPartition(one.name); setEditing(null); }} />
            <i class={`cell running c${colours.get(one.name) ?? 0}`} aria-hidden="true">{one.name[0]}</i>
            {one.name}
            {one.name in draft.partitions ? <span class="badge">edited</span> : null}
          </label>
        ))}
        {all.length ? null : <p class="quiet">No partition yet.</p>}
      </div>
      {partition ? (
        <>
          <div class="head">
            <h2>Its VFs</h2>
            {edited ? <button type="button" class="small" onClick={() => dropEdits(partition.name)}>{isNew ? "Drop it" : "Leave as it is"}</button> : null}
          </div>
          <ul class="plain requests" aria-label={`VFs of ${partition.name}`}>
            {(partition.vf ?? []).map((vf) => (
              <RequestItem key={vf.name} partition={partition} vf={vf} at={where.get(`${partition.name}/${vf.name}`)} editing={editing === vf.name} edit={setEditing} />
            ))}
          </ul>
          {mayChange() ? <AddVf partition={partition} added={setEditing} /> : null}
        </>
      ) : null}
    </>
  );
}

interface ItemProps {
  partition: PartitionSpec;
  vf: VfRequest;
  at: string | undefined;
  editing: boolean;
  edit: (name: string | null) => void;
}

function RequestItem({ partition, vf, at, editing, edit }: ItemProps) {
  const picked = useSignal(choice.request) === vf.name;
  const settings = settingPairs({ mac: vf.mac, vlan: vf.vlan, trust: vf.trust, spoofchk: vf.spoofchk, min_tx_rate: vf.min_tx_rate, max_tx_rate: vf.max_tx_rate, link_state: vf.link_state, queues: vf.queues, interrupts: vf.interrupts });
  const [pf, index] = (at ?? "").split("/");
  const place = vf.index !== undefined ? `VF ${vf.index} of ${vf.pf}` : at ? `VF ${index} of ${pf}` : vf.pf ? `any of ${vf.pf}` : "any that suits";
  return (
    <li class={picked ? "picked" : ""} draggable={mayChange()} onDragStart={(event) => event.dataTransfer?.setData("text/plain", `request:${partition.name}/${vf.name}`)}>
      <div class="row">
        <button type="button" class="link pick" aria-pressed={picked} title="Pick it, then a cell for it" onClick={() => (choice.request.value = picked ? null : vf.name)}>
          {vf.name}
        </button>
        <span class="quiet">{vf.class}</span>
        <span class="gap" />
        {mayChange() ? (
          <>
            <button type="button" class="small" aria-expanded={editing} aria-label={`${editing ? "Close" : "Edit"} ${vf.name}`} onClick={() => edit(editing ? null : vf.name)}>{editing ? "Close" : "Edit"}</button>
            <button type="button" class="icon" aria-label={`Take ${vf.name} out`} onClick={() => { takeRequest(partition.name, vf.name); edit(null); }}>✕</button>
          </>
        ) : null}
      </div>
      <p class="quiet address">{place}{vf.index === undefined && !at ? <span>: the plan says which</span> : null}</p>
      {settings.length ? <p class="pairs">{settings.map(([key, value]) => <span key={key} class="pair"><span class="quiet">{key}</span> {value}</span>)}</p> : null}
      {editing ? <RequestForm partition={partition} request={vf} onChange={(changed) => { setRequest(changed, vf.name); if (changed.name !== vf.name) edit(changed.name); }} /> : null}
    </li>
  );
}

function AddVf({ partition, added }: { partition: PartitionSpec; added: (name: string) => void }) {
  const inventory = useSignal(store.inventory);
  const classes = [...new Set((inventory?.physical_functions ?? []).map((pf) => pf.class))].filter((kind) => !partition.netns || kind === "network");
  const [kind, setKind] = useState("network");
  const chosen = classes.includes(kind) ? kind : (classes[0] ?? "network");
  return (
    <div class="row add">
      <label class="sr" for="add-class">Class of the VF</label>
      <select id="add-class" value={chosen} onChange={(event) => setKind(event.currentTarget.value)}>
        {classes.map((one) => <option key={one}>{one}</option>)}
      </select>
      <button type="button" onClick={() => {
        const made = { name: freeName(partition, chosen), class: chosen };
        setRequest(made);
        choice.request.value = made.name;
        added(made.name);
      }}>
        Add any that suits
      </button>
    </div>
  );
}
