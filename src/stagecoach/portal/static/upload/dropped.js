/**
 * What was dropped onto the page, folders with all that is in them. A folder of which anything cannot be read is refused:
 * one that arrives with a file less looks whole on the cluster.
 */

/** Must be called before the drop's handler yields: browsers empty `dataTransfer` then. Answers `{ files, folders }`. */
export async function readDropped(dataTransfer) {
  const items = Array.from(dataTransfer.items).filter((item) => item.kind === "file");
  const dropped = items.map((item) => ({ entry: item.webkitGetAsEntry(), file: item.getAsFile() }));
  const files = [];
  const folders = [];
  for (const { entry, file } of dropped) {
    if (entry?.isDirectory) folders.push(await readFolder(entry));
    else files.push(file);
  }
  return { files, folders };
}

/** `{ name, files: [{ path, file }], directories: [path] }`, paths relative to the folder. */
async function readFolder(top) {
  const folder = { name: top.name, files: [], directories: [] };
  const left = [{ entry: top, path: "" }];
  while (left.length) {
    const { entry, path } = left.pop();
    for (const inside of await entriesOf(entry, `${top.name}/${path}`)) {
      const inner = path ? `${path}/${inside.name}` : inside.name;
      if (inside.isDirectory) {
        folder.directories.push(inner);
        left.push({ entry: inside, path: inner });
      } else {
        folder.files.push({ path: inner, file: await fileOf(inside, `${top.name}/${inner}`) });
      }
    }
  }
  return folder;
}

/** A reader gives a hundred at a time, and none at the end. */
async function entriesOf(directory, shown) {
  const reader = directory.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, () => reject(unreadable(shown))));
    if (!some.length) return found;
    found.push(...some);
  }
}

function fileOf(entry, shown) {
  return new Promise((resolve, reject) => entry.file(resolve, () => reject(unreadable(shown))));
}

const unreadable = (shown) =>
  new Error(`“${shown}” cannot be read by this browser (is it a broken link?), so nothing was added.`);
