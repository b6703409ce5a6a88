import assert from "node:assert/strict";
import { test } from "node:test";
import { fromToml, toToml } from "../../src/model/toml.ts";
import type { Spec } from "../../src/api/types.ts";

const plain = (value: unknown): unknown => JSON.parse(JSON.stringify(value));

const SPEC: Spec = {
  version: 1,
  adapter: [{ pf: "0000:01:00.0", vfs: 4 }, { pf: "0000:02:00.0", vfs: "max" }],
  partition: [
    {
      name: "web",
      cpus: 2,
      boot: { kernel: "/boot/vmlinuz", cmdline: 'console=ttyS0 say="hi\\n"' },
      vf: [
        { name: "net0", class: "network", vlan: { id: 100, protocol: "802.1ad", priority: 3 }, trust: true, needs: ["trust", "vlan"] },
        { name: "net1", class: "network", apart_from: [{ vf: "net0", by: "numa-node", prefer: true }], guest_may: { vlan: "100-110", reset: true } },
      ],
    },
    { name: "blue", netns: { pid_file: "/run/web.pid" } },
  ],
};

test("a Spec that was saved is loaded as the same", () => {
  assert.deepEqual(plain(fromToml(toToml(SPEC))), plain(SPEC));
});

test("a Spec as docs/spec.md has it is read", () => {
  const spec = fromToml(`version = 1   # the only one
[[adapter]]
pf  = "0000:01:00.0"
vfs = 4

[[partition]]
name   = "web"
boot   = { kernel = 'vmlinuz', initrd = "initrd.img" }

[[partition.vf]]
name  = "net0"
class = "network"
guest_may = ["mac",
  "reset", # and no more
]

[[partition.vf]]
name = "disk0"
class = "nvme"
`);
  assert.deepEqual(spec.partition?.[0]?.vf?.map((vf) => vf.name), ["net0", "disk0"]);
  assert.deepEqual(spec.partition?.[0]?.vf?.[0]?.guest_may, ["mac", "reset"]);
  assert.equal(spec.partition?.[0]?.boot?.kernel, "vmlinuz");
});

for (const [text, line] of [["version = ", 1], ["version = 1\n[[partition]\n", 2], ["a = 1\na = 2", 2], ['a = "open', 1], ["a = [1 2]", 1], ["a = 1 b = 2", 1]] as const) {
  test(`what is no TOML is refused with its line: ${JSON.stringify(text)}`, () => {
    assert.throws(() => fromToml(text), new RegExp(`^Error: line ${line}: expected`));
  });
}

test("a key that objects have of themselves is a key like any other", () => {
  assert.equal(({} as { polluted?: boolean }).polluted, undefined);
  fromToml("[__proto__]\npolluted = true");
  assert.equal(({} as { polluted?: boolean }).polluted, undefined);
});
