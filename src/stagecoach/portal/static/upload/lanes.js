/** So many at once, in the order in which they came: a browser has six connections to one store. */

import { aborted } from "./failures.js";

export class Lanes {
  #free;
  #waiting = [];

  constructor(count) {
    this.count = count;
    this.#free = count;
  }

  /** Runs `work` when there is room. Throws AbortError when `signal` stops it while it waits. */
  async run(signal, work) {
    await this.#enter(signal);
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next) next();
      else this.#free += 1;
    }
  }

  #enter(signal) {
    if (signal.aborted) return Promise.reject(aborted());
    if (this.#free > 0) {
      this.#free -= 1;
      return Promise.resolve();
    }
    return new Promise((resolve, reject) => {
      const stop = () => {
        this.#waiting = this.#waiting.filter((other) => other !== go);
        reject(aborted());
      };
      const go = () => {
        signal.removeEventListener("abort", stop);
        resolve();
      };
      signal.addEventListener("abort", stop, { once: true });
      this.#waiting.push(go);
    });
  }
}

/** All of `works`, each given a signal that also ends when one of the others fails; waits until every one has ended. */
export async function together(signal, works) {
  const ours = new AbortController();
  const stop = () => ours.abort();
  if (signal.aborted) stop();
  signal.addEventListener("abort", stop);
  let first = null;
  const runs = works.map((work) =>
    work(ours.signal).catch((error) => {
      first ??= { error };
      stop();
    }),
  );
  await Promise.all(runs);
  signal.removeEventListener("abort", stop);
  if (first) throw first.error;
}
