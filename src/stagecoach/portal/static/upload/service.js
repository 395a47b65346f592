/** The API, through the portal's gateway: the session's cookie is the credential, the page's secret goes with every change. */

import { isAbort, ServiceError, Unreachable } from "./failures.js";

export class Service {
  #root;
  #csrf;
  #fetch;

  constructor(csrf, { root = "/portal/api", fetch = globalThis.fetch.bind(globalThis) } = {}) {
    this.#root = root;
    this.#csrf = csrf;
    this.#fetch = fetch;
  }

  /** Begins an upload; the same `key` gives the same transfer again, with fresh URLs. */
  begin({ system, path, sizeBytes, archive, account, key }, signal) {
    const body = {
      path,
      transferDirectives: { transferMethod: "s3", fileSize: sizeBytes },
      ...(archive && { archive }),
      ...(account && { account }),
    };
    return this.#ask("POST", `/filesystem/${encodeURIComponent(system)}/transfer/upload`, signal, body, {
      "Idempotency-Key": key,
    });
  }

  /** What the store has of an upload, and fresh URLs for the rest. */
  parts(id, signal) {
    return this.#ask("GET", `/transfers/${encodeURIComponent(id)}/parts`, signal);
  }

  /** Says that all parts are put; `md5s` has one digest for each part. */
  finish(id, md5s, signal) {
    const body = md5s ? { partDigests: { algorithm: "md5", values: md5s } } : {};
    return this.#ask("POST", `/transfers/${encodeURIComponent(id)}/finish`, signal, body);
  }

  show(id, signal) {
    return this.#ask("GET", `/transfers/${encodeURIComponent(id)}`, signal);
  }

  /** Opens a failed transfer again. */
  retry(id, signal) {
    return this.#ask("POST", `/transfers/${encodeURIComponent(id)}/retry`, signal);
  }

  cancel(id, signal) {
    return this.#ask("DELETE", `/transfers/${encodeURIComponent(id)}`, signal);
  }

  /** Where a transfer's events come from (an EventSource). */
  eventsUrl(id) {
    return `${this.#root}/transfers/${encodeURIComponent(id)}/events`;
  }

  /** The JSON of the answer. Throws ServiceError, Unreachable or AbortError. */
  async #ask(method, path, signal, body, headers = {}) {
    const options = { method, signal, credentials: "same-origin", headers: { Accept: "application/json", ...headers } };
    if (method !== "GET") options.headers["X-CSRF-Token"] = this.#csrf;
    if (body !== undefined) {
      options.headers["Content-Type"] = "application/json";
      options.body = JSON.stringify(body);
    }
    let answer, text;
    try {
      answer = await this.#fetch(this.#root + path, options);
      text = await answer.text();
    } catch (error) {
      throw isAbort(error) ? error : new Unreachable();
    }
    const said = parsed(text);
    if (!answer.ok) throw new ServiceError(answer.status, said ?? {}, Number(answer.headers.get("Retry-After")) || null);
    if (said === null) throw new Unreachable("Something between this browser and the service answered in its place.");
    return said;
  }
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
