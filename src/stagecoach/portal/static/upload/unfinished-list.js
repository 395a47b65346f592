/** The list of uploads that were interrupted, perhaps days ago: choose the file again, or give the upload up. */

import { element, percent } from "./elements.js";
import { sizeText } from "./size-text.js";
import { fileEntry, withFoldersAsOne } from "./sources.js";
import { differenceOf } from "./unfinished.js";

export class UnfinishedList {
  #unfinished;
  #add;
  #say;
  #list = element("ul", { class: "upload-list" });
  element = element(
    "section",
    { class: "upload-unfinished", hidden: true },
    element("h2", {}, "Unfinished uploads"),
    element("p", { class: "quiet" }, "Choose the same file or folder again, and only what is missing is sent."),
    this.#list,
  );

  /** `add(entry)` puts an entry into Uppy's list and begins; `say` tells a sentence to who does not see the list. */
  constructor(unfinished, add, say) {
    this.#unfinished = unfinished;
    this.#add = add;
    this.#say = say;
  }

  /** Reads anew which there are. */
  async refresh(signal) {
    const waiting = await this.#unfinished.waiting(signal);
    this.#list.replaceChildren(...waiting.map(({ record, transfer }) => this.#row(record, transfer)));
    this.element.hidden = waiting.length === 0;
  }

  #row(record, transfer) {
    const trouble = element("p", { class: "notice bad", role: "alert", hidden: true });
    const complain = (message) => {
      trouble.hidden = false;
      trouble.textContent = message;
    };
    const input = element("input", {
      ...{ type: "file", class: "unseen", tabindex: "-1", webkitdirectory: record.archive !== null },
      ...{ "aria-label": `Choose ${record.name} again`, onchange: () => this.#goOn(record, input, complain) },
    });
    const choose = element("button", { type: "button", class: "primary small", onclick: () => input.click() }, "Choose again");
    const giveUp = element("button", { type: "button", class: "small" }, "Give up");
    giveUp.addEventListener("click", () => this.#giveUp(record, giveUp, complain));
    const name = element("span", { class: "name" }, record.path);
    const staged = element(
      "span",
      { class: "quiet" },
      `${percent(transfer.bytesStaged, record.sizeBytes)} % of ${sizeText(record.sizeBytes)}`,
    );
    return element(
      "li",
      { class: "card", "data-transfer": record.transferId },
      element("div", { class: "upload-head" }, name, staged),
      element("div", { class: "row" }, choose, giveUp, input),
      trouble,
    );
  }

  async #goOn(record, input, complain) {
    const files = Array.from(input.files);
    if (!files.length) return;
    const descriptors = files.map((file) => ({ ...fileEntry(file), meta: { relativePath: file.webkitRelativePath || null } }));
    const [entry] = withFoldersAsOne(descriptors);
    const source = await this.#unfinished.sourceOf({ ...entry, size: entry.data.size });
    input.value = "";
    const difference = differenceOf(record, source);
    if (difference) return complain(difference);
    const directory = record.path.slice(0, record.path.lastIndexOf("/")) || "/";
    this.#add({
      ...entry,
      meta: { ...entry.meta, place: { owner: record.owner, system: record.system, account: record.account, directory } },
    });
  }

  async #giveUp(record, button, complain) {
    if (!button.dataset.asked) {
      button.dataset.asked = "yes";
      button.textContent = "Give up? What was sent is thrown away.";
      button.classList.add("danger");
      return;
    }
    button.disabled = true;
    try {
      await this.#unfinished.giveUp(record);
      this.#say(`The upload of ${record.name} was given up.`);
      await this.refresh();
    } catch (error) {
      button.disabled = false;
      complain(error.message);
    }
  }
}
