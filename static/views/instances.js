// The view "Instances": the state, the costs and the problems of each machine.

import { INSTANCES, load } from "../api.js";
import { el } from "../dom.js";
import { bar, button, empty, time } from "../components.js";
import { toHome } from "../route.js";
import * as labels from "../labels.js";

const REACHED = { unknown: "not connected", connecting: "connecting", ready: "ready", unreachable: "not reachable" };

export const title = () => "Instances";

export async function learn() {
  const { instances, trouble } = await load(INSTANCES);
  const costs = await load(`${INSTANCES}/costs`);
  return { instances, trouble, removed: costs.removed, costs: new Map(costs.instances.map((each) => [each.id, each])) };
}

export function draw({ instances, trouble, removed, costs }) {
  return [
    el("h1", { tabindex: -1, "data-key": "title" }, "Instances"),
    trouble ? el("p.notice", { "data-key": "trouble", "data-tone": "bad" }, trouble) : null,
    instances.length
      ? el("ul.cards.wide", { "data-key": "all" }, instances.map((instance) => card(instance, costs.get(instance.id))))
      : empty("No instances yet. Add one: runs can share it, wait for it, or use any free instance."),
    removedSummary(removed),
    addForm(),
  ];
}

/** Runs and costs of the instances that were removed from the list. */
function removedSummary({ runs, run_cost, idle_cost }) {
  const spent = (run_cost ?? 0) + (idle_cost ?? 0);
  if (!runs && !spent) return null;
  const cost = spent ? `, cost ${labels.money(spent)}` : "";
  return el("p.quiet", { "data-key": "gone" }, `Removed instances: ${labels.count(runs, "run", "runs")}${cost}.`);
}

function card(instance, costs) {
  const { state } = instance;
  return el("li.card.instance", { "data-key": instance.id, "data-reach": state.reachability },
    el("div.line", {}, el("h2", {}, instance.name), el("span.chip", { "data-status": state.reachability }, REACHED[state.reachability])),
    el("p.quiet.small.name", {}, instance.ssh_connection),
    state.host_key ? hostKey(instance) : null,
    state.trouble && !state.host_key ? el("p.problem", {}, state.trouble) : null,
    preparation(state.preparation),
    instance.idle_warning ? el("p.problem", { "data-severity": "warning" }, instance.idle_warning) : null,
    (state.devices ?? []).map(device),
    el("dl.facts", {}, facts(instance, costs).flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])),
    el("div.actions", {}, buttons(instance)));
}

/** What the settings ask for after each start of ComfyUI: a manifest, a warm-up. */
function preparation(told) {
  if (!told || told.status === "done") return null;
  return told.status === "failed" ? el("p.problem", { "data-severity": "warning" }, told.message) : el("p.quiet", {}, told.message);
}

function device({ name, vram_total, vram_free }) {
  const used = vram_total - vram_free;
  return el("div.device", {},
    el("p.line.small", {}, el("span.name", {}, name), el("span.quiet", {}, `${labels.size(used)} of ${labels.size(vram_total)} VRAM`)),
    bar(`VRAM of ${name}`, used, vram_total || 1));
}

function facts({ id, enabled, tags, price_per_hour, state }, costs) {
  const found = [["Queue", queue(state.prompts)]];
  if (costs?.runs) found.push(["Runs", el("a", { href: toHome({ instance: id }) }, labels.count(costs.runs, "run", "runs"))]);
  if (price_per_hour !== null) found.push(["Price", `${labels.money(price_per_hour)} per hour`]);
  if (costs?.run_cost) found.push(["Cost of runs", labels.money(costs.run_cost)]);
  if (costs?.idle_cost) found.push(["Cost of idle time", labels.money(costs.idle_cost)]);
  if (state.comfyui_version) found.push(["ComfyUI", `${state.comfyui_version}, port ${state.comfyui_port}`]);
  if (state.connected_since) found.push(["Connected since", time(state.connected_since)]);
  if (tags.length) found.push(["Tags", tags.join(", ")]);
  if (!enabled) found.push(["Any", "disabled: not used for runs on any instance"]);
  return found;
}

function queue(prompts) {
  if (!prompts) return "not known";
  const there = prompts.running.length + prompts.pending.length;
  const others = prompts.others ? `, ${prompts.others} of other clients` : "";
  return there ? `${prompts.running.length} running, ${prompts.pending.length} waiting${others}` : "empty";
}

function buttons(instance) {
  const { id, name, state, local_port_state: port } = instance;
  const isConnected = state.connected_since !== null || state.reachability === "connecting";
  return [
    isConnected ? button("Disconnect", "disconnect", { id }) : button("Connect", "connect", { id }),
    port?.is_listening && isOnServerMachine() ? el("a.button", { href: `http://127.0.0.1:${port.port}/`, target: "_blank", rel: "noopener" }, "Open ComfyUI") : null,
    port?.is_listening && !isOnServerMachine() ? el("span.quiet.small", {}, `ComfyUI is at 127.0.0.1:${port.port} on the server's machine`) : null,
    port?.trouble ? el("span.problem.small", {}, port.trouble) : null,
    button("Remove", "removeInstance", { id, name }, "quiet"),
  ];
}

/** Tells whether the browser runs on the server's machine: a local port listens on its loopback addresses only. */
const isOnServerMachine = () => ["127.0.0.1", "localhost", "[::1]"].includes(location.hostname);

function hostKey({ id, name, state: { host_key } }) {
  return el("div.notice", { "data-tone": "bad" },
    el("p", {}, "The machine at this address has another host key than before. This happens when you rent a new machine, or when an attacker intercepts the connection. Compare the key with your provider's page."),
    el("dl.keys", {},
      el("dt", {}, "Known"), el("dd", {}, el("code", {}, host_key.known ?? "none")),
      el("dt", {}, "New"), el("dd", {}, el("code", {}, host_key.offered ?? "none"))),
    el("div.actions", {},
      host_key.offered ? button("Accept the new key", "acceptHostKey", { id, name, fingerprint: host_key.offered }) : null,
      button("Forget the known one", "forgetHostKey", { id, name }, "quiet")));
}

function addForm() {
  const input = (name, label, attributes = {}) =>
    el("label.field", {}, el("span", {}, label), el("input", { name, type: "text", autocomplete: "off", ...attributes }));
  return el("form.card.add", { "data-key": "adding", "data-do": "addInstance" },
    el("h2", {}, "Add an instance"),
    el("div.fields", {},
      input("name", "Name", { required: true, maxlength: 64 }),
      input("ssh_connection", "ssh string from your provider", { required: true, spellcheck: "false" }),
      input("comfyui_port", "Port of ComfyUI on the machine", { type: "number", min: 1, max: 65535, placeholder: "found if empty" }),
      input("comfyui_token", "Token for ComfyUI, if it asks for a login", { type: "password", autocomplete: "new-password" }),
      input("price_per_hour", "Price per hour", { type: "number", min: 0, step: "any" }),
      input("local_port", "Local port for its ComfyUI", { type: "number", min: 1024, max: 65535 })),
    el("div.actions", {}, el("button.button.primary", { type: "submit" }, "Add")));
}
