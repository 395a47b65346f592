/** A folder's tar stream, read by the tar of this machine. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "node:test";

import { tarStream } from "../../../src/stagecoach/portal/static/upload/tar-stream.js";

const AT = Date.UTC(2026, 4, 17, 12, 0, 0);
const file = (name, content, lastModified = AT) => Object.assign(new Blob([content]), { name, lastModified });

function given() {
  const long = "d".repeat(90) + "/" + "e".repeat(90) + ".txt";
  return [
    { path: "b.txt", file: file("b.txt", "beta") },
    { path: "a/empty", file: file("empty", "") },
    { path: "a/exact", file: file("exact", "x".repeat(512)) },
    { path: "a/-rf $(touch x) é\n.txt", file: file("é", "hostile") },
    { path: long, file: file("long", "long", AT + 1234) },
  ];
}

test("tar unpacks what went in", async () => {
  const directory = mkdtempSync(path.join(tmpdir(), "tar-stream-"));
  try {
    const { blob, fileCount } = tarStream(given(), ["hollow/inside"]);
    writeFileSync(path.join(directory, "it.tar"), Buffer.from(await blob.arrayBuffer()));
    execFileSync("tar", ["-xf", "it.tar", "--one-top-level=out"], { cwd: directory });
    const out = path.join(directory, "out");
    assert.equal(fileCount, 5);
    for (const entry of given()) {
      assert.equal(readFileSync(path.join(out, entry.path), "utf8"), await entry.file.text());
      assert.equal(Math.floor(statSync(path.join(out, entry.path)).mtimeMs / 1000), Math.floor(entry.file.lastModified / 1000));
    }
    assert.deepEqual(readdirSync(path.join(out, "hollow")), ["inside"]);
    assert.equal(statSync(path.join(out, "b.txt")).mode & 0o777, 0o644);
  } finally {
    rmSync(directory, { recursive: true });
  }
});

test("parents come first, and all of it is padded to records", async () => {
  const { blob } = tarStream(given());
  const bytes = Buffer.from(await blob.arrayBuffer());
  assert.equal(bytes.length % 10240, 0);
  assert.equal(bytes.subarray(0, 2).toString(), "./");
  const names = execFileSync("tar", ["-tf", "-", "--quoting-style=literal"], { input: bytes }).toString();
  assert.ok(names.indexOf("\na/\n") < names.indexOf("a/empty"));
});

test("the same files give the same bytes, in whatever order they were given", async () => {
  const one = tarStream(given());
  const other = tarStream(given().reverse());
  assert.deepEqual(Buffer.from(await one.blob.arrayBuffer()), Buffer.from(await other.blob.arrayBuffer()));
  assert.equal(one.listing, other.listing);
  const changed = given();
  changed[0].file = file("b.txt", "beta", AT + 1000);
  assert.notEqual(tarStream(changed).listing, one.listing);
});

test("the size of a file that octal digits cannot hold is in a record", () => {
  const huge = { size: 9 * 2 ** 30, lastModified: AT };
  const pieces = [];
  const RealBlob = globalThis.Blob;
  globalThis.Blob = class {
    constructor(given) {
      pieces.push(...given);
    }
  };
  try {
    tarStream([{ path: "huge", file: huge }]);
  } finally {
    globalThis.Blob = RealBlob;
  }
  assert.match(Buffer.from(pieces[1]).toString("latin1"), / size=9663676416\n/);
});
