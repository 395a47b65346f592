// The link that `stagecoach up` prints carries its code behind the '#', which browsers send to nobody.
const code = decodeURIComponent(location.hash.slice(1));
if (code) {
  history.replaceState(null, "", location.pathname + location.search);
  const form = document.getElementById("machine-form");
  const field = form.elements.namedItem("code");
  field.value = code;
  field.closest(".field").hidden = true;
  form.querySelector("button").focus();
}
