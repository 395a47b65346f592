/** Makes elements without markup in strings: whatever a file is called, its name is text. */

/** `attributes` are set as such, `on…` ones listen, and `hidden` and the like take true or false. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (typeof value === "boolean") made.toggleAttribute(key, value);
    else if (value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

const UNITS = ["kB", "MB", "GB", "TB", "PB"];

/** As people say it: 1.2 GB. */
export function sizeText(bytes) {
  if (bytes < 1000) return `${bytes} bytes`;
  let value = bytes;
  let unit = -1;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${value < 9.95 ? value.toFixed(1) : Math.round(value)} ${UNITS[unit]}`;
}

/** Whole percent; never 100 before all is there. */
export function percent(part, whole) {
  return whole > 0 ? Math.min(part < whole ? 99 : 100, Math.round((100 * part) / whole)) : 100;
}
