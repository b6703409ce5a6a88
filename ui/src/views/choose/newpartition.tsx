// A partition that is not there yet: a machine, a domain of libvirt's, or a network namespace.
import { useState } from "preact/hooks";
import type { PartitionSpec } from "../../api/types.ts";

const NAME = /^[A-Za-z][A-Za-z0-9_-]{0,39}$/;

export function NewPartition({ all, done }: { all: PartitionSpec[]; done: (made: PartitionSpec | null) => void }) {
  // What another machine boots from is the best guess.
  const like = all.find((one) => one.boot)?.boot;
  const [name, setName] = useState("");
  const [kind, setKind] = useState<"boot" | "libvirt" | "netns">("boot");
  const [cpus, setCpus] = useState(1);
  const [memory, setMemory] = useState("512MiB");
  const [kernel, setKernel] = useState(like?.kernel ?? "");
  const [initrd, setInitrd] = useState(like?.initrd ?? "");
  const [cmdline, setCmdline] = useState(like?.cmdline ?? "");
  const [disk, setDisk] = useState("");
  const [other, setOther] = useState("");
  const [node, setNode] = useState("");
  const [autostart, setAutostart] = useState(false);
  const wrong = !NAME.test(name)
    ? "A name begins with a letter; then come letters, digits, - and _, 40 at most."
    : all.some((one) => one.name === name)
      ? "There is a partition of this name."
      : kind === "boot" && !kernel && !disk
        ? "A machine boots from a kernel or from a disk."
        : kind !== "boot" && !other
          ? "Say which one it is."
          : null;

  function make(): void {
    if (wrong) return;
    const made: PartitionSpec = { name, vf: [] };
    if (kind === "boot") {
      Object.assign(made, { cpus, memory, boot: Object.fromEntries(Object.entries({ kernel, initrd, cmdline, disk }).filter(([, value]) => value)) });
      if (autostart) made.autostart = true;
    } else {
      made[kind] = other;
    }
    if (node !== "") made.numa_node = Number(node);
    done(made);
  }

  return (
    <form class="form boxed" onSubmit={(event) => { event.preventDefault(); make(); }}>
      <label>Name <input value={name} required autoFocus onInput={(event) => setName(event.currentTarget.value.trim())} /></label>
      <label>What it is
        <select value={kind} onChange={(event) => setKind(event.currentTarget.value as typeof kind)}>
          <option value="boot">a machine of ioward's own</option>
          <option value="libvirt">a domain of libvirt's</option>
          <option value="netns">a network namespace</option>
        </select>
      </label>
      {kind === "boot" ? (
        <>
          <div class="two">
            <label>CPUs <input type="number" min={1} max={288} value={cpus} onInput={(event) => setCpus(Number(event.currentTarget.value) || 1)} /></label>
            <label>Memory <input value={memory} onInput={(event) => setMemory(event.currentTarget.value.trim())} /></label>
          </div>
          <label>Kernel <input value={kernel} placeholder="/boot/vmlinuz" onInput={(event) => setKernel(event.currentTarget.value.trim())} /></label>
          <label>Initrd <input value={initrd} onInput={(event) => setInitrd(event.currentTarget.value.trim())} /></label>
          <label>Kernel's command line <input value={cmdline} onInput={(event) => setCmdline(event.currentTarget.value)} /></label>
          <label>Disk <input value={disk} onInput={(event) => setDisk(event.currentTarget.value.trim())} /></label>
          <label class="check"><input type="checkbox" checked={autostart} onChange={(event) => setAutostart(event.currentTarget.checked)} />Starts with the host</label>
        </>
      ) : (
        <label>{kind === "libvirt" ? "Name or UUID of the domain" : "Name of the namespace (ip netns)"} <input value={other} onInput={(event) => setOther(event.currentTarget.value.trim())} /></label>
      )}
      <label>NUMA node <input type="number" min={0} value={node} placeholder="any" onInput={(event) => setNode(event.currentTarget.value)} /></label>
      {name && wrong ? <p class="problem-text" role="alert">{wrong}</p> : null}
      <div class="row">
        <button type="submit" class="primary" disabled={!!wrong}>Add to the choice</button>
        <button type="button" onClick={() => done(null)}>Leave it</button>
      </div>
    </form>
  );
}
