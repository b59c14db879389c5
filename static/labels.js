// Texts for times, sizes, money and states, in the locale and time zone of the browser.

const TIME = new Intl.DateTimeFormat(undefined, { timeStyle: "short" });
const DATE_AND_TIME = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const EXACT = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });
const COUNT = new Intl.NumberFormat();
const UNITS = ["B", "KB", "MB", "GB", "TB"];

/** "14:03" today, with the date otherwise. */
export function moment(iso) {
  const at = new Date(iso);
  return at.toDateString() === new Date().toDateString() ? TIME.format(at) : DATE_AND_TIME.format(at);
}

export const exactMoment = (iso) => EXACT.format(new Date(iso));

/** "40 ms", "1.4 s", "42 s", "3 min 5 s", "2 h 10 min". */
export function duration(seconds) {
  if (seconds < 0.95) return `${Math.max(0, Math.round(seconds * 1000))} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

export const count = (number, one, many) => `${COUNT.format(number)} ${number === 1 ? one : many}`;

/** "1.4 GB"; a KB has 1000 bytes. */
export function size(bytes) {
  const power = Math.min(Math.floor(Math.log10(Math.max(bytes, 1)) / 3), UNITS.length - 1);
  const value = bytes / 1000 ** power;
  return `${value >= 100 || power === 0 ? Math.round(value) : value.toFixed(1)} ${UNITS[power]}`;
}

/** An amount without a currency: the user enters prices in any currency. */
export const money = (amount) => (amount > 0 && amount < 0.01 ? "under 0.01" : amount.toFixed(2));

export const between = (start, end) => (new Date(end) - new Date(start)) / 1000;

export const RUN_STATES = {
  queued: "Waiting",
  executing: "Running",
  completed: "Completed",
  failed: "Failed",
  cancelled: "Cancelled",
};

/** A short text on the current activity of a run. */
export function situation(run) {
  if (run.status === "queued" && run.queue_position !== null && run.phase !== "queued") {
    return run.message ?? ahead(run.queue_position);
  }
  if (run.status === "queued" && run.queue_position !== null) return ahead(run.queue_position);
  if (run.message) return run.message;
  if (run.status === "executing" && run.current_node) {
    const node = run.current_node_title || run.current_node;
    return run.current_node_message ? `${isolate(node)} · ${step(run.current_node_message)}` : node;
  }
  return "";
}

/** Isolates a name with Unicode marks, so that right-to-left text in it does not affect the text after it. */
const isolate = (name) => `\u2068${name}\u2069`;

/** Formats a step message of ComfyUI, "Step 45/100", as "step 45 of 100". */
export const step = (message) => message.replace(/^Step (\S+)\/(\S+)$/, "step $1 of $2");

const ahead = (position) => (position === 0 ? "Next in the queue" : `${position} ahead in the queue`);

/** The instance of a run, or its target if it has no instance yet. */
export function place(run) {
  if (run.instance) return run.instance;
  const target = run.ssh_connection ?? "";
  if (target === "any") return "any instance";
  return target.startsWith("any:") ? `any instance tagged ${target.slice(4)}` : host(target);
}

/** User, host and port of an ssh string: "root@198.53.64.194:40738". */
function host(target) {
  const found = /([^\s/@]+@(?:\[[^\]\s]+\]|[^\s:]+))(?::(\d+))?/.exec(target);
  if (!found) return target.replace(/^ssh\s+/, "");
  const port = /(?:^|\s)-p\s*(\d+)/.exec(target)?.[1] ?? found[2];
  return found[1] + (port ? `:${port}` : "");
}
