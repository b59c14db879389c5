// The view of one run: its progress; after its end, its outputs and the duration of its nodes.

import { RUNS, load } from "../api.js";
import { el } from "../dom.js";
import { gallery } from "../gallery.js";
import { bar, button, chip, empty, pace, time, tookOf } from "../components.js";
import { toHome, toInstances, toRun, toStart } from "../route.js";
import { timeline } from "../timeline.js";
import * as labels from "../labels.js";

const MANY_NODES = 12;
const NODE_STATES = { pending: "Waiting", executing: "Running", executed: "Done", failed: "Failed" };

export const title = (data) => data?.run.workflow_name ?? "Run";

export async function learn(route, before) {
  const address = `${RUNS}/${encodeURIComponent(route.id)}`;
  const run = (await load(`${address}/progress`)).progress;
  const isSame = before?.run === run;
  const isGraphWanted = document.querySelector("details.graph[open]") && !before?.graph;
  const graph = isGraphWanted ? (await load(`${address}/request`)).graph : before?.graph;
  return { run, graph, learnedAt: isSame ? before.learnedAt : performance.now() };
}

/** A message for screen readers: the run has started or ended. */
export const news = (before, { run }) =>
  run.status !== before.run.status ? `${run.workflow_name}: ${labels.RUN_STATES[run.status]}` : null;

export function draw({ run, graph, learnedAt }) {
  const since_s = (performance.now() - learnedAt) / 1000;
  const isOver = Boolean(run.end_time);
  return [
    el("nav.back", { "data-key": "back", "aria-label": "Back" }, el("a", { href: toHome() }, "← All runs")),
    head(run),
    run.error_message ? trouble(run) : null,
    isOver ? null : watch(run, since_s),
    el("div.columns", { "data-key": "columns" },
      el("section.stage", { "data-key": "stage", "aria-label": isOver ? "Results" : "Latest preview" }, stage(run)),
      el("section.nodes", { "data-key": "nodes", "aria-labelledby": "nodes" }, el("h2", { id: "nodes" }, "Nodes"),
        nodeList(run.nodes, isOver))),
    run.children?.length ? partList(run.children) : null,
    isOver ? timeline(run.nodes) : null,
    facts(run),
    graphPart(graph),
  ];
}

/** The parts of a run on several instances; each is a run of its own. */
function partList(parts) {
  return el("section.parts", { "data-key": "parts", "aria-labelledby": "parts" }, el("h2", { id: "parts" }, "Parts"),
    el("ol.plain", {}, parts.map((part) => el("li.line", { "data-key": part.workflow_id },
      el("a", { href: toRun(part.workflow_id) }, `Part ${part.part}`), " ", chip(part.status), " ",
      el("span.quiet", {}, part.instance ?? "", part.error_message ? `: ${part.error_message}` : "")))));
}

function head(run) {
  return el("header.head", { "data-key": "head" },
    el("div", {},
      el("h1", { tabindex: -1 }, run.workflow_name),
      el("p.quiet", {}, chip(run.status), " ", whereAndWhen(run))),
    el("div.actions", {},
      run.end_time ? null : button(run.cancel_requested ? "Cancelling…" : "Cancel", "cancel",
        { id: run.workflow_id, name: run.workflow_name }, run.cancel_requested ? "waiting" : "plain"),
      run.can_retry ? button(run.error_code === "upload_failed" ? "Retry upload" : "Retry", "retry", { id: run.workflow_id }) : null,
      el("a.button", { href: toStart({ from: run.workflow_id }) }, "Run again with changes"),
      run.outputs.some((output) => output.downloaded)
        ? el("a.button.primary", { href: `${RUNS}/${run.workflow_id}/outputs.zip`, download: "" }, "Download all") : null));
}

function whereAndWhen(run) {
  const took = tookOf(run);
  const cost = run.cost === null ? "" : ` · cost ${labels.money(run.cost)}`;
  return el("span", {},
    labels.place(run), " · ", time(run.end_time ?? run.start_time ?? run.queue_time), took ? ` · took ${took}` : "", cost);
}

function trouble(run) {
  return el("section.notice", { "data-key": "trouble", "data-tone": run.status === "cancelled" ? "calm" : "bad", "aria-label": "What went wrong" },
    el("p", {}, run.error_message),
    run.error_code === "host_key_refused" ? linkToKeys(run.instance_id) : null);
}

const linkToKeys = (instanceId) => (instanceId
  ? el("p", {}, el("a", { href: toInstances }, "Compare the host keys"))
  : el("p", {}, el("a", { href: toInstances }, "Give the machine a name"), " to compare and accept its keys."));

function watch(run, since_s) {
  return el("section.watch", { "data-key": "watch", "aria-label": "Progress" },
    el("p.line", {}, el("strong", {}, labels.situation(run) || "Starting"), el("span.quiet", {}, pace(run, since_s))),
    bar("Nodes completed", finePercent(run)),
    el("p.quiet.line", {},
      el("span", {}, `${run.completed_nodes} of ${labels.count(run.total_nodes, "node", "nodes")}`),
      run.submissions > 1 ? el("span", {}, `submitted ${run.submissions} times`) : null),
    run.transfers?.length ? el("ul.plain.transfers", {}, run.transfers.map(transfer)) : null);
}

/** The percent with the progress within nodes, so that the bar moves during a long node. */
const finePercent = (run) => run.nodes.length
  ? run.nodes.reduce((sum, node) => sum + node.progress, 0) / run.nodes.length : run.progress_percent;

function transfer({ direction, filename, done_bytes, total_bytes }) {
  const verb = direction === "upload" ? "Uploading" : "Downloading";
  const amount = total_bytes === null ? labels.size(done_bytes) : `${labels.size(done_bytes)} of ${labels.size(total_bytes)}`;
  return el("li", { "data-key": `${direction} ${filename}` },
    el("p.line", {}, el("span.name", {}, `${verb} ${filename}`), el("span.quiet", {}, amount)),
    bar(`${verb} ${filename}`, total_bytes === null ? null : done_bytes, total_bytes || 1));
}

function stage(run) {
  if (run.outputs.some((output) => output.downloaded || output.error)) return gallery(run);
  if (run.live_preview) {
    const { number } = run.live_preview;
    return el("img.live", { src: `${RUNS}/${run.workflow_id}/live-preview?number=${number}`, alt: "Live preview" });
  }
  return el("p.empty", {}, run.end_time ? "The run made no outputs." : "The outputs will appear here.");
}

/** The list of nodes. If there are many, the done and the waiting ones are collapsed, so that the running one is visible. */
function nodeList(nodes, isOver) {
  const items = (some) => el("ol.plain", {}, some.map((node) => nodeItem(node, isOver)));
  if (nodes.length <= MANY_NODES) return items(nodes);
  const of = (...statuses) => nodes.filter(({ status }) => statuses.includes(status));
  const [done, waiting] = [of("executed"), of("pending")];
  return [
    done.length ? folded("done", labels.count(done.length, "node done", "nodes done"), items(done)) : null,
    items(of("executing", "failed")),
    waiting.length ? folded("waiting", labels.count(waiting.length, ...(isOver ? ["node not run", "nodes not run"] : ["node waiting", "nodes waiting"])), items(waiting)) : null,
  ];
}

const folded = (key, summary, content) => el("details.folded", { "data-key": key }, el("summary", {}, summary), content);

function nodeItem(node, isOver) {
  const took = node.start_time && node.end_time ? labels.duration(labels.between(node.start_time, node.end_time)) : "";
  const isLeftOut = isOver && node.status === "pending" && !node.message;
  const state = node.message && node.status !== "failed" ? labels.step(node.message) : isLeftOut ? "Not run" : NODE_STATES[node.status];
  return el("li.node", { "data-key": node.node_id, "data-status": node.status, "aria-current": node.status === "executing" ? "step" : null },
    el("div.line", {},
      el("span.name", {}, node.title || node.node_type),
      el("span.quiet", {}, node.status === "executed" && node.message === null ? took || state : state)),
    node.title && node.title !== node.node_type ? el("div.quiet.small", {}, node.node_type) : null,
    node.status === "executing" ? bar(`${node.title || node.node_type}: steps`, node.progress || (node.message ? 0 : null)) : null,
    node.status === "failed" ? el("p.problem", {}, node.message) : null);
}

function facts(run) {
  const reason = /^any(:|$)/.test(run.ssh_connection) ? run.instance_reason : null; // a named target needs no reason
  const webhook = notification(run.webhook);
  if (!run.notices.length && !reason && !webhook) return null;
  return el("section", { "data-key": "facts", "aria-labelledby": "facts" },
    el("h2", { id: "facts" }, "Notes"),
    el("ul.plain.facts", {},
      reason ? el("li", {}, `On ${labels.place(run)}: ${reason}`) : null,
      run.notices.map((notice) => el("li", {}, notice)),
      webhook ? el("li", { "data-key": "webhook" }, webhook) : null));
}

/** The state of the webhook in words; null if there is nothing to tell. */
function notification(webhook) {
  if (!webhook) return null;
  if (webhook.message) return webhook.message;
  return webhook.status === "delivered" ? `Notified ${webhook.url}` : null;
}

function graphPart(graph) {
  return el("details.graph.loads-content", { "data-key": "graph" },
    el("summary", {}, "Graph and inputs"),
    graph
      ? el("ul.graph-nodes", {}, Object.entries(graph).map(([id, node]) => graphNode(id, node, graph)))
      : empty(graph === null ? "The graph is created when the instance has reported its node classes." : "Loading…"));
}

function graphNode(id, node, graph) {
  const name = (each) => graph[each]?._meta?.title || graph[each]?.class_type || each;
  const isLink = (value) => Array.isArray(value) && value.length === 2 && value[0] in graph;
  const word = (value) => (typeof value === "string" ? value : JSON.stringify(value));
  return el("li.card", { "data-key": id },
    el("h3", {}, el("bdi", {}, name(id)), el("span.quiet.small", {}, ` ${node.class_type} · ${id}`)),
    el("dl", {}, Object.entries(node.inputs ?? {}).flatMap(([input, value]) => [
      el("dt", {}, input),
      isLink(value) ? el("dd.quiet", {}, `from ${name(value[0])}`) : el("dd", {}, word(value)),
    ])));
}
