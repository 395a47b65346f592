/**
 * Uploads of the files page: fills `<section id="upload" data-system data-path data-user>`.
 *
 * Three lists under each other: what was interrupted, what the browser sends (Uppy), what is on its way to the system.
 * Uppy comes when the page stands, so that the page itself is light.
 */

import { clock } from "./upload/clock.js";
import { Digests } from "./upload/digests.js";
import { element } from "./upload/elements.js";
import { Following } from "./upload/following.js";
import { LandingList } from "./upload/landing-list.js";
import { Lanes } from "./upload/lanes.js";
import { PartUpload } from "./upload/part-upload.js";
import { Records } from "./upload/records.js";
import { Service } from "./upload/service.js";
import { putPart } from "./upload/store.js";
import { UnfinishedList } from "./upload/unfinished-list.js";
import { UnfinishedUploads } from "./upload/unfinished.js";

// Of the six connections that a browser opens to one store, some are for the questions it asks before it puts.
const PARTS_AT_ONCE = 4;

const section = document.getElementById("upload");
if (section) open(section);

async function open(section) {
  const csrf = document.querySelector("main[data-csrf]").dataset.csrf;
  const tools = {
    ...{ service: new Service(csrf), records: new Records(), digests: new Digests(), putPart, clock },
    lanes: new Lanes(PARTS_AT_ONCE),
  };
  const place = () => ({
    owner: section.dataset.user ?? "",
    system: section.dataset.system,
    directory: section.dataset.path,
    account: section.querySelector("[name=account]")?.value ?? null,
  });
  const pageOf = (transfer) => `/portal/transfers/${encodeURIComponent(transfer.id)}`;
  const status = element("p", { role: "status", class: "unseen" });
  const say = (sentence) => (status.textContent = sentence);
  const leaving = new AbortController();
  const unfinished = new UnfinishedUploads(tools.records, tools.service, tools.digests, place);
  const landing = new LandingList(new Following(tools.service, clock), pageOf, say);
  let addNow = null;
  const interrupted = new UnfinishedList(unfinished, (entry) => addNow(entry).then(() => interrupted.refresh()), say);
  const board = document.getElementById("upload-place") ?? element("div");
  board.classList.add("upload-board");
  section.append(interrupted.element, board, landing.element, status);

  const onEnd = () => refreshListing(leaving.signal);
  const options = {
    unfinished,
    pageOf,
    begin: (record, blob, tell) => new PartUpload(record, blob, tools, tell),
    onTaken: (transfer) => landing.show(transfer, onEnd, leaving.signal),
    onTrouble: (file, error) => say(`${file.name}: ${error.message}`),
  };
  try {
    const [{ openDashboard }] = await Promise.all([
      import("./upload/dashboard.js"),
      styled("vendor/uppy.css"),
      styled("upload.css"),
    ]);
    board.replaceChildren();
    const opened = openDashboard(board, options);
    addNow = opened.addNow;
    window.addEventListener("beforeunload", (event) => opened.uploader.isBusy && event.preventDefault());
  } catch (error) {
    console.error(error);
    board.replaceChildren(
      element(
        "p",
        { class: "notice bad" },
        "Uploads are missing here: a script of this page did not load. Load the page again; if that does not help, whoever installed this service runs make portal.",
      ),
    );
    return;
  }
  window.addEventListener("pagehide", () => leaving.abort());
  await interrupted.refresh(leaving.signal);
}

/** The list of files below, as the server renders it now. */
async function refreshListing(signal) {
  const listing = document.getElementById("listing");
  if (!listing) return;
  const answer = await fetch(location.href, { signal });
  const found = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("listing");
  if (answer.ok && found) listing.replaceChildren(...found.childNodes);
}

/** Resolves when the style sheet is there. */
function styled(address) {
  return new Promise((resolve, reject) => {
    const href = new URL(address, import.meta.url).href;
    const link = element("link", {
      rel: "stylesheet",
      href,
      onload: resolve,
      onerror: () => reject(new Error(`${href} is missing`)),
    });
    document.head.append(link);
  });
}
