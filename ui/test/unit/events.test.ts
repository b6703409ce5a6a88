import assert from "node:assert/strict";
import { test } from "node:test";
import { EventParser } from "../../src/api/stream.ts";
import type { Event } from "../../src/api/types.ts";
import { stuckAfter } from "../../src/model/machine.ts";
import { runsAfter } from "../../src/model/runs.ts";

const event = (number: number, kind: string, more: Partial<Event> = {}): Event => ({ number, time_ms: number, event: kind, ...more });

test("server-sent events are read, however they are cut", () => {
  const text = ': alive\n\nid: 77-3\nevent: plan-done\ndata: {"number":3,"time_ms":1,"event":"plan-done","plan":2}\n\n';
  for (let cut = 0; cut <= text.length; cut += 1) {
    const parser = new EventParser(true);
    const found = [...parser.push(text.slice(0, cut)), ...parser.push(text.slice(cut))];
    assert.deepEqual(found.map((one) => one.number), [3]);
    assert.equal(parser.epoch, "77");
  }
});

test("lines of an older daemon are read, however they are cut", () => {
  const text = '{"number":1,"time_ms":1,"event":"host-booted"}\n{"number":2,"time_ms":1,"event":"host-booted"}\n';
  for (let cut = 0; cut <= text.length; cut += 1) {
    const parser = new EventParser(false);
    assert.deepEqual([...parser.push(text.slice(0, cut)), ...parser.push(text.slice(cut))].map((one) => one.number), [1, 2]);
  }
});

test("a step that fails rolls back those before it, and is seen as that", () => {
  const plan = 4;
  const told = [
    event(1, "plan-started", { plan, steps: 2 }),
    event(2, "step-started", { plan, step: 1, what: { step: "start-partition", partition: "web" } }),
    event(3, "step-done", { plan, step: 1 }),
    event(4, "step-failed", { plan, step: 2, error: "no link" }),
  ];
  let runs = runsAfter(new Map(), told);
  assert.equal(runs.get(plan)?.state, "rolls-back");
  runs = runsAfter(runs, [event(5, "step-undone", { plan, step: 1 }), event(6, "plan-failed", { plan, error: "no link", undone: true })]);
  const run = runs.get(plan);
  assert.equal(run?.state, "rolled-back");
  assert.deepEqual(run?.steps.map((step) => [step.text, step.state]), [["start partition web", "undone"], ["step 2", "failed"]]);
});

test("an adapter is stuck until it answers", () => {
  assert.deepEqual([...stuckAfter([event(1, "adapter-stuck", { pf: "a" }), event(2, "adapter-stuck", { pf: "b" }), event(3, "adapter-answers", { pf: "a" })])], ["b"]);
});
