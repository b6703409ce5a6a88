// Events as they come: server-sent events, or JSON lines from a daemon that is older. A connection that is lost is made
// again, where it was left.
import type { Event } from "./types.ts";

export type StreamState = { state: "connecting" | "live" } | { state: "lost"; retryAt: number; why: string };

interface Hooks {
  events(events: Event[]): void;
  state(state: StreamState): void;
}

/** A server that says nothing at all for so long is gone: it sends a comment every 15 s. */
const SILENCE_MS = 45_000;
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 15_000;

/** Splits server-sent events or JSON lines into events; what is not complete yet is kept. */
export class EventParser {
  private rest = "";
  private data: string[] = [];
  /** The run of the daemon that the latest `id` names. */
  epoch: string | null = null;
  private readonly sse: boolean;

  constructor(sse: boolean) {
    this.sse = sse;
  }

  push(text: string): Event[] {
    const lines = (this.rest + text).split("\n");
    this.rest = lines.pop() ?? "";
    const found: Event[] = [];
    for (const raw of lines) {
      const line = raw.replace(/\r$/, "");
      if (!this.sse) {
        if (line) found.push(JSON.parse(line) as Event);
      } else if (line.startsWith("id:")) {
        this.epoch = /^id: ?(\d+)-\d+$/.exec(line)?.[1] ?? this.epoch;
      } else if (line.startsWith("data:")) {
        this.data.push(line.slice(5).replace(/^ /, ""));
      } else if (line === "" && this.data.length) {
        found.push(JSON.parse(this.data.join("\n")) as Event);
        this.data = [];
      }
    }
    return found;
  }
}

/** Follows the events until `stop` is called. */
export function follow(hooks: Hooks): { stop(): void; retry(): void } {
  let last = 0;
  let epoch: string | null = null;
  let wait = FIRST_WAIT_MS;
  let stopped = false;
  let abort = new AbortController();
  let wake = (): void => {};

  async function once(): Promise<void> {
    abort = new AbortController();
    const query = epoch ? `&since=${last}&epoch=${epoch}` : "";
    const headers: Record<string, string> = { accept: "text/event-stream" };
    if (epoch) headers["last-event-id"] = `${epoch}-${last}`;
    const answer = await fetch(`/v1/events?follow=true${query}`, { headers, signal: abort.signal, cache: "no-store" });
    if (answer.status === 401) throw new Error("session");
    if (!answer.ok || !answer.body) throw new Error(`the answer was ${answer.status}`);
    epoch = answer.headers.get("ioward-epoch") ?? epoch;
    wait = FIRST_WAIT_MS;
    hooks.state({ state: "live" });
    const sse = answer.headers.get("content-type")?.startsWith("text/event-stream") ?? false;
    const parser = new EventParser(sse);
    const decoder = new TextDecoder();
    const reader = answer.body.getReader();
    for (;;) {
      // Lines of an older daemon have no sign of life between them.
      const silence = sse ? setTimeout(() => abort.abort(), SILENCE_MS) : undefined;
      const { done, value } = await reader.read();
      clearTimeout(silence);
      if (done) throw new Error("the connection was closed");
      const events = parser.push(decoder.decode(value, { stream: true }));
      epoch = parser.epoch ?? epoch;
      for (const event of events) {
        if (event.event === "restarted") {
          epoch = String(event.epoch ?? epoch);
          last = 0;
        }
        last = Math.max(last, event.number);
      }
      if (events.length) hooks.events(events);
    }
  }

  (async () => {
    while (!stopped) {
      try {
        hooks.state({ state: "connecting" });
        await once();
      } catch (error) {
        if (stopped) return;
        const why = error instanceof Error ? error.message : String(error);
        hooks.state({ state: "lost", retryAt: Date.now() + wait, why });
        await new Promise<void>((resolve) => {
          wake = resolve;
          setTimeout(resolve, wait);
        });
        wait = Math.min(wait * 2, LONGEST_WAIT_MS);
      }
    }
  })();

  return {
    stop() {
      stopped = true;
      abort.abort();
    },
    retry() {
      wait = FIRST_WAIT_MS;
      wake();
    },
  };
}
