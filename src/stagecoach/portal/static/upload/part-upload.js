/**
 * One upload, from the request that begins it to the word that it is whole: parts straight to the store, side by side,
 * only those that are missing, until the service has compared their digests. Knows neither the page nor Uppy.
 *
 * After any failure of a part the service is asked for fresh URLs before the part is put again: it also knows whether
 * the part came through and only the answer was lost, and whether the upload still goes on.
 */

import { together } from "./lanes.js";
import { isAbort, PartRefused, SourceChanged, TransferEnded } from "./failures.js";

const MOST_TRIES = 12;
const LONGEST_PAUSE_SECONDS = 60;
const MOST_ROUNDS = 5;
const GOING_ON = new Set(["staged", "queued", "moving", "done"]);
const CHECKS_AT_ONCE = 2;

export class PartUpload {
  #record;
  #blob;
  #with;
  #tell;
  #urls = new Map();
  #missing = new Set();
  #unchecked = new Set();
  #replaced = new Set();
  #digests = [];
  #known = new Map();
  #inFlight = new Map();
  #asking = null;

  /**
   * `record` says where the upload goes and how far it came; it is kept in `records`. `blob` is the file. `tools` are
   * `service`, `putPart`, `digests`, `records`, `lanes` and `clock`. `tell(bytes)` says how much the store has.
   */
  constructor(record, blob, tools, tell) {
    this.#record = record;
    this.#blob = blob;
    this.#with = tools;
    this.#tell = tell;
  }

  /**
   * Resolves with the transfer once the service has taken the upload as whole; may be called again after a failure or
   * a stop, and goes on. Throws AbortError, SourceChanged, TransferEnded, ServiceError, PartRefused or Unreachable.
   */
  async run(signal) {
    const ended = await this.#open(signal);
    if (ended) return ended;
    for (let round = 1; ; round++) {
      while (this.#missing.size || this.#unchecked.size) {
        const check = (ours) => this.#side(ours, [...this.#unchecked], CHECKS_AT_ONCE, this.#check);
        const put = (ours) => this.#side(ours, [...this.#missing], this.#with.lanes.count, this.#put);
        await together(signal, [put, check]);
      }
      try {
        return await this.#finish(signal);
      } catch (error) {
        const isMendable = error.code === "parts_differ" || error.code === "parts_missing";
        if (!isMendable || round === MOST_ROUNDS) throw error;
        const moved = await this.#ask(signal);
        if (moved) return moved;
        for (const number of error.data.differing ?? []) this.#replace(number);
      }
    }
  }

  /** Begins it, or sees what is there. Answers the transfer where nothing is left to put. */
  async #open(signal) {
    const { service, records } = this.#with;
    await records.save(this.#record);
    if (this.#record.transferId) {
      this.#known = await records.digests(this.#record.key);
      return this.#ask(signal);
    }
    const begun = await this.#patiently(signal, () => service.begin(this.#record, signal));
    const { maxPartSize, partsUploadUrls } = begun.transferDirectives;
    Object.assign(this.#record, { transferId: begun.transferId, partSizeBytes: maxPartSize });
    await records.save(this.#record);
    if (!partsUploadUrls || begun.transferState) return this.#ask(signal);
    this.#record.partCount = partsUploadUrls.length;
    partsUploadUrls.forEach((url, index) => this.#urls.set(index + 1, url));
    this.#missing = new Set(this.#urls.keys());
    await records.save(this.#record);
    return null;
  }

  /** What the store has, and fresh URLs; one question at a time, however many parts want to know. */
  #ask(signal) {
    this.#asking ??= this.#see(signal).finally(() => (this.#asking = null));
    return this.#asking;
  }

  async #see(signal) {
    const { service, records } = this.#with;
    const before = [...this.#missing];
    let view;
    try {
      view = await this.#patiently(signal, () => service.parts(this.#record.transferId, signal));
    } catch (error) {
      if (error.code !== "wrong_state" && error.status !== 404) throw error;
      return this.#otherwise(signal, error);
    }
    if (this.#record.partCount !== view.partCount || this.#record.partSizeBytes !== view.partSizeBytes) {
      Object.assign(this.#record, { partCount: view.partCount, partSizeBytes: view.partSizeBytes });
      await records.save(this.#record);
    }
    const arrived = before.filter((number) => !this.#missing.has(number));
    this.#urls = new Map(view.missing.map((part) => [part.number, part.url]));
    this.#missing = new Set([...this.#urls.keys(), ...this.#replaced]);
    // Taken by the store while the answer was on its way.
    for (const number of arrived) this.#missing.delete(number);
    this.#unchecked = new Set();
    for (const { number, etag } of view.stored) {
      if (this.#missing.has(number)) continue;
      const said = etag.replaceAll('"', "").toLowerCase();
      if (!this.#known.has(number) && /^[0-9a-f]{32}$/.test(said)) this.#known.set(number, said);
      if (!this.#digests[number - 1]) this.#unchecked.add(number);
    }
    this.#report();
    return null;
  }

  /** It takes no parts now: it is whole, may be opened again, or has ended. */
  async #otherwise(signal, refusal) {
    const { service } = this.#with;
    const id = this.#record.transferId;
    let transfer;
    try {
      transfer = await this.#patiently(signal, () => service.show(id, signal));
      if (transfer.state === "failed" && transfer.retryUntil) {
        transfer = await this.#patiently(signal, () => service.retry(id, signal));
        if (transfer.state === "receiving") return this.#see(signal);
      }
    } catch (error) {
      if (error.status !== 404) throw error;
      throw new TransferEnded({ state: "gone", reason: "The service has forgotten this upload; begin it anew." });
    }
    if (GOING_ON.has(transfer.state)) return transfer;
    if (transfer.state === "receiving") throw refusal;
    throw new TransferEnded(transfer);
  }

  /** `work` for each of `numbers`, in order, so many at once. */
  async #side(signal, numbers, most, work) {
    const order = numbers.sort((one, other) => one - other)[Symbol.iterator]();
    const lane = async (ours) => {
      for (const number of order) await work.call(this, number, ours);
    };
    await together(signal, Array(Math.min(most, numbers.length)).fill(lane));
  }

  /** A part that came up earlier: is it that of the file which is chosen now? */
  async #check(number, signal) {
    signal.throwIfAborted();
    const md5 = await this.#with.digests.md5(this.#slice(number));
    signal.throwIfAborted();
    this.#unchecked.delete(number);
    this.#digests[number - 1] = md5;
    if (this.#known.has(number) && this.#known.get(number) !== md5) this.#replace(number);
    else await this.#with.records.saveDigest(this.#record.key, number, md5);
  }

  async #put(number, signal) {
    const { lanes, digests, records } = this.#with;
    await lanes.run(signal, async () => {
      const put = (ours) => this.#putUntilTaken(number, ours);
      const digest = async () => (this.#digests[number - 1] ??= await digests.md5(this.#slice(number)));
      await together(signal, [put, digest]);
      await records.saveDigest(this.#record.key, number, this.#digests[number - 1]);
      this.#known.set(number, this.#digests[number - 1]);
    });
  }

  async #putUntilTaken(number, signal) {
    const { putPart, clock } = this.#with;
    for (let tried = 1; this.#missing.has(number); tried++) {
      try {
        const url = this.#urls.get(number) ?? (await this.#urlOfStored(number, signal));
        const tell = (bytes) => this.#fly(number, bytes);
        await putPart(url, this.#slice(number), { signal, tell });
        this.#missing.delete(number);
        this.#replaced.delete(number);
      } catch (error) {
        if (!(error instanceof PartRefused) || signal.aborted || tried === MOST_TRIES) throw error;
        this.#fly(number, 0);
        await clock.pause(pauseSeconds(tried, clock.random()), signal);
        await clock.online(signal);
        await this.#renew(signal);
      } finally {
        this.#inFlight.delete(number);
      }
    }
    this.#report();
  }

  /** Fresh URLs, and the news which parts are there. */
  async #renew(signal) {
    const moved = await this.#ask(signal);
    if (moved) throw new TransferEnded({ ...moved, reason: "The upload was completed elsewhere, perhaps in another window." });
  }

  /** A URL for a part that the store has: the same request with the same key is answered with those of all parts. */
  async #urlOfStored(number, signal) {
    const begun = await this.#patiently(signal, () => this.#with.service.begin(this.#record, signal));
    const urls = begun.transferDirectives.partsUploadUrls ?? [];
    urls.forEach((url, index) => this.#urls.set(index + 1, url));
    if (!this.#urls.has(number))
      throw new TransferEnded({ state: begun.transferState, reason: "The upload takes no more parts." });
    return this.#urls.get(number);
  }

  async #finish(signal) {
    const { service, clock } = this.#with;
    const id = this.#record.transferId;
    for (let tried = 1; ; tried++) {
      try {
        return await this.#patiently(signal, () => service.finish(id, this.#digests, signal));
      } catch (error) {
        if (error.code !== "wrong_state") throw error;
        const transfer = await this.#patiently(signal, () => service.show(id, signal));
        if (GOING_ON.has(transfer.state)) return transfer;
        if (transfer.state !== "receiving") throw new TransferEnded(transfer);
        // Jobs that wait for the object themselves have read which digests they compare: only the store's are left.
        if (error.data.state) return this.#patiently(signal, () => service.finish(id, null, signal));
        if (tried === MOST_TRIES) throw error;
        await clock.pause(pauseSeconds(tried, clock.random()), signal);
      }
    }
  }

  /** The answer of the service, asked again while there is hope that it will be another one. */
  async #patiently(signal, ask) {
    const { clock } = this.#with;
    for (let tried = 1; ; tried++) {
      try {
        return await ask();
      } catch (error) {
        if (isAbort(error) || !error.mayPass || tried === MOST_TRIES) throw error;
        await clock.pause(Math.max(error.retryAfterSeconds ?? 0, pauseSeconds(tried, clock.random())), signal);
        await clock.online(signal);
      }
    }
  }

  #slice(number) {
    const start = (number - 1) * this.#record.partSizeBytes;
    if (this.#blob.size !== this.#record.sizeBytes) throw new SourceChanged();
    return this.#blob.slice(start, start + this.#record.partSizeBytes);
  }

  /** The part has to be put again, though the store has one. */
  #replace(number) {
    this.#replaced.add(number);
    this.#missing.add(number);
    this.#report();
  }

  #fly(number, bytes) {
    this.#inFlight.set(number, bytes);
    this.#report();
  }

  #report() {
    let bytes = 0;
    const { partSizeBytes, partCount, sizeBytes } = this.#record;
    const last = sizeBytes - (partCount - 1) * partSizeBytes;
    for (const number of this.#missing) {
      bytes += (number === partCount ? last : partSizeBytes) - (this.#inFlight.get(number) ?? 0);
    }
    this.#tell(Math.max(0, sizeBytes - bytes));
  }
}

/** Longer each time, never the same for two who failed together. */
export function pauseSeconds(tried, chance) {
  return Math.min(LONGEST_PAUSE_SECONDS, 2 ** (tried - 1)) * (0.5 + chance / 2);
}
