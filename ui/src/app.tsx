// The page around its views: what it is about, where one can go, and whether the host answers.
import type { ComponentType } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { store } from "./model/store.ts";
import { useSignal } from "./model/signal.ts";
import { counted } from "./model/words.ts";
import { ProblemBox } from "./parts/problem.tsx";
import { route, VIEWS, type View } from "./parts/route.ts";
import { ChooseView } from "./views/choose.tsx";
import { HealthView } from "./views/health.tsx";
import { HistoryView } from "./views/history.tsx";
import { MachineView } from "./views/machine.tsx";
import { PartitionsView } from "./views/partitions.tsx";

const COMPONENTS: Record<View, ComponentType> = {
  machine: MachineView,
  choose: ChooseView,
  partitions: PartitionsView,
  history: HistoryView,
  health: HealthView,
};

export function App({ retry }: { retry: () => void }) {
  const { view } = useSignal(route);
  const inventory = useSignal(store.inventory);
  const trouble = useSignal(store.trouble);
  const drift = useSignal(store.drift);
  const stuck = useSignal(store.stuck);
  const main = useRef<HTMLElement>(null);
  const shown = useRef(view);
  useEffect(() => {
    const title = VIEWS.find((one) => one.id === view)?.title ?? "";
    document.title = `${title} – ioward`;
    if (shown.current !== view) main.current?.focus();
    shown.current = view;
  }, [view]);
  const Shown = COMPONENTS[view];
  const wrong = drift.length + stuck.size;
  return (
    <>
      <a class="skip" href="#main" onClick={(event) => { event.preventDefault(); main.current?.focus(); }}>Skip to the content</a>
      <header class="top">
        <span class="brand"><img src="./icon.svg" alt="" width="22" height="22" />ioward</span>
        <nav aria-label="Views">
          {VIEWS.map((one) => (
            <a key={one.id} href={`#/${one.id}`} aria-current={one.id === view ? "page" : undefined}>
              {one.title}
              {one.id === "health" && wrong ? <span class="count" aria-label={counted(wrong, "difference")}>{wrong}</span> : null}
            </a>
          ))}
        </nav>
        <Status retry={retry} />
      </header>
      <Lost retry={retry} />
      <main id="main" ref={main} tabIndex={-1}>
        {inventory ? <Shown /> : trouble ? <ProblemBox error={trouble} /> : <p class="quiet wait">Looking at the host …</p>}
      </main>
      <Said />
    </>
  );
}

function Said() {
  return <div class="sr" role="status" aria-live="polite">{useSignal(store.said)}</div>;
}

function Status({ retry }: { retry: () => void }) {
  const stream = useSignal(store.stream);
  const who = useSignal(store.who);
  return (
    <div class="status">
      <span class="quiet role">{who?.role}</span>
      <button type="button" class={`live ${stream.state}`} disabled={stream.state !== "lost"} onClick={retry}>
        <span class="led" aria-hidden="true" />
        {stream.state === "live" ? "live" : stream.state === "lost" ? "lost" : "connecting"}
      </button>
    </div>
  );
}

/** While there is no connection, the page says so and when it tries again. */
function Lost({ retry }: { retry: () => void }) {
  const stream = useSignal(store.stream);
  const [now, setNow] = useState(Date.now());
  const lost = stream.state === "lost";
  useEffect(() => {
    if (!lost) return;
    const timer = setInterval(() => setNow(Date.now()), 1000);
    return () => clearInterval(timer);
  }, [lost]);
  if (stream.state !== "lost") return null;
  const seconds = Math.max(0, Math.ceil((stream.retryAt - now) / 1000));
  const ended = stream.why === "session";
  return (
    <div class="lost">
      <span>
        {ended
          ? "This session has ended. Run ioward ui again and open the address that it prints."
          : `The connection to the management partition is lost. What is shown is as it was last seen. ${seconds ? `Tried again in ${seconds} s.` : "Trying …"}`}
      </span>
      <button type="button" onClick={retry}>Try now</button>
    </div>
  );
}
