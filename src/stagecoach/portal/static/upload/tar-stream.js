/**
 * A folder as one tar stream (pax) that exists nowhere: a Blob of headers and of references to the files on disk. Any
 * stretch of it is read when it is put, so its parts go up side by side, are repeated and resumed as those of a file.
 *
 * The same files (paths, sizes, times) give the same bytes. Members are as in docs/ticket.md: `./` first, parents first.
 */

const BLOCK_BYTES = 512;
const RECORD_BYTES = 10240;
const LARGEST_OCTAL = 8 ** 11;
const DIRECTORY_MODE = 0o755;
const FILE_MODE = 0o644;
const encoder = new TextEncoder();

/**
 * `files` are `{ path, file }`, `directories` paths (those of files need not be among them), all relative to the folder.
 * Answers `{ blob, fileCount, lastModified, listing }`: `listing` names every member with size and time.
 */
export function tarStream(files, directories = []) {
  const lastModified = files.reduce((latest, { file }) => Math.max(latest, file.lastModified), 0);
  const members = [...parents(files, directories)].map((path) => ({ path: path + "/", file: null }));
  members.push(...files.map(({ path, file }) => ({ path, file })));
  members.sort((one, other) => compare(one.path, other.path));
  const pieces = [header("./", "5", DIRECTORY_MODE, 0, lastModified)];
  let sizeBytes = BLOCK_BYTES;
  for (const { path, file } of members) {
    const head = file
      ? header(path, "0", FILE_MODE, file.size, file.lastModified)
      : header(path, "5", DIRECTORY_MODE, 0, lastModified);
    pieces.push(head);
    sizeBytes += head.length;
    if (file?.size) {
      pieces.push(file, new Uint8Array(paddingOf(file.size)));
      sizeBytes += file.size + paddingOf(file.size);
    }
  }
  pieces.push(new Uint8Array(2 * BLOCK_BYTES + paddingOf(sizeBytes + 2 * BLOCK_BYTES, RECORD_BYTES)));
  const listing = members.map(({ path, file }) => JSON.stringify([path, file?.size, file?.lastModified])).join("\n");
  return { blob: new Blob(pieces), fileCount: files.length, lastModified, listing };
}

/** Every directory on the way to a file, and those that were named. */
function parents(files, directories) {
  const found = new Set();
  for (const path of [...directories.map((directory) => directory + "/x"), ...files.map((entry) => entry.path)]) {
    for (let at = path.indexOf("/"); at >= 0; at = path.indexOf("/", at + 1)) found.add(path.slice(0, at));
  }
  return found;
}

// Parents are first, since `a/` begins the path of all that is in it.
const compare = (one, other) => (one < other ? -1 : one > other ? 1 : 0);

const paddingOf = (sizeBytes, unit = BLOCK_BYTES) => (unit - (sizeBytes % unit)) % unit;

/** The blocks before a member's content. */
function header(path, kind, mode, sizeBytes, modifiedMilliseconds) {
  const name = encoder.encode(path);
  const seconds = Math.max(0, Math.floor(modifiedMilliseconds / 1000));
  const records = [];
  if (name.length > 100 || name.some((byte) => byte > 127)) records.push(record("path", name));
  if (sizeBytes >= LARGEST_OCTAL) records.push(record("size", encoder.encode(String(sizeBytes))));
  const size = sizeBytes < LARGEST_OCTAL ? sizeBytes : 0;
  const block = ustar(name, kind, mode, size, seconds);
  if (!records.length) return block;
  const said = joined(records);
  return joined([
    ustar(encoder.encode("././@PaxHeader"), "x", FILE_MODE, said.length, 0),
    said,
    new Uint8Array(paddingOf(said.length)),
    block,
  ]);
}

/** "<length> <key>=<value>" and a newline, where the length counts its own digits too. */
function record(key, value) {
  const rest = value.length + key.length + 3;
  let length = rest + 1;
  while (rest + String(length).length !== length) length = rest + String(length).length;
  return joined([encoder.encode(`${length} ${key}=`), value, encoder.encode("\n")]);
}

function ustar(name, kind, mode, sizeBytes, seconds) {
  const block = new Uint8Array(BLOCK_BYTES);
  const octal = (value, digits) => encoder.encode(value.toString(8).padStart(digits, "0") + "\0");
  block.set(name.subarray(0, 100), 0);
  block.set(octal(mode, 7), 100);
  block.set(octal(0, 7), 108);
  block.set(octal(0, 7), 116);
  block.set(octal(sizeBytes, 11), 124);
  block.set(octal(seconds, 11), 136);
  block.fill(0x20, 148, 156);
  block.set(encoder.encode(kind), 156);
  block.set(encoder.encode("ustar\u000000"), 257);
  block.set(octal(0, 7), 329);
  block.set(octal(0, 7), 337);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.set(encoder.encode(sum.toString(8).padStart(6, "0") + "\0 "), 148);
  return block;
}

function joined(pieces) {
  const whole = new Uint8Array(pieces.reduce((total, piece) => total + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}
