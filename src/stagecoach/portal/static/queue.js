/**
 * The queue of a node: what waits can be dragged to another place. The arrows beside it do the same, with any keyboard.
 * While something is dragged, the page is not fetched anew under the hand.
 */

import { idsAfterDrop } from "./queue-order.js";

const now = document.getElementById("now");
let dragged = null;

const rowOf = (event) => event.target.closest?.("li[data-waits]");

now.addEventListener("dragstart", (event) => {
  dragged = rowOf(event);
  if (!dragged) return;
  event.dataTransfer.effectAllowed = "move";
  event.dataTransfer.setData("text/plain", dragged.dataset.command);
  dragged.classList.add("dragged");
});

now.addEventListener("dragover", (event) => {
  const row = rowOf(event);
  if (!dragged || !row) return;
  event.preventDefault();
  mark(row, isBelowMiddle(row, event));
});

now.addEventListener("drop", (event) => {
  const row = rowOf(event);
  if (!dragged || !row) return;
  event.preventDefault();
  const waiting = [...now.querySelectorAll("li[data-waits]")].map((each) => each.dataset.command);
  const ids = idsAfterDrop(waiting, dragged.dataset.command, row.dataset.command, isBelowMiddle(row, event));
  finish();
  if (!ids) return;
  const form = document.getElementById("order");
  form.elements.namedItem("ids").value = ids.join(",");
  form.requestSubmit();
});

now.addEventListener("dragend", finish);
document.body.addEventListener("htmx:beforeSwap", (event) => {
  if (dragged) event.detail.shouldSwap = false;
});

// What was pressed and did not happen is said. Questions of the page itself are asked again by themselves.
document.body.addEventListener("htmx:sendError", (event) => {
  if (isChange(event)) complain("The service could not be reached; nothing was changed. Try again in a moment.");
});
document.body.addEventListener("htmx:responseError", (event) => {
  if (isChange(event)) complain("The service refused this; load the page again to see how the node is now.");
});

const isChange = (event) => event.detail.requestConfig?.verb === "post";

function complain(sentence) {
  const said = document.createElement("p");
  said.className = "notice bad";
  said.textContent = sentence;
  document.getElementById("told").replaceChildren(said);
}

function mark(row, isBelow) {
  for (const each of now.querySelectorAll(".before, .behind")) each.classList.remove("before", "behind");
  row?.classList.add(isBelow ? "behind" : "before");
}

function finish() {
  dragged?.classList.remove("dragged");
  dragged = null;
  mark(null);
}

function isBelowMiddle(row, event) {
  const { top, height } = row.getBoundingClientRect();
  return event.clientY > top + height / 2;
}
