/** What can go wrong with an upload, by what has to be done about it. Every message is a sentence for people. */

/** The service answered, and refused. `code` is stable (see the API's Problem). */
export class ServiceError extends Error {
  constructor(status, problem, retryAfterSeconds = null) {
    super(problem.message || `The service answered with status ${status}.`);
    this.name = "ServiceError";
    this.status = status;
    this.code = problem.code || "unknown";
    this.data = problem.data || {};
    this.retryAfterSeconds = retryAfterSeconds;
  }

  /** Whether the same request may go well a little later. */
  get mayPass() {
    return this.status >= 500 || this.status === 429 || this.code === "request_under_way";
  }
}

/** No answer came: the network, a laptop that slept, a service that restarts. */
export class Unreachable extends Error {
  constructor(message = "The service cannot be reached.") {
    super(message);
    this.name = "Unreachable";
  }

  get mayPass() {
    return true;
  }
}

/** A part was not taken by the store. `status` is 0 where the browser does not tell more. */
export class PartRefused extends Error {
  constructor(status) {
    super(status ? `The store answered with status ${status}.` : "The store cannot be reached.");
    this.name = "PartRefused";
    this.status = status;
  }
}

/** The file is not what it was when it was chosen; what is staged belongs to the old one. */
export class SourceChanged extends Error {
  constructor() {
    super("The file was changed, moved or removed on this computer after it was chosen. Choose it again.");
    this.name = "SourceChanged";
  }
}

/** The upload ended elsewhere: cancelled, expired or failed. */
export class TransferEnded extends Error {
  constructor(transfer) {
    super(transfer.reason || transfer.meaning || `The upload is ${transfer.state}.`);
    this.name = "TransferEnded";
    this.transfer = transfer;
  }
}

export const isAbort = (error) => error?.name === "AbortError";
export const aborted = () => new DOMException("It was stopped.", "AbortError");
