// Tells screen readers when what is shown has changed; a piece of a page that is only fetched anew says nothing.
const place = document.getElementById("announcement");
const shown = () => document.querySelector("[data-announce]")?.dataset.announce ?? "";
let known = shown();
document.body.addEventListener("htmx:afterSwap", () => {
  if (shown() === known) return;
  known = shown();
  place.textContent = known;
});
