/** Time, chance and the network's state; tests have one of their own. */

import { aborted } from "./failures.js";

export const clock = {
  random: () => Math.random(),

  /** Throws AbortError when `signal` ends it. */
  pause(seconds, signal) {
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(aborted());
      const stop = () => {
        clearTimeout(timer);
        reject(aborted());
      };
      const timer = setTimeout(() => {
        signal.removeEventListener("abort", stop);
        resolve();
      }, seconds * 1000);
      signal.addEventListener("abort", stop, { once: true });
    });
  },

  /** Waits while the browser knows that it has no network. Throws AbortError. */
  online(signal) {
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(aborted());
      if (globalThis.navigator?.onLine !== false) return resolve();
      const end = () => {
        globalThis.removeEventListener("online", end);
        signal.removeEventListener("abort", end);
        if (signal.aborted) reject(aborted());
        else resolve();
      };
      globalThis.addEventListener("online", end);
      signal.addEventListener("abort", end);
    });
  },
};
