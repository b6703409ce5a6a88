// The machine as a picture: nodes, adapters, ports, and a cell for each VF.
import { useState } from "preact/hooks";
import { useSignal } from "../model/signal.ts";
import { store } from "../model/store.ts";
import { counted } from "../model/words.ts";
import { CellDetails } from "../parts/details.tsx";
import { Legend, MachineGrid } from "../parts/grid.tsx";
import { usePicture } from "../parts/usepicture.ts";

export function MachineView() {
  const picture = usePicture();
  const inventory = useSignal(store.inventory);
  const [looked, setLooked] = useState<string | null>(null);
  const [pinned, setPinned] = useState<string | null>(null);
  const found = picture.find(looked ?? pinned);
  const pfs = inventory?.physical_functions ?? [];
  const held = pfs.reduce((sum, pf) => sum + pf.vfs_assigned, 0);
  const free = pfs.reduce((sum, pf) => sum + pf.vfs_available, 0);
  return (
    <div class="with-side">
      <div>
        <div class="title">
          <h1>Machine</h1>
          <p class="quiet">
            {counted(pfs.length, "port")} with SR-IOV, {counted(held, "VF")} held by partitions, {free} to give{inventory?.iommu ? "" : "; no IOMMU is on"}
          </p>
        </div>
        <Legend colours={picture.colours} names={picture.names} />
        {pfs.length ? (
          <MachineGrid
            nodes={picture.nodes}
            colours={picture.colours}
            selected={pinned}
            onLook={(cell) => setLooked(cell?.key ?? null)}
            onPick={(cell) => { setPinned(pinned === cell.key ? null : cell.key); if (pinned === cell.key) setLooked(null); }}
            hint="Arrow keys move between virtual functions, Page Up and Page Down between ports."
          />
        ) : (
          <p class="quiet">This host has no adapter with SR-IOV. <a href="#/health">Health</a> says what it needs.</p>
        )}
      </div>
      <aside class="side" aria-label="The virtual function that is looked at">
        <CellDetails cell={found?.cell ?? null} port={found?.port ?? null} />
      </aside>
    </div>
  );
}
