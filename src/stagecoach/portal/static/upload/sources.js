/** What a person chose, as entries for Uppy's list: a file is one upload, a folder is one too (see tar-stream.js). */

import { tarStream } from "./tar-stream.js";

/** Files of one choice as entries; those from inside of folders (browsers give them one by one) become their folders. */
export function withFoldersAsOne(descriptors) {
  const folders = new Map();
  const single = [];
  for (const descriptor of descriptors) {
    const path = (descriptor.meta?.relativePath ?? "").replace(/^\//, "");
    const end = path.indexOf("/");
    if (end < 0) {
      single.push(descriptor);
      continue;
    }
    const name = path.slice(0, end);
    if (!folders.has(name)) folders.set(name, { name, files: [], directories: [] });
    folders.get(name).files.push({ path: path.slice(end + 1), file: descriptor.data });
  }
  return [...single, ...[...folders.values()].map(folderEntry)];
}

export function fileEntry(file) {
  return { source: "Stagecoach", name: file.name, type: file.type, data: file, meta: { relativePath: null } };
}

export function folderEntry({ name, files, directories }) {
  const { blob, fileCount, lastModified, listing } = tarStream(files, directories);
  const meta = { relativePath: null, archive: "tar", fileCount, lastModified, listing };
  return { source: "Stagecoach", name, type: "application/x-tar", data: blob, meta };
}
