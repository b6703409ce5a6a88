import assert from "node:assert/strict";
import { test } from "node:test";
import { chosenOwners, isEmpty, NOTHING, put, rebased, specOf, wholeSpec, withCount, without, withoutRequest } from "../../src/model/draft.ts";
import type { Inventory, Spec } from "../../src/api/types.ts";

const PF = "0000:01:00.0";
const base: Spec = {
  version: 1,
  adapter: [{ pf: PF, vfs: 4 }],
  partition: [{ name: "db", vf: [{ name: "net0", class: "network" }] }, { name: "web", vf: [{ name: "net0", class: "network", pf: PF }] }],
};

test("a VF that is put is one more request, at its place", () => {
  const { draft, request } = put(base, NOTHING, "web", { pf: PF, index: 2 }, "network", null);
  assert.equal(request, "net1");
  assert.deepEqual(specOf(draft).partition?.map((one) => one.name), ["web"]);
  assert.deepEqual(specOf(draft).partition?.[0]?.vf?.[1], { name: "net1", class: "network", pf: PF, index: 2 });
  assert.equal(specOf(draft).adapter, undefined);
});

test("a request that is picked is moved, and keeps what it asks for", () => {
  const { draft } = put(base, NOTHING, "web", { pf: PF, index: 3 }, "network", "net0");
  assert.deepEqual(specOf(draft).partition?.[0]?.vf, [{ name: "net0", class: "network", pf: PF, index: 3 }]);
});

test("what is taken out again is no edit", () => {
  const { draft, request } = put(base, NOTHING, "web", { pf: PF, index: 2 }, "network", null);
  assert.ok(isEmpty(withoutRequest(base, draft, "web", request)));
});

test("an edit that somebody else has made too is none any more", () => {
  const { draft } = put(base, NOTHING, "web", { pf: PF, index: 2 }, "network", null);
  const theirs: Spec = { ...base, partition: wholeSpec(base, draft).partition };
  assert.ok(isEmpty(rebased(theirs, draft)));
});

test("an edit that was applied is none any more, and a later one is", () => {
  const { draft } = put(base, NOTHING, "web", { pf: PF, index: 2 }, "network", null);
  const later = withCount(base, draft, PF, 7);
  assert.deepEqual(without(later, draft), withCount(base, NOTHING, PF, 7));
});

test("what is empty is as good as left out", () => {
  const held: Spec = { version: 1, partition: [{ name: "web", vf: [{ name: "net0", class: "network", pf: PF, guest_may: {} }] }] };
  assert.ok(isEmpty(rebased(held, { adapters: {}, partitions: { web: { name: "web", vf: [{ name: "net0", class: "network", pf: PF }], autostart: false } } })));
});

test("the number of VFs is an edit only when it is another", () => {
  assert.ok(isEmpty(withCount(base, NOTHING, PF, 4)));
  assert.deepEqual(specOf(withCount(base, NOTHING, PF, 7)), { version: 1, adapter: [{ pf: PF, vfs: 7 }] });
});

test("a VF that is moved leaves its cell", () => {
  const inventory = { physical_functions: [{ address: PF, virtual_functions: [{ index: 0, address: "0000:01:10.0", owner: "web/net0" }] }] } as unknown as Inventory;
  assert.deepEqual([...chosenOwners(base, NOTHING, inventory)], [[`${PF}/0`, "web/net0"]]);
  const { draft } = put(base, NOTHING, "web", { pf: PF, index: 3 }, "network", "net0");
  assert.deepEqual([...chosenOwners(base, draft, inventory)], [[`${PF}/3`, "web/net0"]]);
});
