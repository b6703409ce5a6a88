// xterm.js between a stream of output and a way to type: a chunk of its own, which only the console needs.
import { Terminal } from "@xterm/xterm";
import "@xterm/xterm/css/xterm.css";

/** Gives what closes it. What a guest prints is shown, and does nothing else: no titles, no links, no clipboard. */
export function open(place: HTMLElement, output: Promise<Response>, type: (text: string) => Promise<void>, failed: (error: unknown) => void): () => void {
  const terminal = new Terminal({
    cols: 100,
    rows: 26,
    fontSize: 13,
    fontFamily: "ui-monospace, 'DejaVu Sans Mono', monospace",
    convertEol: false,
    scrollback: 5000,
    screenReaderMode: true,
    theme: { background: "#101418", foreground: "#e4e8ec" },
  });
  terminal.open(place);
  fit(terminal, place);
  const observer = new ResizeObserver(() => fit(terminal, place));
  observer.observe(place);
  terminal.attachCustomKeyEventHandler((event) => {
    // A way out by keyboard alone.
    if (event.ctrlKey && event.shiftKey && event.key === "Escape") {
      place.closest("dialog")?.querySelector<HTMLButtonElement>("footer button")?.focus();
      return false;
    }
    return true;
  });
  let waiting = "";
  let sending = false;
  // What is typed is sent in its order, one request at a time.
  const send = async (): Promise<void> => {
    if (sending) return;
    sending = true;
    try {
      while (waiting) {
        const text = waiting.slice(0, 16_000);
        waiting = waiting.slice(text.length);
        await type(text);
      }
    } catch (error) {
      waiting = "";
      failed(error);
    } finally {
      sending = false;
    }
  };
  terminal.onData((text) => {
    waiting += text;
    void send();
  });
  let closed = false;
  void (async () => {
    try {
      const reader = (await output).body?.getReader();
      while (reader) {
        const { done, value } = await reader.read();
        if (done) break;
        await new Promise<void>((shown) => terminal.write(value, shown));
      }
      terminal.write("\r\n[the console has ended]\r\n");
    } catch (error) {
      if (!closed) failed(error);
    }
  })();
  terminal.focus();
  return () => {
    observer.disconnect();
    closed = true;
    terminal.dispose();
  };
}

function fit(terminal: Terminal, place: HTMLElement): void {
  const screen = place.querySelector<HTMLElement>(".xterm-screen");
  if (!screen?.offsetWidth) return;
  const width = screen.offsetWidth / terminal.cols;
  const columns = Math.max(20, Math.min(200, Math.floor((place.clientWidth - 24) / width)));
  if (columns !== terminal.cols) terminal.resize(columns, terminal.rows);
}
