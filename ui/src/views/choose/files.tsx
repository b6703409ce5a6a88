// The choice as a Spec: saved to a file as TOML or JSON, and loaded from one.
import { useRef, useState } from "preact/hooks";
import type { Spec } from "../../api/types.ts";
import { choice } from "../../model/choice.ts";
import { wholeSpec } from "../../model/draft.ts";
import { say, store } from "../../model/store.ts";
import { fromToml, toToml } from "../../model/toml.ts";
import { Dialog } from "../../parts/dialog.tsx";

/** The daemon takes no larger one. */
const MOST = 1 << 20;

export function Files({ load }: { load: (spec: Spec) => void }) {
  const input = useRef<HTMLInputElement>(null);
  const [saving, setSaving] = useState(false);
  const [wrong, setWrong] = useState<string | null>(null);

  async function read(file: File | undefined): Promise<void> {
    if (!file) return;
    try {
      if (file.size > MOST) throw new Error("a Spec has at most 1 MiB");
      const text = await file.text();
      const spec = text.trimStart().startsWith("{") ? (JSON.parse(text) as Spec) : fromToml(text);
      if (spec.version !== 1) throw new Error("it does not say version = 1");
      load(spec);
      say(`${file.name} is loaded`);
    } catch (error) {
      setWrong(`${file.name}: ${error instanceof Error ? error.message : String(error)}`);
    }
    if (input.current) input.current.value = "";
  }

  return (
    <>
      <button type="button" onClick={() => setSaving(true)}>Save …</button>
      <button type="button" onClick={() => input.current?.click()}>Load …</button>
      <input ref={input} type="file" class="sr" tabIndex={-1} aria-label="Spec to load" accept=".toml,.json" onChange={(event) => void read(event.currentTarget.files?.[0])} />
      {saving ? <SaveDialog onClose={() => setSaving(false)} /> : null}
      {wrong ? (
        <Dialog title="This is no Spec" onClose={() => setWrong(null)}>
          <p>{wrong}</p>
          <footer><button type="button" class="primary" onClick={() => setWrong(null)}>Close</button></footer>
        </Dialog>
      ) : null}
    </>
  );
}

function SaveDialog({ onClose }: { onClose: () => void }) {
  const spec = wholeSpec(store.spec.value ?? { version: 1 }, choice.draft.value);
  const toml = toToml(spec);
  function save(name: string, text: string): void {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text]));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    onClose();
  }
  return (
    <Dialog title="The choice as a Spec" onClose={onClose} wide>
      <p class="quiet">All that is held, with your edits. <code>ioward apply -f FILE</code> takes it as well.</p>
      <pre tabIndex={0} aria-label="Spec">{toml}</pre>
      <footer>
        <button type="button" onClick={() => void navigator.clipboard.writeText(toml).then(() => say("Copied"))}>Copy</button>
        <span class="gap" />
        <button type="button" onClick={() => save("ioward.json", `${JSON.stringify(spec, null, 2)}\n`)}>Save as JSON</button>
        <button type="button" class="primary" onClick={() => save("ioward.toml", toml)}>Save as TOML</button>
      </footer>
    </Dialog>
  );
}
