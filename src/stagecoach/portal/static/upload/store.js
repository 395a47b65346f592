/** Puts one part straight to the store, as a slice of the file that the browser streams from disk. */

import { aborted, PartRefused } from "./failures.js";

// A connection that slept with its laptop never tells; a store that has all bytes may take a while to answer.
const SILENT_SECONDS = 120;

/** Resolves when the store has it. `tell(bytes)` says how much is sent. Throws PartRefused or AbortError. */
export function putPart(url, slice, { signal, tell }) {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(aborted());
    const request = new XMLHttpRequest();
    let silence;
    const listen = () => {
      clearTimeout(silence);
      silence = setTimeout(() => request.abort(), SILENT_SECONDS * 1000);
    };
    const stop = () => request.abort();
    const end = (settle, value) => {
      clearTimeout(silence);
      signal.removeEventListener("abort", stop);
      settle(value);
    };
    request.upload.addEventListener("progress", (event) => {
      listen();
      tell(event.loaded);
    });
    request.addEventListener("load", () => {
      if (request.status >= 200 && request.status < 300) end(resolve);
      else end(reject, new PartRefused(request.status));
    });
    request.addEventListener("error", () => end(reject, new PartRefused(0)));
    request.addEventListener("abort", () => end(reject, signal.aborted ? aborted() : new PartRefused(0)));
    signal.addEventListener("abort", stop);
    request.open("PUT", url);
    listen();
    request.send(slice);
  });
}
