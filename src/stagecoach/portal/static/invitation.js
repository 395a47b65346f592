/**
 * An invitation's link carries its token behind the '#', which browsers send to nobody. It waits in this tab until the
 * person is signed in, which takes other pages, and goes into the form then.
 */

const KEPT = "stagecoach-invitation";

const token = decodeURIComponent(location.hash.slice(1));
if (token) {
  sessionStorage.setItem(KEPT, token);
  // Asked for by this page, and not by the mail with the link: so the browser sends the session's cookie.
  location.replace(location.pathname);
} else {
  fillIn();
}

function fillIn() {
  const field = document.getElementById("invitation-form")?.elements.namedItem("token");
  const kept = sessionStorage.getItem(KEPT);
  if (!field || !kept) return;
  sessionStorage.removeItem(KEPT);
  field.value = kept;
  field.form.querySelector("button").focus();
}
