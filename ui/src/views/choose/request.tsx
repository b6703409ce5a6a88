// What a VF is to be: what it needs, how it is set, and what its guest may change.
import { useState } from "preact/hooks";
import type { PartitionSpec, VfRequest, Vlan } from "../../api/types.ts";
import { guestMayOf, guestMayText } from "../../model/guestmay.ts";
import { useSignal } from "../../model/signal.ts";
import { store } from "../../model/store.ts";

interface Props {
  partition: PartitionSpec;
  request: VfRequest;
  onChange: (request: VfRequest) => void;
}

const NEEDS = ["rdma", "trust", "spoofchk", "vlan", "vlan-802.1ad", "rate-limit", "guaranteed-rate", "link-state"];
const SUBCLASSES: Record<string, string[]> = {
  network: ["ethernet", "infiniband", "fabric"],
  display: ["vga", "3d"],
  accelerator: ["encryption", "processing", "coprocessor"],
  other: ["coprocessor"],
};

export function RequestForm({ partition, request, onChange }: Props) {
  const inventory = useSignal(store.inventory);
  const network = request.class === "network";
  const set = (change: Partial<VfRequest>): void => {
    // What is empty is left out of a Spec.
    const all = Object.entries({ ...request, ...change }).filter(([, value]) => value !== undefined && value !== "" && !(Array.isArray(value) && !value.length));
    onChange(Object.fromEntries(all) as unknown as VfRequest);
  };
  const vlan: Vlan | null = request.vlan === undefined ? null : typeof request.vlan === "number" ? { id: request.vlan } : request.vlan;
  const setVlan = (change: Partial<Vlan>): void => {
    const next = { id: 0, ...vlan, ...change };
    const plain = (!next.protocol || next.protocol === "802.1Q") && !next.priority;
    set({ vlan: plain ? next.id : { id: next.id, ...(next.protocol ? { protocol: next.protocol } : {}), ...(next.priority ? { priority: next.priority } : {}) } });
  };
  const others = (partition.vf ?? []).filter((one) => one.name !== request.name).map((one) => one.name);
  const apart = request.apart_from ?? [];
  const pfs = (inventory?.physical_functions ?? []).filter((pf) => pf.class === request.class);
  return (
    <div class="form">
      <div class="two">
        <Text label="Name" value={request.name} onSet={(name) => name && !others.includes(name) && set({ name })} />
        <label>Port
          <select value={request.pf ?? ""} onChange={(event) => set({ pf: event.currentTarget.value || undefined, index: undefined })}>
            <option value="">any that suits</option>
            {pfs.map((pf) => <option key={pf.address}>{pf.address}</option>)}
          </select>
        </label>
      </div>
      <fieldset>
        <legend>Needs</legend>
        {SUBCLASSES[request.class] ? <Choice label="Kind" value={request.subclass} options={SUBCLASSES[request.class] ?? []} none="any" onSet={(subclass) => set({ subclass })} /> : null}
        {network ? (
          <div class="two">
            <Text label="Link of at least" value={request.min_link_speed} placeholder="10Gbit" onSet={(min_link_speed) => set({ min_link_speed })} />
            <label class="check"><input type="checkbox" checked={!!request.carrier} onChange={(event) => set({ carrier: event.currentTarget.checked || undefined })} />Has a link</label>
          </div>
        ) : null}
        <div class="two">
          <Text label="PCIe of at least" value={request.min_pcie_bandwidth} placeholder="32Gbit" onSet={(min_pcie_bandwidth) => set({ min_pcie_bandwidth })} />
          <Num label="MSI-X vectors" value={request.min_msix_vectors} onSet={(min_msix_vectors) => set({ min_msix_vectors })} />
        </div>
        {request.class === "nvme" ? <Num label="Namespaces" value={request.min_namespaces} onSet={(min_namespaces) => set({ min_namespaces })} /> : null}
        <Choice label="Partition's NUMA node" value={request.numa} options={["prefer", "require"]} none="as near as can be" onSet={(numa) => set({ numa })} />
        {network ? (
          <div class="checks" role="group" aria-label="The adapter can set">
            {NEEDS.map((need) => (
              <label key={need} class="check">
                <input type="checkbox" checked={request.needs?.includes(need) ?? false} onChange={(event) => set({ needs: event.currentTarget.checked ? [...(request.needs ?? []), need] : (request.needs ?? []).filter((one) => one !== need) })} />
                {need}
              </label>
            ))}
          </div>
        ) : null}
        {others.length ? (
          <label>Does not fail together with
            <select value={apart[0]?.vf ?? ""} onChange={(event) => set({ apart_from: event.currentTarget.value ? [{ vf: event.currentTarget.value }] : [] })}>
              <option value="">no matter</option>
              {[...new Set([...others, ...apart.map((one) => one.vf)])].map((one) => <option key={one}>{one}</option>)}
            </select>
          </label>
        ) : null}
      </fieldset>
      <fieldset>
        <legend>Settings</legend>
        {network ? (
          <>
            <Text label="MAC address" value={request.mac} placeholder="made from the names" onSet={(mac) => set({ mac })} />
            <div class="three">
              <Num label="Port VLAN" value={vlan?.id} max={4094} onSet={(id) => (id === undefined ? set({ vlan: undefined }) : setVlan({ id }))} />
              <Choice label="Tag" value={vlan?.protocol} options={["802.1Q", "802.1ad"]} none="802.1Q" disabled={!vlan} onSet={(protocol) => setVlan({ protocol })} />
              <Num label="Priority" value={vlan?.priority} max={7} disabled={!vlan} onSet={(priority) => setVlan({ priority: priority ?? 0 })} />
            </div>
            <div class="two">
              <Text label="Guaranteed rate" value={request.min_tx_rate} placeholder="25% or 500Mbit" onSet={(min_tx_rate) => set({ min_tx_rate })} />
              <Text label="Greatest rate" value={request.max_tx_rate} placeholder="500Mbit" onSet={(max_tx_rate) => set({ max_tx_rate })} />
            </div>
            <div class="three">
              <Flag label="Trust" value={request.trust} onSet={(trust) => set({ trust })} />
              <Flag label="Spoof check" value={request.spoofchk} onSet={(spoofchk) => set({ spoofchk })} />
              <Choice label="Link state" value={request.link_state} options={["auto", "enable", "disable"]} none="as it is" onSet={(link_state) => set({ link_state })} />
            </div>
          </>
        ) : request.class === "nvme" ? (
          <div class="two">
            <Num label="Queues" value={request.queues} onSet={(queues) => set({ queues })} />
            <Num label="Interrupts" value={request.interrupts} onSet={(interrupts) => set({ interrupts })} />
          </div>
        ) : (
          <p class="quiet">Nothing of it can be set.</p>
        )}
      </fieldset>
      <fieldset>
        <legend>Its guest may change</legend>
        <Text label="What, and within which bounds" value={guestMayText(request.guest_may)} placeholder="mac=52:54:00:*; vlan=100-110; reset" onSet={(text) => set({ guest_may: text ? guestMayOf(text) : {} })} />
      </fieldset>
    </div>
  );
}

interface FieldProps<T> {
  label: string;
  value: T | undefined;
  placeholder?: string;
  disabled?: boolean;
  onSet: (value: T | undefined) => void;
}

/** A text that counts once it is left, or Enter is pressed. */
function Text({ label, value, placeholder, onSet }: FieldProps<string>) {
  const [typed, setTyped] = useState<string | null>(null);
  const done = (text: string): void => {
    setTyped(null);
    if (text.trim() !== (value ?? "")) onSet(text.trim() || undefined);
  };
  return (
    <label>{label}
      <input
        value={typed ?? value ?? ""}
        placeholder={placeholder}
        spellcheck={false}
        onInput={(event) => setTyped(event.currentTarget.value)}
        onBlur={(event) => done(event.currentTarget.value)}
        onKeyDown={(event) => { if (event.key === "Enter") { event.preventDefault(); done(event.currentTarget.value); } }}
      />
    </label>
  );
}

function Num({ label, value, max, disabled, onSet }: FieldProps<number> & { max?: number }) {
  return (
    <label>{label}
      <input
        type="number"
        min={0}
        max={max}
        disabled={disabled}
        value={value ?? ""}
        placeholder="any"
        onChange={(event) => onSet(event.currentTarget.value === "" ? undefined : Math.max(0, Math.round(Number(event.currentTarget.value)) || 0))}
      />
    </label>
  );
}

function Choice({ label, value, options, none, disabled, onSet }: FieldProps<string> & { options: string[]; none: string }) {
  return (
    <label>{label}
      <select value={value ?? ""} disabled={disabled} onChange={(event) => onSet(event.currentTarget.value || undefined)}>
        <option value="">{none}</option>
        {options.map((one) => <option key={one}>{one}</option>)}
      </select>
    </label>
  );
}

function Flag({ label, value, onSet }: FieldProps<boolean>) {
  return (
    <label>{label}
      <select value={value === undefined ? "" : value ? "on" : "off"} onChange={(event) => onSet(event.currentTarget.value ? event.currentTarget.value === "on" : undefined)}>
        <option value="">as it is</option>
        <option>on</option>
        <option>off</option>
      </select>
    </label>
  );
}
