import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import type { Plan } from "../../src/api/types.ts";
import { diffOf } from "../../src/model/diff.ts";
import { guestMayOf, guestMayText } from "../../src/model/guestmay.ts";

const said = (plan: Plan): string[] => {
  const diff = diffOf(plan);
  return [...diff.functions, ...diff.partitions].map((line) => `${line.sign} ${line.what}: ${line.parts.join(", ")}`);
};

test("the plan that ioward's own tests read is said the same way", () => {
  const plan = JSON.parse(readFileSync("../crates/cli/tests/data/plan.json", "utf8")) as Plan;
  assert.deepEqual(said(plan), [
    "+ 0000:01:00.0: 2 VFs made",
    "+ VF 0 of 0000:01:00.0: nobody → web/net0, mac 52:54:00:aa:00:01, vlan 100",
    "~ web: off → runs",
  ]);
});

test("a setting is said with its old value", () => {
  const vf = { pf: "0000:01:00.0", index: 0 };
  const plan = { steps: [{ step: "configure-vf", vf, to: { vlan: 200 } }], before: [{ vf, settings: { vlan: 100 } }] } as unknown as Plan;
  assert.deepEqual(said(plan), ["~ VF 0 of 0000:01:00.0: vlan 100 → 200"]);
});

test("what a guest may change is written as it is read", () => {
  for (const text of ["mac; reset", "mac=52:54:00:*; vlan=100-110,200,prio=0-3", "max_tx_rate=<=500Mbit"]) assert.equal(guestMayText(guestMayOf(text)), text);
  assert.deepEqual(guestMayOf("max_tx_rate<=500Mbit"), { max_tx_rate: "<=500Mbit" });
});
