/** A chart of bytes per second over time, drawn as SVG in the page's own colours; its words are in a sentence below it. */

import { element } from "./upload/elements.js";
import { sizeText } from "./upload/size-text.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 720;
const HEIGHT = 180;
const LEFT = 72;
const BOTTOM = 24;
const TOP = 10;
const MOST_POINTS = 600;

export class RateChart {
  #points = [];
  #svg = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "rate", role: "img" });
  #words = element("p", { class: "quiet" });
  #figure;

  /** `figure` is shown once there is a line to draw. */
  constructor(figure) {
    this.#figure = figure;
    figure.append(this.#svg, this.#words);
  }

  /** `seconds` grow from point to point. */
  add(seconds, bytesPerSecond) {
    this.#points.push({ seconds, rate: Math.max(0, bytesPerSecond) });
    if (this.#points.length > MOST_POINTS) this.#points = thinned(this.#points);
    if (this.#points.length > 1) this.#draw();
  }

  #draw() {
    const points = this.#points;
    const begin = points[0].seconds;
    const span = Math.max(1, points.at(-1).seconds - begin);
    const peak = Math.max(1, ...points.map((point) => point.rate));
    const top = roundUp(peak);
    const x = (seconds) => LEFT + ((seconds - begin) / span) * (WIDTH - LEFT - 8);
    const y = (rate) => HEIGHT - BOTTOM - (rate / top) * (HEIGHT - BOTTOM - TOP);
    const line = points.map((point) => `${x(point.seconds).toFixed(1)},${y(point.rate).toFixed(1)}`);
    const ground = HEIGHT - BOTTOM;
    const parts = [0, 0.5, 1].flatMap((share) => [
      svg("line", { x1: LEFT, x2: WIDTH - 8, y1: y(top * share), y2: y(top * share), class: "rate-grid" }),
      svg("text", { x: LEFT - 8, y: y(top * share) + 4, "text-anchor": "end" }, `${sizeText(top * share)}/s`),
    ]);
    const ticks = [
      svg("text", { x: LEFT, y: HEIGHT - 6 }, "0 s"),
      svg("text", { x: WIDTH - 8, y: HEIGHT - 6, "text-anchor": "end" }, timeText(span)),
    ];
    const area = svg("polygon", {
      points: [`${LEFT},${ground}`, ...line, `${x(points.at(-1).seconds)},${ground}`].join(" "),
      class: "rate-area",
    });
    this.#svg.replaceChildren(...parts, ...ticks, area, svg("polyline", { points: line.join(" "), class: "rate-line" }));
    const now = points.at(-1).rate;
    const sentence = `Now ${sizeText(Math.round(now))}/s, at most ${sizeText(Math.round(peak))}/s in ${timeText(span)}.`;
    this.#words.textContent = sentence;
    this.#svg.setAttribute("aria-label", `Rate over time. ${sentence}`);
    this.#figure.hidden = false;
  }
}

/** Half as many, each the mean of two; the last stays the last. */
function thinned(points) {
  const fewer = [];
  for (let at = 0; at + 1 < points.length; at += 2) {
    fewer.push({ seconds: points[at + 1].seconds, rate: (points[at].rate + points[at + 1].rate) / 2 });
  }
  return points.length % 2 ? [...fewer, points.at(-1)] : fewer;
}

/** 1, 2 or 5 times a power of ten. */
export function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= value * (1 - 1e-9));
}

function timeText(seconds) {
  if (seconds < 120) return `${Math.round(seconds)} s`;
  return seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

function svg(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text) made.textContent = text;
  return made;
}
