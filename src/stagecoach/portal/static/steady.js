// A press and its release meet the same element: while a pointer or a key is down in a piece of the page, that piece is not
// fetched anew under it. It comes with the next round.
let pressed = null;
let pressedAt = 0;
const LONGEST_PRESS_MILLISECONDS = 5000;
const press = (event) => {
  pressed = event.target;
  pressedAt = performance.now();
};
const release = () => (pressed = null);
for (const name of ["pointerdown", "keydown"]) addEventListener(name, press, { capture: true });
// After the click that the release makes. A menu of the browser's takes the release to itself, and so does a drag.
for (const name of ["pointerup", "pointercancel", "keyup", "blur", "contextmenu", "dragend"]) addEventListener(name, () => setTimeout(release));
document.body.addEventListener("htmx:beforeSwap", ({ detail }) => {
  const isHeld = pressed instanceof Node && performance.now() - pressedAt < LONGEST_PRESS_MILLISECONDS;
  // What answers the press itself is another matter.
  if (detail.requestConfig.verb === "get" && isHeld && detail.target.contains(pressed)) detail.shouldSwap = false;
});
