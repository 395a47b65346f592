/** Watches transfers on their second leg: by their events, or by asking now and then where too many are watched. */

import { isAbort } from "./failures.js";

// A browser has six connections to one server, and a stream holds one as long as it lasts.
const MOST_STREAMS = 2;
const ASK_SECONDS = 5;
export const ENDS = new Set(["done", "failed", "cancelled", "expired"]);

export class Following {
  #service;
  #clock;
  #makeStream;
  #streams = 0;

  constructor(service, clock, makeStream = (url) => new EventSource(url)) {
    this.#service = service;
    this.#clock = clock;
    this.#makeStream = makeStream;
  }

  /** Calls `tell` with the transfer whenever something is new, and resolves with it at its end. Throws AbortError, ServiceError. */
  async follow(transfer, tell, signal) {
    let latest = transfer;
    const hear = (news) => {
      latest = { ...latest, ...news };
      tell(latest);
    };
    hear({});
    while (!ENDS.has(latest.state)) {
      if (this.#streams < MOST_STREAMS) await this.#stream(latest.id, hear, signal);
      if (ENDS.has(latest.state)) break;
      await this.#clock.pause(ASK_SECONDS, signal);
      await this.#clock.online(signal);
      try {
        hear(await this.#service.show(latest.id, signal));
      } catch (error) {
        if (isAbort(error) || !error.mayPass) throw error;
      }
    }
    return latest;
  }

  /** Until the stream ends or breaks. */
  async #stream(id, hear, signal) {
    this.#streams += 1;
    const stream = this.#makeStream(this.#service.eventsUrl(id));
    try {
      await new Promise((resolve) => {
        const heard = ({ data }) => {
          const news = JSON.parse(data);
          hear(news);
          if (ENDS.has(news.state)) resolve();
        };
        stream.addEventListener("state", heard);
        stream.addEventListener("progress", heard);
        stream.addEventListener("error", resolve);
        signal.addEventListener("abort", resolve, { once: true });
      });
    } finally {
      stream.close();
      this.#streams -= 1;
    }
  }
}
