/**
 * What is needed to go on with an upload after the page was closed, kept in this browser (IndexedDB).
 *
 * `uploads`: one record each, by its key (the Idempotency-Key it is begun with). `digests`: the MD5 of each part that
 * the store has. The file itself is not kept; it is chosen again and compared.
 */

const NAME = "stagecoach-uploads";
const VERSION = 1;

export class Records {
  #opening = null;
  #factory;

  constructor(factory = globalThis.indexedDB) {
    this.#factory = factory;
  }

  /** Keeps `record` as it now is. */
  async save(record) {
    await this.#change("uploads", (store) => store.put({ ...record }));
  }

  /** All of them, the oldest first. */
  async all() {
    const found = await this.#read("uploads", (store) => store.getAll());
    return found.sort((one, other) => one.createdAt - other.createdAt);
  }

  /** Forgets an upload and its digests. */
  async remove(key) {
    await this.#change("digests", (store) => store.delete(ofUpload(key)));
    await this.#change("uploads", (store) => store.delete(key));
  }

  async saveDigest(key, number, md5) {
    await this.#change("digests", (store) => store.put({ key, number, md5 }));
  }

  /** MD5s by the number of the part. */
  async digests(key) {
    const found = await this.#read("digests", (store) => store.getAll(ofUpload(key)));
    return new Map(found.map((digest) => [digest.number, digest.md5]));
  }

  async #change(name, ask) {
    const transaction = (await this.#open()).transaction(name, "readwrite");
    ask(transaction.objectStore(name));
    await new Promise((resolve, reject) => {
      transaction.addEventListener("complete", resolve);
      transaction.addEventListener("abort", () => reject(unkept(transaction.error)));
    });
  }

  async #read(name, ask) {
    const transaction = (await this.#open()).transaction(name, "readonly");
    return answered(ask(transaction.objectStore(name)));
  }

  #open() {
    this.#opening ??= new Promise((resolve, reject) => {
      const request = this.#factory.open(NAME, VERSION);
      request.addEventListener("upgradeneeded", () => {
        request.result.createObjectStore("uploads", { keyPath: "key" });
        request.result.createObjectStore("digests", { keyPath: ["key", "number"] });
      });
      request.addEventListener("success", () => resolve(request.result));
      request.addEventListener("error", () => reject(unkept(request.error)));
    });
    return this.#opening;
  }
}

const ofUpload = (key) => IDBKeyRange.bound([key, 0], [key, Infinity]);

function answered(request) {
  return new Promise((resolve, reject) => {
    request.addEventListener("success", () => resolve(request.result));
    request.addEventListener("error", () => reject(unkept(request.error)));
  });
}

const unkept = (error) => new Error(`This browser keeps no notes for uploads that are to go on later (${error?.message}).`);
