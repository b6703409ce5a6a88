// The picture of the machine. Cells are reached by pointing, and by the arrow keys: one of them is in the tab order.
import type { ComponentChildren } from "preact";
import { memo } from "preact/compat";
import { useCallback, useMemo, useRef, useState } from "preact/hooks";
import type { Reason } from "../api/types.ts";
import type { Cell, Node, Port } from "../model/machine.ts";
import { partitionOf, STATE_WORDS } from "../model/machine.ts";
import { counted, hostUse, pcieLink, reasonText, speed } from "../model/words.ts";

/** How a cell suits what is asked for: its rank from 0, or why not. */
export interface Mark {
  rank?: number;
  /** 0: on the port that suits best, 1: on the next one, … */
  grade?: number;
  reasons?: Reason[];
}

export interface GridProps {
  nodes: Node[];
  colours: Map<string, number>;
  /** Owners by cell, where the draft has others than the host. */
  owners?: Map<string, string>;
  marks?: Map<string, Mark> | null;
  /** The partition whose cells stand out. */
  mine?: string | null;
  selected?: string | null;
  onLook: (cell: Cell | null) => void;
  onPick?: (cell: Cell) => void;
  /** Says whether the key meant something. */
  onKey?: (cell: Cell, key: string) => boolean;
  onDrop?: (cell: Cell, dragged: string) => void;
  portExtra?: (port: Port) => ComponentChildren;
  hint: string;
}

export function MachineGrid(props: GridProps) {
  const { nodes, colours, owners, marks, mine, selected, onLook, onPick, onKey, onDrop, portExtra, hint } = props;
  const root = useRef<HTMLDivElement>(null);
  const [active, setActive] = useState<string | null>(null);
  const cells = useMemo(() => {
    const all = new Map<string, Cell>();
    for (const node of nodes) for (const adapter of node.adapters) for (const port of adapter.ports) for (const cell of port.cells) all.set(cell.key, cell);
    return all;
  }, [nodes]);
  const tabStop = active && cells.has(active) ? active : (cells.keys().next().value ?? null);

  const cellOf = useCallback((target: EventTarget | null): Cell | null => {
    const element = target instanceof Element ? target.closest<HTMLElement>("[data-cell]") : null;
    return (element?.dataset["cell"] && cells.get(element.dataset["cell"])) || null;
  }, [cells]);

  const focus = (key: string | null | undefined): void => {
    if (!key) return;
    setActive(key);
    root.current?.querySelector<HTMLElement>(`[data-cell="${CSS.escape(key)}"]`)?.focus();
  };

  function move(cell: Cell, key: string): boolean {
    const keys = [...cells.keys()];
    const at = keys.indexOf(cell.key);
    switch (key) {
      case "ArrowRight":
        focus(keys[at + 1]);
        return true;
      case "ArrowLeft":
        focus(keys[at - 1]);
        return true;
      case "ArrowDown":
      case "ArrowUp":
        focus(beside(root.current, cell.key, key === "ArrowDown"));
        return true;
      case "Home":
        focus(keys.find((one) => one.startsWith(`${cell.id.pf}/`)));
        return true;
      case "End":
        focus(keys.findLast((one) => one.startsWith(`${cell.id.pf}/`)));
        return true;
      case "PageDown":
        focus(keys.slice(at).find((one) => !one.startsWith(`${cell.id.pf}/`)));
        return true;
      case "PageUp": {
        const before = keys.slice(0, at).findLast((one) => !one.startsWith(`${cell.id.pf}/`));
        focus(before && keys.find((one) => one.startsWith(`${before.split("/")[0]}/`)));
        return true;
      }
      case "n":
      case "p": {
        if (!marks) return false;
        const suited = keys.filter((one) => marks.get(one)?.rank !== undefined);
        const ordered = key === "n" ? [...suited.filter((one) => keys.indexOf(one) > at), ...suited] : [...suited.filter((one) => keys.indexOf(one) < at).reverse(), ...suited.reverse()];
        focus(ordered[0]);
        return true;
      }
      case "b":
        if (!marks) return false;
        focus([...marks].find(([, mark]) => mark.rank === 0)?.[0]);
        return true;
      default:
        return false;
    }
  }

  return (
    <div
      ref={root}
      class={`machine${marks ? " choosing" : ""}`}
      onMouseOver={(event) => { const cell = cellOf(event.target); if (cell) onLook(cell); }}
      onMouseLeave={() => onLook(active ? (cells.get(active) ?? null) : null)}
      onFocusIn={(event) => { const cell = cellOf(event.target); if (cell) { setActive(cell.key); onLook(cell); } }}
      onClick={(event) => { const cell = cellOf(event.target); if (cell) { focus(cell.key); onPick?.(cell); } }}
      onKeyDown={(event) => {
        const cell = cellOf(event.target);
        if (!cell || event.ctrlKey || event.metaKey || event.altKey) return;
        if (onKey?.(cell, event.key) || move(cell, event.key)) event.preventDefault();
      }}
      onDragStart={(event) => { const cell = cellOf(event.target); if (cell) event.dataTransfer?.setData("text/plain", `cell:${cell.key}`); }}
      onDragOver={(event) => { if (onDrop && cellOf(event.target)) event.preventDefault(); }}
      onDrop={(event) => {
        const cell = cellOf(event.target);
        if (cell && onDrop) { event.preventDefault(); onDrop(cell, event.dataTransfer?.getData("text/plain") ?? ""); }
      }}
    >
      <p class="sr" id="grid-hint">{hint}</p>
      {nodes.map((node) => (
        <section key={String(node.id)} class="node" aria-label={nodeName(node)}>
          <h2 class="node-name">{nodeName(node)}<span class="quiet">{nodeFacts(node)}</span></h2>
          <div class="adapters">
            {node.adapters.map((adapter) => (
              <article key={adapter.key} class={`adapter${adapter.ports.some((port) => port.cells.length > 32) ? " large" : ""}`}>
                <header>
                  <span class="wire" title="The PCIe link of its root port">{pcieLink(adapter.ports[0]?.pf.link)}</span>
                  <h3 title={adapter.name}>{adapter.name}</h3>
                </header>
                {adapter.ports.map((port) => (
                  <div key={port.pf.address} class="port">
                    <PortHead port={port} extra={portExtra?.(port)} />
                    <PortCells
                      port={port}
                      signature={signatureOf(port, owners, marks, mine, colours)}
                      colours={colours}
                      owners={owners}
                      marks={marks}
                      mine={mine}
                      tabStop={tabStop?.startsWith(`${port.pf.address}/`) ? tabStop : null}
                      selected={selected?.startsWith(`${port.pf.address}/`) ? selected : null}
                      draggable={!!onDrop}
                    />
                  </div>
                ))}
              </article>
            ))}
            {node.adapters.length ? null : <p class="quiet">No SR-IOV adapter</p>}
          </div>
        </section>
      ))}
    </div>
  );
}

function nodeName(node: Node): string {
  return node.id === null ? "No NUMA node named" : `NUMA node ${node.id}`;
}

function nodeFacts(node: Node): string {
  const ports = node.adapters.flatMap((adapter) => adapter.ports);
  const free = ports.reduce((sum, port) => sum + port.pf.vfs_available, 0);
  return ` ${counted(node.adapters.length, "adapter")}, ${counted(ports.length, "port")}, ${counted(free, "VF")} to give`;
}

/** The cell above or below, as they are drawn. */
function beside(root: HTMLElement | null, key: string, below: boolean): string | null {
  const here = root?.querySelector<HTMLElement>(`[data-cell="${CSS.escape(key)}"]`)?.getBoundingClientRect();
  if (!root || !here) return null;
  let best: { key: string; row: number; off: number } | null = null;
  for (const element of root.querySelectorAll<HTMLElement>("[data-cell]")) {
    const box = element.getBoundingClientRect();
    const row = below ? box.top - here.top : here.top - box.top;
    if (row < 4) continue;
    const off = Math.abs(box.left - here.left);
    if (!best || row < best.row - 4 || (Math.abs(row - best.row) <= 4 && off < best.off)) best = { key: element.dataset["cell"] ?? "", row, off };
  }
  return best?.key ?? null;
}

function PortHead({ port, extra }: { port: Port; extra: ComponentChildren }) {
  const { pf } = port;
  const netdev = pf.netdevs?.[0];
  const made = pf.sriov?.num_vfs ?? 0;
  const facts = [pf.driver ?? "no driver", pf.nvme?.name, pf.nvme?.namespaces?.length ? counted(pf.nvme.namespaces.length, "namespace") : null].filter(Boolean);
  return (
    <div class="port-head">
      <span class="address">{pf.address}</span>
      {netdev ? (
        <span class={`netdev ${netdev.carrier ? "up" : "down"}`}>
          <span class="led" aria-hidden="true" />
          {netdev.name} {netdev.carrier ? speed(netdev.speed_mbps) : netdev.up ? "no link" : "down"}
        </span>
      ) : null}
      <span class="quiet driver">{facts.join(", ")}</span>
      {port.stuck ? <span class="badge bad">does not answer</span> : null}
      {pf.in_use_by_host?.length ? <span class="badge" title={pf.in_use_by_host.map(hostUse).join("; ")}>host uses it</span> : null}
      <span class="quiet number made">{made} of {pf.sriov?.total_vfs ?? 0} made, {pf.vfs_available} to give</span>
      {extra}
    </div>
  );
}

interface PortCellsProps {
  port: Port;
  signature: string;
  colours: Map<string, number>;
  owners: Map<string, string> | undefined;
  marks: Map<string, Mark> | null | undefined;
  mine: string | null | undefined;
  tabStop: string | null;
  selected: string | null;
  draggable: boolean;
}

/** All that the cells of a port are drawn from, as a text: they are drawn again only when it is another. */
function signatureOf(port: Port, owners: GridProps["owners"], marks: GridProps["marks"], mine: GridProps["mine"], colours: GridProps["colours"]): string {
  return port.cells
    .map((cell) => {
      const mark = marks?.get(cell.key);
      const owner = owners ? owners.get(cell.key) : cell.owner;
      const of = owner ? partitionOf(owner) : "";
      return `${cell.state[0]}${cell.state[1]}${owner ?? ""}:${colours.get(of) ?? ""}${of === mine ? "m" : ""}${mark?.rank === undefined ? (mark ? "x" : "") : `${mark.rank === 0 ? "b" : "s"}${mark.grade}`}`;
    })
    .join();
}

const PortCells = memo(function PortCells({ port, colours, owners, marks, mine, tabStop, selected, draggable }: PortCellsProps) {
  return (
    <div class="cells" role="grid" aria-label={`VFs of ${port.pf.address}`} aria-describedby="grid-hint">
      <div role="row" class="row">
        {port.cells.map((cell) => {
          const drawn = drawnAs(cell, owners);
          const mark = marks?.get(cell.key);
          const suits = mark?.rank === undefined ? (mark ? "unfit" : "") : `suits g${Math.min(mark.grade ?? 0, 2)}${mark.rank === 0 ? " best" : ""}`;
          const colour = drawn.partition ? `c${colours.get(drawn.partition) ?? 0}` : "";
          return (
            <div
              key={cell.key}
              role="gridcell"
              data-cell={cell.key}
              class={`cell ${drawn.state} ${colour} ${suits} ${drawn.planned} ${mine && drawn.partition === mine ? "mine" : ""}`}
              tabIndex={cell.key === tabStop ? 0 : -1}
              aria-selected={cell.key === selected}
              aria-label={labelOf(cell, drawn.owner, drawn.planned, mark)}
              draggable={draggable && !!drawn.owner}
            >
              {drawn.partition && drawn.state !== "foreign" ? drawn.partition[0] : ""}
            </div>
          );
        })}
      </div>
    </div>
  );
}, (before, after) => before.signature === after.signature && before.tabStop === after.tabStop && before.selected === after.selected && before.port.pf.address === after.port.pf.address && before.draggable === after.draggable);

interface Drawn {
  state: string;
  owner: string | null;
  partition: string | null;
  planned: "" | "comes" | "goes";
}

/** What a cell is drawn as: as it is, and as the draft has it. */
function drawnAs(cell: Cell, owners: Map<string, string> | undefined): Drawn {
  const owner = owners ? (owners.get(cell.key) ?? null) : cell.owner;
  if (!owners || owner === cell.owner) return { state: cell.state, owner: cell.owner, partition: cell.partition, planned: "" };
  if (!owner) return { state: cell.state, owner: cell.owner, partition: cell.partition, planned: "goes" };
  return { state: "assigned", owner, partition: partitionOf(owner), planned: "comes" };
}

function labelOf(cell: Cell, owner: string | null, planned: string, mark: Mark | undefined): string {
  const parts = [`VF ${cell.id.index} of ${cell.id.pf}`, STATE_WORDS[cell.state]];
  if (owner) parts.push(planned === "comes" ? `to ${owner}` : planned === "goes" ? `taken from ${owner}` : owner);
  if (mark?.rank !== undefined) parts.push(mark.rank === 0 ? "suits best" : "suits");
  else if (mark?.reasons?.[0]) parts.push(`does not suit: ${reasonText(mark.reasons[0])}`);
  return parts.join(", ");
}

export function Legend({ colours, names }: { colours: Map<string, number>; names: string[] }) {
  const states = ["running", "assigned", "free", "possible", "foreign", "drifted", "stuck"] as const;
  return (
    <div class="legend" aria-label="Legend" role="group">
      {names.map((name) => (
        <span key={name}><i class={`cell running c${colours.get(name) ?? 0}`} aria-hidden="true">{name[0]}</i>{name}</span>
      ))}
      {names.length ? <span class="gap" aria-hidden="true" /> : null}
      {states.map((state) => (
        <span key={state}><i class={`cell ${state} c7`} aria-hidden="true" />{STATE_WORDS[state]}</span>
      ))}
    </div>
  );
}
