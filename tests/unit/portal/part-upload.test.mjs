/** The engine of uploads against a service and a store that fail in the ways that real ones do. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";

import {
  aborted,
  PartRefused,
  ServiceError,
  SourceChanged,
  TransferEnded,
  Unreachable,
} from "../../../src/stagecoach/portal/static/upload/failures.js";
import { Lanes } from "../../../src/stagecoach/portal/static/upload/lanes.js";
import { pauseSeconds, PartUpload } from "../../../src/stagecoach/portal/static/upload/part-upload.js";

const PART = 10;
const md5 = (bytes) => createHash("md5").update(bytes).digest("hex");

/** A service and its store. `troubles` are called before each act and may throw. */
class World {
  constructor(content) {
    this.content = content;
    this.count = Math.max(1, Math.ceil(content.length / PART));
    this.stored = new Map();
    this.puts = [];
    this.state = "receiving";
    this.signed = 0;
    this.begun = 0;
    this.finished = [];
    this.kept = new Map();
    this.pauses = [];
    this.told = [];
    this.onPut = () => {};
    this.onFinish = () => {};
    this.onParts = () => {};
    this.record = { key: "k", system: "s", path: "/x", sizeBytes: content.length, archive: null, transferId: null };
  }

  sizeOf = (number) => (number < this.count ? PART : this.content.length - (this.count - 1) * PART);
  url = (number) => `${this.signed}/${number}`;
  slice = (number) => this.content.slice((number - 1) * PART, number * PART);

  service = {
    begin: async () => {
      this.begun += 1;
      const urls = Array.from({ length: this.count }, (_, index) => this.url(index + 1));
      const answer = { transferId: "t", transferDirectives: { maxPartSize: PART, partsUploadUrls: urls } };
      return this.begun > 1 ? { ...answer, transferState: this.state } : answer;
    },
    parts: async () => {
      this.onParts();
      if (this.state !== "receiving")
        throw new ServiceError(409, { code: "wrong_state", message: "no", data: { state: this.state } });
      this.signed += 1;
      const numbers = Array.from({ length: this.count }, (_, index) => index + 1);
      return {
        partSizeBytes: PART,
        partCount: this.count,
        stored: numbers
          .filter((n) => this.stored.has(n))
          .map((n) => ({ number: n, sizeBytes: this.sizeOf(n), etag: `"${this.stored.get(n)}"` })),
        missing: numbers.filter((n) => !this.stored.has(n)).map((n) => ({ number: n, url: this.url(n) })),
      };
    },
    finish: async (_id, md5s) => {
      this.finished.push(md5s);
      this.onFinish(md5s);
      this.state = "staged";
      return { id: "t", state: "staged" };
    },
    show: async () => ({ id: "t", state: this.state, meaning: "It ended.", retryUntil: this.retryUntil }),
    retry: async () => ({ id: "t", state: (this.state = "receiving") }),
  };

  tools() {
    return {
      service: this.service,
      putPart: async (url, slice, { signal, tell }) => {
        const number = Number(url.split("/")[1]);
        this.puts.push(number);
        await this.onPut(number, url, signal);
        if (signal.aborted) throw aborted();
        tell(slice.size);
        this.stored.set(number, md5(Buffer.from(await slice.arrayBuffer())));
      },
      digests: { md5: async (slice) => md5(Buffer.from(await slice.arrayBuffer())) },
      records: {
        save: async (record) => (this.saved = { ...record }),
        digests: async () => new Map(this.kept),
        saveDigest: async (_key, number, digest) => this.kept.set(number, digest),
      },
      lanes: new Lanes(3),
      clock: { random: () => 0.5, pause: async (seconds) => void this.pauses.push(seconds), online: async () => {} },
    };
  }

  upload(content = this.content, record = this.record) {
    return new PartUpload(record, new Blob([content]), this.tools(), (bytes) => this.told.push(bytes));
  }
}

const go = () => new AbortController().signal;
const bytes = (size, seed = 1) => Buffer.from(Array.from({ length: size }, (_, index) => (index * 7 + seed) % 251));

test("puts every part once and finishes with the digest of each", async () => {
  const world = new World(bytes(45));
  const transfer = await world.upload().run(go());
  assert.equal(transfer.state, "staged");
  assert.deepEqual(world.puts.sort(), [1, 2, 3, 4, 5]);
  assert.deepEqual(world.finished, [[1, 2, 3, 4, 5].map((n) => md5(world.slice(n)))]);
  assert.equal(world.told.at(-1), 45);
  assert.ok(world.told.every((value, index) => index === 0 || value >= world.told[index - 1]));
});

test("an empty file is one empty part", async () => {
  const world = new World(Buffer.alloc(0));
  await world.upload().run(go());
  assert.deepEqual(world.puts, [1]);
  assert.deepEqual(world.finished, [[md5("")]]);
});

test("no more parts at once than there are lanes", async () => {
  const world = new World(bytes(200));
  let now = 0;
  let most = 0;
  world.onPut = async () => {
    most = Math.max(most, ++now);
    await new Promise(setImmediate);
    now -= 1;
  };
  await world.upload().run(go());
  assert.equal(most, 3);
});

test("a part that failed is put again, to a fresh URL", async () => {
  const world = new World(bytes(30));
  const urls = [];
  world.onPut = (number, url) => {
    if (number !== 2) return;
    urls.push(url);
    if (urls.length < 3) throw new PartRefused(403);
  };
  await world.upload().run(go());
  assert.deepEqual(urls, ["0/2", "1/2", "2/2"]);
  assert.deepEqual(world.pauses, [0.75, 1.5]);
});

test("a part whose answer was lost is not put again", async () => {
  const world = new World(bytes(30));
  world.onPut = (number) => {
    if (number === 2 && !world.stored.has(2)) {
      world.stored.set(2, md5(world.slice(2)));
      throw new PartRefused(0);
    }
  };
  await world.upload().run(go());
  assert.deepEqual(
    world.puts.filter((number) => number === 2),
    [2],
  );
});

test("a store that takes nothing ends it, and another run goes on with what is missing", async () => {
  const world = new World(bytes(50));
  const upload = world.upload();
  world.onPut = (number) => {
    if (number === 4) throw new PartRefused(500);
  };
  await assert.rejects(upload.run(go()), PartRefused);
  assert.equal(world.puts.filter((number) => number === 4).length, 12);
  world.onPut = () => {};
  const before = [...world.stored.keys()];
  world.puts = [];
  await upload.run(go());
  assert.ok(before.every((number) => !world.puts.includes(number)));
});

test("a service that is away for a while is asked again", async () => {
  const world = new World(bytes(30));
  let failures = 0;
  world.onFinish = () => {
    failures += 1;
    if (failures === 1) throw new Unreachable();
    if (failures === 2) throw new ServiceError(503, { code: "unavailable" }, 7);
  };
  await world.upload().run(go());
  assert.equal(failures, 3);
  assert.deepEqual(world.pauses, [0.75, 7]);
});

test("stopped, it puts nothing more; run again, it puts only what is missing", async () => {
  const world = new World(bytes(100));
  const stop = new AbortController();
  const upload = world.upload();
  world.onPut = (number) => {
    if (number === 5) stop.abort();
  };
  await assert.rejects(upload.run(stop.signal), { name: "AbortError" });
  const before = world.stored.size;
  assert.ok(before > 0 && before < 10);
  world.onPut = () => {};
  world.puts = [];
  await upload.run(go());
  assert.equal(world.puts.length, 10 - before);
  assert.deepEqual(
    world.finished[0],
    Array.from({ length: 10 }, (_, index) => md5(world.slice(index + 1))),
  );
});

test("after the page was closed: a part of the file that is another one now is put again", async () => {
  const world = new World(bytes(50));
  const changed = Buffer.from(world.content);
  changed[25] ^= 1;
  for (const number of [1, 3, 4]) {
    world.stored.set(number, md5(world.slice(number)));
    world.kept.set(number, md5(world.slice(number)));
  }
  world.begun = 1;
  const record = { ...world.record, transferId: "t", partSizeBytes: PART, partCount: 5 };
  world.content = changed;
  await world.upload(changed, record).run(go());
  assert.deepEqual(world.puts.sort(), [2, 3, 5]);
  assert.deepEqual(world.finished, [[1, 2, 3, 4, 5].map((n) => md5(world.slice(n)))]);
});

test("without notes of its own it believes the store's ETags", async () => {
  const world = new World(bytes(30));
  world.stored.set(1, md5(world.slice(1)));
  world.stored.set(2, md5("something else"));
  world.begun = 1;
  await world.upload(world.content, { ...world.record, transferId: "t", partSizeBytes: PART }).run(go());
  assert.deepEqual(world.puts.sort(), [2, 3]);
});

test("parts that the service finds to differ are put again", async () => {
  const world = new World(bytes(30));
  world.onFinish = () => {
    if (world.finished.length === 1) throw new ServiceError(409, { code: "parts_differ", data: { differing: [2] } });
  };
  await world.upload().run(go());
  assert.deepEqual(world.puts.sort(), [1, 2, 2, 3]);
});

test("parts that the store lost are put again", async () => {
  const world = new World(bytes(30));
  world.onFinish = () => {
    if (world.finished.length > 1) return;
    world.stored.delete(3);
    throw new ServiceError(409, { code: "parts_missing", data: { missing: [3] } });
  };
  await world.upload().run(go());
  assert.deepEqual(world.puts.sort(), [1, 2, 3, 3]);
});

test("where the job has read its digests already, it finishes without", async () => {
  const world = new World(bytes(30));
  world.onFinish = (md5s) => {
    if (md5s) throw new ServiceError(409, { code: "wrong_state", data: { state: "receiving" } });
  };
  await world.upload().run(go());
  assert.equal(world.finished.at(-1), null);
});

test("cancelled elsewhere, it says so", async () => {
  const world = new World(bytes(30));
  world.onPut = () => {
    world.state = "cancelled";
    throw new PartRefused(404);
  };
  await assert.rejects(world.upload().run(go()), TransferEnded);
});

test("an upload that was completed already is taken as it is", async () => {
  const world = new World(bytes(30));
  world.state = "moving";
  const transfer = await world.upload(world.content, { ...world.record, transferId: "t", partSizeBytes: PART }).run(go());
  assert.equal(transfer.state, "moving");
  assert.deepEqual(world.puts, []);
});

test("a failed one that can be opened again is", async () => {
  const world = new World(bytes(30));
  world.state = "failed";
  world.retryUntil = "2030-01-01T00:00:00Z";
  await world.upload(world.content, { ...world.record, transferId: "t", partSizeBytes: PART }).run(go());
  assert.deepEqual(world.puts.sort(), [1, 2, 3]);
});

test("a file that shrank is not sent", async () => {
  const world = new World(bytes(30));
  await assert.rejects(world.upload(bytes(29)).run(go()), SourceChanged);
  assert.deepEqual(world.finished, []);
});

test("refused for good, it is not asked again", async () => {
  const world = new World(bytes(30));
  let asked = 0;
  world.service.begin = async () => {
    asked += 1;
    throw new ServiceError(409, { code: "target_exists", message: "There is something." });
  };
  await assert.rejects(world.upload().run(go()), { code: "target_exists" });
  assert.equal(asked, 1);
});

test("pauses grow, and end at a minute", () => {
  assert.equal(pauseSeconds(1, 0), 0.5);
  assert.equal(pauseSeconds(3, 1), 4);
  assert.equal(pauseSeconds(30, 1), 60);
});
