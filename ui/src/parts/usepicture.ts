// The machine as it is drawn, from all that is known of it.
import { useMemo } from "preact/hooks";
import type { Inventory } from "../api/types.ts";
import { type Cell, colours, type Node, picture, type Port } from "../model/machine.ts";
import { useSignal } from "../model/signal.ts";
import { store } from "../model/store.ts";

const NONE: Inventory = { generation: 0, iommu: false, physical_functions: [] };

export interface Picture {
  nodes: Node[];
  names: string[];
  colours: Map<string, number>;
  find(key: string | null): { cell: Cell; port: Port } | null;
}

export function usePicture(more: string[] = []): Picture {
  const inventory = useSignal(store.inventory) ?? NONE;
  const partitions = useSignal(store.partitions);
  const drift = useSignal(store.drift);
  const stuck = useSignal(store.stuck);
  const nodes = useMemo(() => picture({ inventory, partitions, drift, stuck }), [inventory, partitions, drift, stuck]);
  const key = [...partitions.map((one) => one.name), ...more].sort().join();
  return useMemo(() => {
    const names = [...new Set(key.split(",").filter(Boolean))];
    const ports = new Map(nodes.flatMap((node) => node.adapters.flatMap((adapter) => adapter.ports.map((port) => [port.pf.address, port] as const))));
    return {
      nodes,
      names,
      colours: colours(names),
      find(cell) {
        const [pf = "", index = ""] = (cell ?? "").split("/");
        const port = ports.get(pf);
        const found = port?.cells[Number(index)];
        return cell && port && found ? { cell: found, port } : null;
      },
    };
  }, [nodes, key]);
}
