// Small elements that several views share.

import { RUNS } from "./api.js";
import { el } from "./dom.js";
import { toRun } from "./route.js";
import * as labels from "./labels.js";

export const THUMBNAIL = 256;

export const chip = (status, text = labels.RUN_STATES[status]) => el("span.chip", { "data-status": status }, text);

/** A progress bar. With `value` null the progress is unknown. */
export const bar = (label, value, maximum = 100) => el("progress", { value, max: maximum, "aria-label": label });

/** A short time; the tooltip shows the exact time. */
export const time = (iso, text = labels.moment(iso)) => el("time", { datetime: iso, title: labels.exactMoment(iso) }, text);

/** A button; `data` is what its action is told, `look` is the style: "quiet", "primary". */
export const button = (text, action, data = {}, look = "plain") =>
  el(`button.button.${look}`, { type: "button", "data-do": action, ...dataset(data) }, text);

export const outputAddress = (id, number) => `${RUNS}/${id}/outputs/${number}`;

/** `side`: size of the requested picture, in pixels. */
export const thumbnail = (id, number, alt, side = THUMBNAIL) =>
  el("img", { src: `${outputAddress(id, number)}?preview=${side}`, alt, loading: "lazy", decoding: "async" });

/** Small pictures of a run in a list; each links to the run. */
export const thumbnails = (run, limit = 3) =>
  (run.pictures ?? []).slice(0, limit).map((each) => {
    const [id, number] = typeof each === "number" ? [run.workflow_id, each] : [each.workflow_id, each.number];
    return el("a.thumbnail", { href: toRun(id), tabindex: -1, "aria-hidden": "true" }, thumbnail(id, number, ""));
  });

/** The elapsed time of the run, and its expected time if that is known. */
export function pace(run, extra_s = 0) {
  if (run.status !== "executing" || !run.gpu_seconds) {
    return run.expected_s && !run.end_time ? `takes about ${labels.duration(run.expected_s)}` : "";
  }
  const elapsed = labels.duration(run.gpu_seconds + extra_s);
  return run.expected_s ? `${elapsed} of about ${labels.duration(run.expected_s)}` : elapsed;
}

/** The GPU time of a finished run or batch. */
export const tookOf = (run) => (run.end_time && run.gpu_seconds ? labels.duration(run.gpu_seconds) : "");

const SEVERAL = new Set(["choosePictures", "chooseWorkflow"]); // the actions that take several files

/** A file field as a button or as a place to drop files. */
export const chooser = (action, text, accept, kind, data = {}) =>
  el(`label.${kind}`, {}, text,
    el("input.hidden", { type: "file", accept, multiple: SEVERAL.has(action), "data-do": action, "data-on": "change", ...data }));

export const empty = (...children) => el("p.empty", {}, ...children);

function dataset(data) {
  return Object.fromEntries(Object.entries(data).map(([name, value]) => [`data-${name}`, value]));
}
