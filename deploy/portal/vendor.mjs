/**
 * Puts the portal's libraries into src/stagecoach/portal/static/vendor/: `npm ci`, then `npm run vendor`.
 *
 * htmx is copied as it is published. Of Uppy and hash-wasm only what the pages import is taken, as one file each: what
 * they publish whole carries forty services (592 KB) and twenty digests (216 KB) that no page uses. Beside them lie the
 * licences of all that went in, and vendor.json with the versions.
 */
import { build } from "esbuild";
import { copyFile, mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";

const here = path.dirname(fileURLToPath(import.meta.url));
const modules = path.join(here, "node_modules");
const vendor = path.join(here, "..", "..", "src", "stagecoach", "portal", "static", "vendor");

const BUNDLES = {
  "uppy.js": "export { BasePlugin, Uppy } from '@uppy/core'\nexport { default as Dashboard } from '@uppy/dashboard'\n",
  "md5.js": "export { createMD5 } from 'hash-wasm'\n",
};
const COPIES = { "htmx.js": ["htmx.org", "dist/htmx.min.js"] };
// One file has one size on our pages: Uppy's own words for sizes have binary figures with decimal units.
const ALIASES = { "@transloadit/prettier-bytes": path.join(here, "../../src/stagecoach/portal/static/upload/size-text.js") };
const STYLES = { "uppy.css": ["@uppy/core/dist/style.min.css", "@uppy/dashboard/dist/style.min.css"] };

/** The packages, by name, of which something went into the bundle. */
async function bundle(file, contents) {
  const result = await build({
    stdin: { contents, resolveDir: here },
    absWorkingDir: here,
    outfile: path.join(vendor, file),
    alias: ALIASES,
    bundle: true,
    minify: true,
    format: "esm",
    target: "es2022",
    legalComments: "none",
    define: { "process.env.NODE_ENV": '"production"' },
    metafile: true,
    logLevel: "warning",
  });
  const used = Object.values(result.metafile.outputs).flatMap((output) => Object.keys(output.inputs));
  return used.map((input) => /.*node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(input)?.[1]).filter(Boolean);
}

async function licence(name) {
  const directory = path.join(modules, name);
  const description = JSON.parse(await readFile(path.join(directory, "package.json"), "utf8"));
  const file = (await readdir(directory)).find((entry) => /^(licen[cs]e|copying)/i.test(entry));
  const text = file ? await readFile(path.join(directory, file), "utf8") : `Licence: ${description.license}`;
  return { name, version: description.version, licence: description.license, text: text.trim() };
}

await rm(vendor, { recursive: true, force: true });
await mkdir(vendor, { recursive: true });
const used = new Set(Object.values(COPIES).map(([name]) => name));
for (const [file, contents] of Object.entries(BUNDLES)) {
  for (const name of await bundle(file, contents)) used.add(name);
}
for (const [file, [name, inside]] of Object.entries(COPIES)) {
  await copyFile(path.join(modules, name, inside), path.join(vendor, file));
}
for (const [file, sources] of Object.entries(STYLES)) {
  const texts = await Promise.all(sources.map((source) => readFile(path.join(modules, source), "utf8")));
  await writeFile(path.join(vendor, file), texts.map((text) => text.trim() + "\n").join(""));
}
const licences = await Promise.all([...used].sort().map(licence));
await writeFile(
  path.join(vendor, "LICENCES.txt"),
  licences.map((found) => `== ${found.name} ${found.version} (${found.licence})\n\n${found.text}\n`).join("\n"),
);
const versions = Object.fromEntries(licences.map((found) => [found.name, found.version]));
await writeFile(path.join(vendor, "vendor.json"), JSON.stringify(versions, null, 2) + "\n");
console.log(`${licences.length} packages in ${path.relative(process.cwd(), vendor)}`);
