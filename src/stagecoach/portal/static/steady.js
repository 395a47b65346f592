// A press and its release meet the same element: while a pointer or a key is down in a piece of the page, that piece is not
// fetched anew under it. It comes with the next round.
let pressed = null;
const press = (event) => (pressed = event.target);
const release = () => (pressed = null);
for (const name of ["pointerdown", "keydown"]) addEventListener(name, press, { capture: true });
// After the click that the release makes.
for (const name of ["pointerup", "pointercancel", "keyup", "blur"]) addEventListener(name, () => setTimeout(release));
document.body.addEventListener("htmx:beforeSwap", ({ detail }) => {
  // What answers the press itself is another matter.
  if (detail.requestConfig.verb === "get" && pressed instanceof Node && detail.target.contains(pressed)) detail.shouldSwap = false;
});
