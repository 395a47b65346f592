/** Sizes as people say them; as the pages' own ones (`size_words`), so that one file has one size everywhere. */

const UNITS = ["B", "kB", "MB", "GB", "TB", "PB"];

/** Decimal units, three digits: 1.43 GB. */
export function sizeText(bytes) {
  let value = bytes;
  let unit = 0;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  if (unit === 0) return `${Math.floor(value)} B`;
  return `${value.toFixed(value < 9.995 ? 2 : value < 99.95 ? 1 : 0)} ${UNITS[unit]}`;
}

// The name by which Uppy looks for its own (see deploy/portal/vendor.mjs).
export { sizeText as prettierBytes };
