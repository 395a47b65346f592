// The link that `stagecoach up` prints carries its code behind the '#', which browsers send to nobody.
function takeCode() {
  const code = decodeURIComponent(location.hash.slice(1));
  const form = document.getElementById("machine-form");
  if (!code || !form) return;
  history.replaceState(null, "", location.pathname + location.search);
  const field = form.elements.namedItem("code");
  field.value = code;
  field.closest(".field").hidden = true;
  form.querySelector("button").focus();
}

takeCode();
// The page may be open already when the link is followed.
addEventListener("hashchange", takeCode);
