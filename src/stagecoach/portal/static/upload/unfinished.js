/** Uploads that are begun and not yet whole: their records, and which of them a chosen file belongs to. */

import { ServiceError } from "./failures.js";

const KEPT_DAYS = 30;
const LOCK_PREFIX = "stagecoach-upload-";

export class UnfinishedUploads {
  #records;
  #service;
  #digests;
  #place;
  #ofFile = new Map();

  /** `place()` says where uploads go now: `{ owner, system, directory, account }`. */
  constructor(records, service, digests, place) {
    this.#records = records;
    this.#service = service;
    this.#digests = digests;
    this.#place = place;
  }

  /** The record of a file of Uppy's list: that of an earlier visit where it is the same file for the same place, or a new one. */
  async recordOf(file) {
    const known = this.#ofFile.get(file.id);
    if (known) return known;
    const source = await this.sourceOf(file);
    const { owner, system, directory, account } = file.meta.place ?? this.#place();
    const path = (directory === "/" ? "" : directory) + "/" + source.name;
    const others = new Set([...this.#ofFile.values()].map((record) => record.key));
    const same = (await this.#mine()).find(
      (record) =>
        !others.has(record.key) && record.system === system && record.path === path && differenceOf(record, source) === null,
    );
    const record = same ?? {
      ...{ key: randomKey(), owner, system, path, account, createdAt: Date.now(), transferId: null },
      ...{ partSizeBytes: null, partCount: null, ...source },
    };
    this.#ofFile.set(file.id, record);
    return record;
  }

  /** What is compared when a file is chosen again. */
  async sourceOf(file) {
    const { archive = null, listing = null, lastModified = file.data.lastModified ?? null } = file.meta;
    const listingMd5 = listing === null ? null : await this.#digests.md5(new Blob([listing]));
    return { name: file.name, sizeBytes: file.size, lastModified, archive, listingMd5 };
  }

  /** Those of this person that no window works on and that the service still receives; each with its transfer. */
  async waiting(signal) {
    const held = await heldLocks();
    const found = [];
    for (const record of await this.#mine()) {
      if (held.has(LOCK_PREFIX + record.key)) continue;
      const transfer = await this.#transferOf(record, signal);
      if (transfer) found.push({ record, transfer });
    }
    return found;
  }

  /** Runs `work` while other windows see that this one has the upload. */
  async whileOurs(record, work) {
    if (!globalThis.navigator?.locks) return work();
    return navigator.locks.request(LOCK_PREFIX + record.key, { ifAvailable: true }, (lock) => {
      if (!lock) throw new Error("Another window of this browser is uploading this file.");
      return work();
    });
  }

  /** Cancels the transfer and forgets it. */
  async giveUp(record) {
    if (record.transferId) {
      try {
        await this.#service.cancel(record.transferId);
      } catch (error) {
        if (!(error instanceof ServiceError) || error.mayPass) throw error;
      }
    }
    await this.forget(record);
  }

  async forget(record) {
    for (const [id, other] of this.#ofFile) if (other.key === record.key) this.#ofFile.delete(id);
    await this.#records.remove(record.key);
  }

  async forgetFile(file) {
    const record = this.#ofFile.get(file.id);
    if (record) await this.forget(record);
  }

  async #mine() {
    const { owner } = this.#place();
    return (await this.#records.all()).filter((record) => record.owner === owner);
  }

  /** Null, and the record is forgotten, when there is nothing left to go on with. */
  async #transferOf(record, signal) {
    const isOld = Date.now() - record.createdAt > KEPT_DAYS * 86_400_000;
    let transfer = null;
    if (record.transferId && !isOld) {
      try {
        transfer = await this.#service.show(record.transferId, signal);
      } catch (error) {
        if (error.status !== 404) throw error;
      }
    }
    if (transfer && (transfer.state === "receiving" || (transfer.state === "failed" && transfer.retryUntil))) return transfer;
    await this.#records.remove(record.key);
    return null;
  }
}

/** Why a chosen file is not the one that was begun with, as a sentence; null when it is, as far as can be seen at once. */
export function differenceOf(record, source) {
  if (record.archive !== source.archive)
    return record.archive ? "The upload is one of a folder." : "The upload is one of a file.";
  if (record.name !== source.name) return `The upload is of “${record.name}”, and this is “${source.name}”.`;
  if (record.sizeBytes !== source.sizeBytes) return "The size is another one now; upload it anew instead.";
  if (record.lastModified !== source.lastModified || record.listingMd5 !== source.listingMd5) {
    return "It was changed since the upload began; upload it anew instead.";
  }
  return null;
}

async function heldLocks() {
  const locks = await globalThis.navigator?.locks?.query();
  return new Set((locks?.held ?? []).map((lock) => lock.name));
}

/** crypto.randomUUID is not there on pages without https. */
function randomKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
