// The serial console of a partition. The terminal is loaded when one is opened first.
import { useEffect, useRef, useState } from "preact/hooks";
import { api, request } from "../api/client.ts";
import { Dialog } from "../parts/dialog.tsx";
import { ProblemBox } from "../parts/problem.tsx";

export function ConsoleDialog({ partition, onClose }: { partition: string; onClose: () => void }) {
  const place = useRef<HTMLDivElement>(null);
  const [error, setError] = useState<unknown>(null);
  useEffect(() => {
    let ended = false;
    let stop = (): void => {};
    const abort = new AbortController();
    const output = request("GET", api.consoleOf(partition), undefined, {}, abort.signal);
    const failed = (problem: unknown): void => { if (!ended) setError(problem); };
    import("./terminal.ts").then(({ open }) => {
      if (!ended && place.current) stop = open(place.current, output, (text) => api.type(partition, text), failed);
    }, failed);
    return () => {
      ended = true;
      stop();
      abort.abort();
    };
  }, [partition]);
  return (
    <Dialog title={`Console of ${partition}`} onClose={onClose} wide>
      {error ? <ProblemBox error={error} /> : null}
      <div ref={place} class="console" aria-label={`Console of ${partition}`} role="group" />
      <footer>
        <span class="quiet">What is shown begins now; press Enter for a prompt. Ctrl+Shift+Escape leaves the terminal.</span>
        <button type="button" onClick={onClose}>Close</button>
      </footer>
    </Dialog>
  );
}
