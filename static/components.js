// Small pieces that several views are made of.

import { RUNS } from "./api.js";
import { el } from "./dom.js";
import { toRun } from "./route.js";
import * as labels from "./labels.js";

export const THUMBNAIL = 256;

export const chip = (status, text = labels.RUN_STATES[status]) => el("span.chip", { "data-status": status }, text);

/** A bar that says how far something is: of `maximum`, or that it goes on where nobody knows how far. */
export const bar = (label, value, maximum = 100) => el("progress", { value, max: maximum, "aria-label": label });

/** A time as the reader would say it; exactly, when it is pointed at. */
export const time = (iso, text = labels.moment(iso)) => el("time", { datetime: iso, title: labels.exactMoment(iso) }, text);

/** A button; `data` is what its action is told, `look` how much it stands out: "quiet", "primary". */
export const button = (text, action, data = {}, look = "plain") =>
  el(`button.button.${look}`, { type: "button", "data-do": action, ...dataset(data) }, text);

export const outputAddress = (id, number) => `${RUNS}/${id}/outputs/${number}`;

/** `side`: of what is fetched, in pixels. */
export const thumbnail = (id, number, alt, side = THUMBNAIL) =>
  el("img", { src: `${outputAddress(id, number)}?preview=${side}`, alt, loading: "lazy", decoding: "async" });

/** Of a run in a list: small pictures that lead to it. */
export const thumbnails = (run, most = 3) =>
  (run.pictures ?? []).slice(0, most).map((each) => {
    const [id, number] = typeof each === "number" ? [run.workflow_id, each] : [each.workflow_id, each.number];
    return el("a.thumbnail", { href: toRun(id), tabindex: -1, "aria-hidden": "true" }, thumbnail(id, number, ""));
  });

/** How long it has run, and how long it may take where that is known. */
export function pace(run, extra_s = 0) {
  if (run.status !== "executing" || !run.gpu_seconds) {
    return run.expected_s && !run.end_time ? `takes about ${labels.duration(run.expected_s)}` : "";
  }
  const elapsed = labels.duration(run.gpu_seconds + extra_s);
  return run.expected_s ? `${elapsed} of about ${labels.duration(run.expected_s)}` : elapsed;
}

/** How long the GPU was at work for what is finished. */
export const tookOf = (run) => (run.end_time && run.gpu_seconds ? labels.duration(run.gpu_seconds) : "");

export const empty = (...children) => el("p.empty", {}, ...children);

function dataset(data) {
  return Object.fromEntries(Object.entries(data).map(([name, value]) => [`data-${name}`, value]));
}
