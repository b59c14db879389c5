// The timeline of a run: a bar for each of the slowest nodes, from its start to its end.

import { el, svg } from "./dom.js";
import * as labels from "./labels.js";

const WIDTH = 1000; // in units of the drawing, not in pixels
const MIN_WIDTH = 3;
const STEPS_S = [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200];
const MAX_TICKS = 6;
const MAX_BARS = 12;

export function timeline(nodes) {
  const timed = nodes.filter((node) => node.start_time && node.end_time);
  if (!timed.length) return null;
  const began = Math.min(...timed.map((node) => Date.parse(node.start_time)));
  const ended = Math.max(...timed.map((node) => Date.parse(node.end_time)));
  const whole_s = Math.max((ended - began) / 1000, 0.001);
  const inOrder = [...timed].sort((one, other) => Date.parse(one.start_time) - Date.parse(other.start_time));
  const longest = new Set([...timed].sort((one, other) => took(other) - took(one)).slice(0, MAX_BARS));
  return el("section.timeline", { "data-key": "timeline", "aria-labelledby": "timeline" },
    el("h2", { id: "timeline" }, "Duration of nodes"),
    el("ol.plain", {}, inOrder.filter((node) => longest.has(node)).map((node) => row(node, began, whole_s))),
    others(inOrder.filter((node) => !longest.has(node))),
    axis(whole_s));
}

const took = (node) => labels.between(node.start_time, node.end_time);

function others(nodes) {
  if (!nodes.length) return null;
  const together_s = nodes.reduce((sum, node) => sum + took(node), 0);
  return el("p.quiet.small", {}, `${labels.count(nodes.length, "other node", "other nodes")}, together ${labels.duration(together_s)}`);
}

function row(node, began, whole_s) {
  const start_s = (Date.parse(node.start_time) - began) / 1000;
  const took_s = took(node);
  const x = (start_s / whole_s) * WIDTH;
  const width = Math.max((took_s / whole_s) * WIDTH, MIN_WIDTH);
  return el("li", { "data-key": node.node_id, "data-status": node.status },
    el("span.name", {}, node.title || node.node_type),
    svg("svg", { viewBox: `0 0 ${WIDTH} 10`, preserveAspectRatio: "none", "aria-hidden": "true" },
      svg("rect", { x: Math.min(x, WIDTH - width), width, y: 0, height: 10 })),
    el("span.quiet", {}, labels.duration(took_s)));
}

function axis(whole_s) {
  const step_s = STEPS_S.find((each) => whole_s / each <= MAX_TICKS) ?? whole_s / MAX_TICKS;
  const ticks = Array.from({ length: Math.floor(whole_s / step_s) + 1 }, (_, number) => number * step_s);
  return el("div.axis", { "aria-hidden": "true" },
    svg("svg", { viewBox: `0 0 ${WIDTH} 6`, preserveAspectRatio: "none" },
      ticks.map((at_s) => svg("line", { x1: (at_s / whole_s) * WIDTH, x2: (at_s / whole_s) * WIDTH, y1: 0, y2: 6 }))),
    el("p.line.quiet.small", {}, el("span", {}, "0"), el("span", {}, `a mark every ${labels.duration(step_s)}`), el("span", {}, labels.duration(whole_s))));
}
