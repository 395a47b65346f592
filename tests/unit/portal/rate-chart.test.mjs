/** Steps of the chart's scale. */
import assert from "node:assert/strict";
import { test } from "node:test";

globalThis.document = {
  createElementNS: () => ({ setAttribute() {} }),
  createElement: () => ({ append() {}, setAttribute() {} }),
};
const { roundUp } = await import("../../../src/stagecoach/portal/static/rate-chart.js");
const { percent } = await import("../../../src/stagecoach/portal/static/upload/elements.js");
const { sizeText } = await import("../../../src/stagecoach/portal/static/upload/size-text.js");

test("the scale ends at a round figure above the peak", () => {
  for (const [value, step] of [
    [1, 1],
    [3, 5],
    [101, 200],
    [5e8, 5e8],
    [5.1e8, 1e9],
  ])
    assert.equal(roundUp(value), step);
});

test("sizes are as people say them", () => {
  for (const [bytes, text] of [
    [0, "0 B"],
    [999, "999 B"],
    [1000, "1.00 kB"],
    [999_600, "1.00 MB"],
    [12_345_678, "12.3 MB"],
    [5e11, "500 GB"],
  ]) {
    assert.equal(sizeText(bytes), text);
  }
});

test("a hundred percent is all of it", () => {
  assert.equal(percent(999, 1000), 99);
  assert.equal(percent(1000, 1000), 100);
  assert.equal(percent(0, 0), 100);
});
