/** What a drag makes of a queue. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { idsAfterDrop } from "../../../src/stagecoach/portal/static/queue-order.js";

const IDS = ["a", "b", "c", "d"];

test("it goes before or behind what it was dropped on", () => {
  assert.deepEqual(idsAfterDrop(IDS, "d", "a", false), ["d", "a", "b", "c"]);
  assert.deepEqual(idsAfterDrop(IDS, "a", "d", true), ["b", "c", "d", "a"]);
  assert.deepEqual(idsAfterDrop(IDS, "a", "c", false), ["b", "a", "c", "d"]);
  assert.deepEqual(idsAfterDrop(IDS, "c", "a", true), ["a", "c", "b", "d"]);
});

test("nothing is asked where nothing changes, or where it waits no more", () => {
  assert.equal(idsAfterDrop(IDS, "a", "a", true), null);
  assert.equal(idsAfterDrop(IDS, "a", "b", false), null);
  assert.equal(idsAfterDrop(IDS, "b", "a", true), null);
  assert.equal(idsAfterDrop(IDS, "gone", "a", true), null);
  assert.equal(idsAfterDrop(IDS, "a", "gone", true), null);
});
