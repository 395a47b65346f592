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

/** Whole percent; never 100 before all is there. */
export function percent(part, whole) {
  return whole > 0 ? Math.min(part < whole ? 99 : 100, Math.round((100 * part) / whole)) : 100;
}
