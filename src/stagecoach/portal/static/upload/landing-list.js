/** The list of uploads that the service has whole: their way to the system, and a clear end. */

import { element, percent } from "./elements.js";
import { sizeText } from "./size-text.js";
import { isAbort } from "./failures.js";

const WORDS = { staged: "Waiting", queued: "Queued", moving: "On its way", done: "Arrived", failed: "Failed" };

export class LandingList {
  #following;
  #pageOf;
  #say;
  #list = element("ul", { class: "upload-list" });
  element = element(
    "section",
    { class: "upload-landing", hidden: true },
    element("h2", {}, "On the way to the system"),
    this.#list,
  );

  /** `say` tells a sentence to who does not see the list. */
  constructor(following, pageOf, say) {
    this.#following = following;
    this.#pageOf = pageOf;
    this.#say = say;
  }

  /** Shows an upload until it has ended, and after. `onEnd(transfer)` is called at its end. */
  async show(transfer, onEnd, signal) {
    const row = this.#row(transfer);
    try {
      const ended = await this.#following.follow(transfer, (news) => fill(row, news), signal);
      this.#say(`${nameOf(ended)}: ${sentenceOf(ended)}`);
      onEnd(ended);
    } catch (error) {
      if (!isAbort(error)) row.words.textContent = error.message;
    }
  }

  #row(transfer) {
    const name = nameOf(transfer);
    const row = {
      state: element("span", { class: "state live" }),
      meter: element("progress", { max: 1, value: 0, "aria-label": `${name}: how much has arrived on the system` }),
      figures: element("span"),
      words: element("p", { class: "quiet" }),
    };
    const link = element("a", { href: this.#pageOf(transfer), class: "name" }, name);
    const head = element("div", { class: "upload-head" }, link, row.state);
    const meter = element("div", { class: "meter" }, element("div", { class: "figures" }, row.figures), row.meter);
    this.#list.prepend(element("li", { class: "card", "data-transfer": transfer.id }, head, meter, row.words));
    this.element.hidden = false;
    return row;
  }
}

function fill(row, transfer) {
  const { state, bytesMoved, sizeBytes, rateBytesPerSecond } = transfer;
  const moved = state === "done" ? sizeBytes : bytesMoved;
  row.state.textContent = WORDS[state] ?? state;
  row.state.className = `state ${state === "done" ? "done" : state === "failed" ? "failed" : "live"}`;
  row.meter.value = sizeBytes > 0 ? moved / sizeBytes : Number(state === "done");
  const rate = state === "moving" && rateBytesPerSecond > 0 ? `, ${sizeText(Math.round(rateBytesPerSecond))}/s` : "";
  row.figures.textContent = `${sizeText(moved)} of ${sizeText(sizeBytes)} (${percent(moved, sizeBytes)} %)${rate}`;
  row.words.textContent = sentenceOf(transfer);
}

function sentenceOf(transfer) {
  if (transfer.state === "done") return `It is at ${transfer.path}, and equal to the last byte.`;
  return transfer.reason || transfer.meaning || "";
}

const nameOf = (transfer) => transfer.path.slice(transfer.path.lastIndexOf("/") + 1);
