/** The order of a queue after a drag. Knows no page. */

/** `ids` in the order that they have when `moved` was dropped before or behind `target`; null when nothing changes. */
export function idsAfterDrop(ids, moved, target, isBehind) {
  if (moved === target || !ids.includes(moved) || !ids.includes(target)) return null;
  const others = ids.filter((id) => id !== moved);
  const place = others.indexOf(target) + (isBehind ? 1 : 0);
  const ordered = [...others.slice(0, place), moved, ...others.slice(place)];
  return ordered.every((id, number) => id === ids[number]) ? null : ordered;
}
