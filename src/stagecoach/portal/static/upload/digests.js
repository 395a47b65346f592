/** MD5s of slices of files, computed by workers: one slice at a time each. */

import { SourceChanged } from "./failures.js";

export class Digests {
  #idle = [];
  #waiting = [];
  #count = 0;
  #most;
  #make;

  constructor(most = 2, make = () => new Worker(new URL("./digest-worker.js", import.meta.url), { type: "module" })) {
    this.#most = most;
    this.#make = make;
  }

  /** Hexadecimal. Throws SourceChanged where the file can no longer be read. */
  async md5(slice) {
    const worker = await this.#take();
    try {
      return await answer(worker, slice);
    } finally {
      const next = this.#waiting.shift();
      if (next) next(worker);
      else this.#idle.push(worker);
    }
  }

  #take() {
    if (this.#idle.length) return this.#idle.pop();
    if (this.#count < this.#most) {
      this.#count += 1;
      return this.#make();
    }
    return new Promise((resolve) => this.#waiting.push(resolve));
  }
}

function answer(worker, slice) {
  return new Promise((resolve, reject) => {
    const end = (settle, value) => {
      worker.removeEventListener("message", heard);
      worker.removeEventListener("error", broke);
      settle(value);
    };
    const heard = ({ data }) => {
      if (data.md5) end(resolve, data.md5);
      else if (data.failure === "NotReadableError" || data.failure === "NotFoundError") end(reject, new SourceChanged());
      else end(reject, new Error(`The digest of the file cannot be computed here (${data.message}).`));
    };
    const broke = () => end(reject, new Error("The digest of the file cannot be computed: a script of this page is missing."));
    worker.addEventListener("message", heard);
    worker.addEventListener("error", broke);
    worker.postMessage({ slice });
  });
}
