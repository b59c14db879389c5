// The view "Runs": running workflows, problems, the latest pictures, and the list of all runs.

import { BATCHES, INSTANCES, RUNS, load } from "../api.js";
import { el } from "../dom.js";
import { bar, button, chip, empty, pace, thumbnail, thumbnails, time, tookOf } from "../components.js";
import { recall, remember } from "../storage.js";
import { toHome, toInstances, toRun, toStart } from "../route.js";
import * as labels from "../labels.js";

const ROWS = 30;
const ROWS_OF_BATCH = 50;
const LATEST_PICTURES = 16;
const FAILURES = 3;
const FAILURES_LOADED = 30; // the list is in the order of starts, so more are loaded than shown
const POLLS_PER_INSTANCES = 5; // the instances are loaded with every fifth poll
const SEEN = "failures-seen-until";
const FILTERS = ["status", "name", "instance", "batch"];

let opened = []; // ids of expanded batches, also while another view is shown

export const title = () => "Runs";

/** Loads the data of the view. The list is loaded again only if a run has started or ended, or if the filter or the
 * page has changed. */
export async function learn(route, before) {
  const now = await load(`${RUNS}/now`);
  const asked = listAddress(route.query);
  const isChanged = before?.asked !== asked || before.now.version !== now.version;
  const looks = ((before?.looks ?? -1) + 1) % POLLS_PER_INSTANCES;
  opened = openBatches();
  return {
    now,
    asked,
    looks,
    learnedAt: before?.now === now ? before.learnedAt : performance.now(),
    list: isChanged ? await load(asked) : before.list,
    failures: isChanged ? (await load(`${RUNS}?status=failed&limit=${FAILURES_LOADED}`)).workflows : before.failures,
    batchName: await nameOfBatch(route.query.get("batch"), isChanged ? undefined : before?.batchName),
    instances: looks === 0 ? (await load(INSTANCES)).instances : before.instances,
    batches: Object.fromEntries(await each(opened, async (id) => [id, (await load(batchAddress(id))).workflows])),
  };
}

export function draw({ now, list, failures, instances, batches, batchName, learnedAt }, { query }) {
  const since_s = (performance.now() - learnedAt) / 1000;
  const moving = new Map(now.executing.map((run) => [run.workflow_id, run]));
  return [
    el("h1.hidden", { "data-key": "title", tabindex: -1 }, "Runs"),
    running(now, since_s),
    needs(failures, instances),
    latest(list.workflows, query),
    all(list, { query, instances, batches, batchName, moving }),
  ];
}

export const actions = {
  dismiss: ({ at, ids }) => remember(SEEN, `${at} ${ids}`),
  filter: (_data, form) => { location.hash = toHome(Object.fromEntries(new FormData(form))); },
};

function listAddress(query) {
  const wanted = new URLSearchParams([...query].filter(([, value]) => value));
  if (!FILTERS.some((name) => wanted.has(name))) wanted.set("grouped", "true");
  wanted.set("limit", ROWS);
  return `${RUNS}?${wanted}`;
}

async function nameOfBatch(id, known) {
  if (!id || known !== undefined) return id ? known : null;
  return (await load(`${BATCHES}/${encodeURIComponent(id)}/progress`)).progress.batch_name;
}

const batchAddress = (id) => `${RUNS}?batch=${encodeURIComponent(id)}&limit=${ROWS_OF_BATCH}`;

function openBatches() {
  const shown = [...document.querySelectorAll("details.batch")];
  return shown.length ? shown.filter(({ open }) => open).map(({ dataset }) => dataset.batch) : opened;
}

async function each(things, ask) {
  const answers = [];
  for (const thing of things) answers.push(await ask(thing)); // one request at a time
  return answers;
}

function needs(failures, instances) {
  const fresh = failures.filter(isUnseen(recall(SEEN) ?? "")).sort((one, other) => (one.end_time < other.end_time ? 1 : -1));
  const waiting = instances.filter((instance) => instance.state.host_key || instance.idle_warning);
  if (!fresh.length && !waiting.length) return null;
  return el("section.needs", { "data-key": "needs", "aria-labelledby": "needs" },
    el("div.line", {},
      el("h2", { id: "needs" }, "Needs attention"),
      fresh.length ? button("Seen", "dismiss", { at: fresh[0].end_time, ids: failedAt(failures, fresh[0].end_time) }, "quiet") : null),
    el("ul.plain", {}, fresh.slice(0, FAILURES).map(failure), waiting.map(attention)));
}

/** `seen` is a time and the ids of the runs that failed in that second, because times have a resolution of one second. */
function isUnseen(seen) {
  const [at, ...ids] = seen.split(" ");
  return (run) => run.end_time > at || (run.end_time === at && !ids.includes(run.workflow_id));
}

const failedAt = (failures, at) => failures.filter((run) => run.end_time === at).map((run) => run.workflow_id).join(" ");

const failure = (run) =>
  el("li.notice", { "data-tone": "bad", "data-key": run.workflow_id },
    el("p", {}, el("a", { href: toRun(run.workflow_id) }, run.workflow_name), " failed ", time(run.end_time), el("br"), run.error_message));

const attention = ({ id, name, state, idle_warning }) =>
  el("li.notice", { "data-tone": state.host_key ? "bad" : "warn", "data-key": id },
    state.host_key
      ? el("p", {}, el("a", { href: toInstances }, name), " has another host key", el("br"), state.trouble)
      : el("p", {}, idle_warning, " ", el("a", { href: toInstances }, "Show it")));

function running(now, since_s) {
  return el("section", { "data-key": "now", "aria-labelledby": "now" },
    el("h2", { id: "now" }, "Now"),
    now.executing.length
      ? el("ul.cards", {}, now.executing.map((run) => card(run, since_s)))
      : empty("No workflow is running. ", el("a", { href: toStart() }, "Start a run")),
    now.counts.queued ? waiting(now) : null);
}

function card(run, since_s) {
  const source = run.live_preview && `${RUNS}/${run.workflow_id}/live-preview?number=${run.live_preview.number}`;
  return el("li.card", { "data-key": run.workflow_id },
    el("a.cover", { href: toRun(run.workflow_id), "data-status": "executing" },
      el("div.frame", {}, source ? el("img", { src: source, alt: "" }) : null),
      el("div.body", {},
        el("h3", {}, run.workflow_name),
        el("p.quiet", {}, [labels.place(run), pace(run, since_s)].filter(Boolean).join(" · ")),
        bar(`${run.workflow_name}: nodes completed`, run.progress_percent),
        el("p.now", {}, labels.situation(run)))));
}

function waiting(now) {
  const more = now.counts.queued - now.waiting.length;
  return el("div.waiting", { "data-key": "waiting" },
    el("h3.quiet", {}, `${labels.count(now.counts.queued, "run waits", "runs wait")}`),
    el("ol.plain", {}, now.waiting.map((run) =>
      el("li", { "data-key": run.workflow_id },
        el("a.name", { href: toRun(run.workflow_id) }, run.workflow_name),
        el("span.quiet", {}, [labels.place(run), labels.situation(run)].filter(Boolean).join(" · "))))),
    more > 0 ? el("p", {}, el("a", { href: toHome({ status: "queued" }) }, `and ${labels.count(more, "other", "others")}`)) : null);
}

function latest(rows, query) {
  const pictures = rows.flatMap((row) => (row.pictures ?? []).map((each) => typeof each === "number"
    ? { id: row.workflow_id, number: each, name: row.workflow_name }
    : { id: each.workflow_id, number: each.number, name: row.batch_name }));
  if (!pictures.length || query.has("before")) return null;
  return el("section", { "data-key": "latest", "aria-labelledby": "latest" },
    el("h2", { id: "latest" }, "Latest pictures"),
    el("ul.strip", {}, pictures.slice(0, LATEST_PICTURES).map(({ id, number, name }) =>
      el("li", { "data-key": `${id}/${number}` }, el("a", { href: toRun(id) }, thumbnail(id, number, name))))));
}

function all(list, { query, instances, batches, batchName, moving }) {
  const isFiltered = FILTERS.some((name) => query.get(name));
  return el("section", { "data-key": "all", "data-top": "", "aria-labelledby": "all" },
    el("div.line", {}, el("h2", { id: "all" }, heading(batchName)), el("span.quiet", {}, labels.count(list.total, "run", "runs"))),
    list.total || isFiltered ? filters(query, instances) : null,
    list.workflows.length
      ? el("ul.rows", {}, list.workflows.map((row) => (row.total === undefined
        ? runRow(moving.get(row.workflow_id) ?? row) : batchRow(row, batches[row.batch_id]))))
      : empty(isFiltered ? "No run matches the filters." : "No runs yet. To start one, you need a workflow and an ssh string."),
    pages(list, query));
}

const heading = (batchName) =>
  batchName === null ? "All runs" : ["Runs of ", el("bdi", {}, batchName), " · ", el("a", { href: toHome() }, "all runs")];

function filters(query, instances) {
  const chosen = (name, value) => query.get(name) === value;
  const option = (name, value, text) => el("option", { value, selected: chosen(name, value) }, text);
  return el("form.filters", { "data-do": "filter", "data-on": "change", role: "search", "aria-label": "Runs" },
    query.get("batch") ? el("input", { type: "hidden", name: "batch", value: query.get("batch") }) : null,
    el("label", {}, el("span.hidden", {}, "Name"),
      el("input", { type: "search", name: "name", value: query.get("name") ?? "", placeholder: "Name", autocomplete: "off" })),
    el("label", {}, el("span.hidden", {}, "State"),
      el("select", { name: "status" }, el("option", { value: "" }, "Any state"),
        Object.entries(labels.RUN_STATES).map(([value, text]) => option("status", value, text)))),
    instances.length ? el("label", {}, el("span.hidden", {}, "Instance"),
      el("select", { name: "instance" }, el("option", { value: "" }, "Any instance"),
        instances.map(({ id, name }) => option("instance", id, name)))) : null);
}

function runRow(run, name = run.workflow_name) {
  return el("li.row", { "data-key": run.workflow_id, "data-status": run.status },
    chip(run.status),
    el("div.what", {},
      el("a.name", { href: toRun(run.workflow_id) }, name),
      el("span.quiet.one-line", {}, run.error_message ?? (run.end_time ? [labels.place(run), ...run.notices].join(" · ") : [labels.place(run), labels.situation(run)].filter(Boolean).join(" · ")))),
    el("div.when.quiet", {}, time(run.end_time ?? run.start_time ?? run.queue_time), el("span", {}, tookOf(run))),
    el("div.thumbnails", {}, thumbnails(run)));
}

function batchRow(batch, runs) {
  const done = batch.total - batch.counts.queued - batch.counts.executing;
  const failed = batch.counts.failed ? ` · ${batch.counts.failed} failed` : "";
  return el("li", { "data-key": batch.batch_id },
    el("details.batch.loads-content", { "data-batch": batch.batch_id, open: opened.includes(batch.batch_id) },
      el("summary.row", { "data-status": batch.status },
        chip(batch.status),
        el("div.what", {},
          el("span.name", {}, batch.batch_name),
          el("span.quiet", {}, `${done} of ${labels.count(batch.total, "run", "runs")}${failed}`),
          done < batch.total ? bar(`${batch.batch_name}: runs`, batch.progress_percent) : null),
        el("div.when.quiet", {}, time(batch.queue_time), el("span", {}, tookOf(batch))),
        el("div.thumbnails", {}, thumbnails(batch))),
      el("div.inside", {}, runs ? batchInside(batch, runs, done) : empty("Loading…"))));
}

function batchInside(batch, runs, done) {
  const address = `${BATCHES}/${batch.batch_id}`;
  return [
    el("div.actions", {},
      done < batch.total ? button("Cancel the rest", "cancelBatch", { id: batch.batch_id, name: batch.batch_name }) : null,
      batch.can_retry ? button("Retry failed runs", "retryBatch", { id: batch.batch_id }) : null,
      batch.pictures.length ? el("a.button", { href: `${address}/outputs.zip`, download: "" }, "Download all") : null),
    el("ul.rows", {}, runs.map((run, place) => runRow(run, `${run.workflow_name} ${batch.total - place}`))),
    batch.total > runs.length
      ? empty(`The newest ${runs.length} of ${batch.total}. `, el("a", { href: toHome({ batch: batch.batch_id }) }, "Show all")) : null,
  ];
}

function pages(list, query) {
  if (!list.next && !query.has("before")) return null;
  const to = (before) => toHome({ ...Object.fromEntries(query), before });
  return el("nav.pages", { "aria-label": "Pages of runs" },
    query.has("before") ? el("a.button", { href: to(null) }, "Newest") : null,
    list.next ? el("a.button", { href: to(list.next) }, "Older") : null);
}
