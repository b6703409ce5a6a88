// What the page says of a VF and its standby.

import assert from "node:assert/strict";
import { test } from "node:test";
import type { AssignedVf } from "../../src/api/types.ts";
import { eventText, standbyText } from "../../src/model/words.ts";

const vf: AssignedVf = { pf: "0000:01:00.0", index: 0, name: "net0", class: "network", settings: {}, guest_may: [] };

test("a VF says what it falls back on, and why it did", () => {
  const pair = { role: "primary", partner: "net0-b", active: true } as const;
  assert.equal(standbyText(vf), null);
  assert.equal(standbyText({ ...vf, failover: pair }), "falls back on net0-b");
  assert.equal(standbyText({ ...vf, failover: { ...pair, role: "standby" } }), "standby of net0-b, and active");
  assert.equal(standbyText({ ...vf, standby_bridge: "br0" }), "falls back on bridge br0");
  const over = { since_ms: 1, why: { fault: { what: "its port has no link" } } };
  assert.equal(standbyText({ ...vf, standby_bridge: "br0", failed_over: over }), "failed over to bridge br0: its port has no link");
  assert.equal(standbyText({ ...vf, failover: pair, failed_over: { since_ms: 1, why: "asked" } }), "failed over to net0-b: asked for");
});

test("a machine that has halted is told with why, and what was done", () => {
  const event = { number: 1, time_ms: 0, partition: "web" };
  assert.equal(
    eventText({ ...event, event: "partition-halted", halt: "internal-error", faulty: ["0000:01:00.0"] }),
    "web has halted: internal-error, by an error of 0000:01:00.0",
  );
  assert.equal(eventText({ ...event, event: "partition-reset", after_ms: 4_400 }), "web had halted, and was reset after 4 s");
});
