/** Digests slices of files away from the page: reads them piece by piece, so that memory stays flat. */

import { createMD5 } from "../vendor/md5.js";

const PIECE_BYTES = 4 * 1024 * 1024;
const ready = createMD5();

self.addEventListener("message", async ({ data: { slice } }) => {
  try {
    const md5 = await ready;
    md5.init();
    for (let at = 0; at < slice.size; at += PIECE_BYTES) {
      md5.update(new Uint8Array(await slice.slice(at, at + PIECE_BYTES).arrayBuffer()));
    }
    self.postMessage({ md5: md5.digest("hex") });
  } catch (error) {
    self.postMessage({ failure: error.name, message: error.message });
  }
});
