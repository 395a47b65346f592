/** Uppy's uploader: each file of Uppy's list is a PartUpload, which its buttons pause, resume, retry and cancel. */

import { BasePlugin } from "../vendor/uppy.js";
import { isAbort, TransferEnded } from "./failures.js";
import { Lanes } from "./lanes.js";

const FILES_AT_ONCE = 3;

export class StagecoachUploader extends BasePlugin {
  #lanes = new Lanes(FILES_AT_ONCE);
  #running = new Map();

  /** `options.unfinished` (an UnfinishedUploads) keeps the records; `options.begin(record, blob, tell)` makes a PartUpload. */
  constructor(uppy, options) {
    super(uppy, options);
    this.id = "StagecoachUploader";
    this.type = "uploader";
  }

  install() {
    const { capabilities } = this.uppy.getState();
    this.uppy.setState({ capabilities: { ...capabilities, resumableUploads: true, individualCancellation: true } });
    this.uppy.addUploader(this.#uploadAll);
    this.uppy.on("upload-pause", (file, isPaused) => file && this.#running.get(file.id)?.hold(isPaused));
    this.uppy.on("pause-all", () => this.#running.forEach((run) => run.hold(true)));
    this.uppy.on("resume-all", () => this.#running.forEach((run) => run.hold(false)));
    this.uppy.on("file-removed", (file) => this.#running.get(file.id)?.remove());
  }

  /** Whether closing the page would interrupt anything. */
  get isBusy() {
    return this.#running.size > 0;
  }

  #uploadAll = async (ids) => {
    const files = this.uppy.getFilesByIds(ids);
    this.uppy.emit("upload-start", files);
    await Promise.allSettled(files.map((file) => this.#upload(file)));
  };

  async #upload(file) {
    const { unfinished, begin } = this.opts;
    const run = new Run();
    this.#running.set(file.id, run);
    try {
      const record = await unfinished.recordOf(file);
      const upload = begin(record, file.data, (bytes) => this.#tell(file, bytes));
      const transfer = await unfinished.whileOurs(record, () => this.#carry(run, upload));
      if (transfer === null) return await unfinished.giveUp(record);
      await unfinished.forget(record);
      this.#tell(file, file.size);
      const uploadURL = this.opts.pageOf(transfer);
      this.uppy.emit("upload-success", this.uppy.getFile(file.id), { status: 200, body: transfer, uploadURL });
      this.opts.onTaken(transfer);
    } catch (error) {
      if (error instanceof TransferEnded) await unfinished.forgetFile(file);
      if (this.uppy.getFile(file.id)) this.uppy.emit("upload-error", this.uppy.getFile(file.id), error);
      this.opts.onTrouble(file, error);
    } finally {
      this.#running.delete(file.id);
    }
  }

  /** The transfer; null when the person took the file out of the list. */
  async #carry(run, upload) {
    for (;;) {
      await run.goesOn();
      if (run.isRemoved) return null;
      const signal = run.begin();
      try {
        return await this.#lanes.run(signal, () => upload.run(signal));
      } catch (error) {
        if (!isAbort(error) || !signal.aborted) throw error;
      }
    }
  }

  #tell(file, bytesUploaded) {
    if (this.uppy.getFile(file.id)) {
      this.uppy.emit("upload-progress", file, { uploadStarted: Date.now(), bytesUploaded, bytesTotal: file.size });
    }
  }
}

/** What the person wants of an upload: that it runs, waits or ends. */
class Run {
  isRemoved = false;
  #isHeld = false;
  #stop = null;
  #wake = null;

  hold(isHeld) {
    this.#isHeld = isHeld;
    if (isHeld) this.#stop?.abort();
    else this.#wake?.();
  }

  remove() {
    this.isRemoved = true;
    this.#stop?.abort();
    this.#wake?.();
  }

  async goesOn() {
    while (this.#isHeld && !this.isRemoved) await new Promise((resolve) => (this.#wake = resolve));
  }

  begin() {
    this.#stop = new AbortController();
    return this.#stop.signal;
  }
}
