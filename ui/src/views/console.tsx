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
    void (async () => {
      try {
        const [{ open }, answer] = await Promise.all([import("./terminal.ts"), request("GET", api.consoleOf(partition))]);
        const body = answer.body;
        if (ended || !place.current || !body) return void body?.cancel();
        stop = open(place.current, body, (text) => api.type(partition, text), setError);
      } catch (problem) {
        if (!ended) setError(problem);
      }
    })();
    return () => {
      ended = true;
      stop();
    };
  }, [partition]);
  return (
    <Dialog title={`Console of ${partition}`} onClose={onClose} wide>
      {error ? <ProblemBox error={error} /> : null}
      <div ref={place} class="terminal" aria-label={`Console of ${partition}`} role="group" />
      <footer>
        <span class="quiet">What is shown begins now; press Enter for a prompt. Ctrl+Shift+Escape leaves the terminal.</span>
        <button type="button" onClick={onClose}>Close</button>
      </footer>
    </Dialog>
  );
}
