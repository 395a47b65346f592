/**
 * A transfer's page, live: draws the rate of its events, and says `transfer-changed` on the body when its state is
 * another one, so that what the server renders is fetched anew.
 */

import { RateChart } from "./rate-chart.js";
import { ENDS } from "./upload/following.js";

function watch(figure) {
  const chart = new RateChart(figure);
  const rates = new Rates();
  const stream = new EventSource(figure.dataset.events);
  let isFirst = true;
  stream.addEventListener("progress", (event) => {
    const point = rates.after(JSON.parse(event.data), performance.now() / 1000);
    if (point) chart.add(point.seconds, point.rate);
  });
  stream.addEventListener("state", (event) => {
    const transfer = JSON.parse(event.data);
    rates.after(transfer, performance.now() / 1000);
    // The first one is what the page shows already, unless the transfer has just ended.
    if (!isFirst || ENDS.has(transfer.state)) document.body.dispatchEvent(new Event("transfer-changed"));
    isFirst = false;
    if (ENDS.has(transfer.state)) stream.close();
  });
  window.addEventListener("pagehide", () => stream.close());
}

/** Bytes of both legs from one event to the next: what is staged counts for the client's leg, what is moved for the system's. */
class Rates {
  #before = null;

  after({ bytesStaged, bytesMoved }, seconds) {
    const before = this.#before;
    this.#before = { bytesStaged, bytesMoved, seconds };
    if (before === null || seconds <= before.seconds) return null;
    const bytes = Math.max(bytesStaged - before.bytesStaged, bytesMoved - before.bytesMoved, 0);
    return { seconds, rate: bytes / (seconds - before.seconds) };
  }
}

const figure = document.getElementById("rate-chart");
if (figure?.dataset.events) watch(figure);
