// The view "Start a run": the workflow, the target, the pictures, the key inputs, and the result of the check.

import { INSTANCES, isUnreachable, load } from "../api.js";
import { el } from "../dom.js";
import { changeDelivery, deliveryFields, isDefault } from "../delivery.js";
import * as drafts from "../draft.js";
import { button, chooser } from "../components.js";
import { toHome, toRun } from "../route.js";
import * as labels from "../labels.js";

const MANY_OPTIONS = 500;
const NO_RESPONSE = "The server did not respond. The run may have started. Press Start again when the server is back: the run does not start twice.";
let draft = drafts.restore();
let sourceRun = draft?.base.again ?? null; // id of the run that is run again

export const title = () => "Start a run";

export async function learn(route) {
  const from = route.query.get("from");
  const { instances } = await load(INSTANCES);
  if (draft === null || draft.isStarted || sourceRun !== from) {
    const made = drafts.newDraft(instances);
    if (from) await drafts.takeRun(made, from);
    [draft, sourceRun] = [made, from];
    if (from) checkIfKnown();
  }
  draft.instances = instances;
  return { draft };
}

export function draw() {
  return [
    el("nav.back", { "data-key": "back", "aria-label": "Back" }, el("a", { href: toHome() }, "← All runs")),
    el("h1", { tabindex: -1, "data-key": "title" }, "Start a run"),
    el("form.start", { "data-key": `draft ${draft.number}`, "data-do": "start", novalidate: true },
      el("div.what-to-run", {}, workflowPart(), draft.inspection ? inputsPart() : null),
      el("aside", {}, wherePart(), missingModels(), footer())),
  ];
}

export const actions = {
  chooseWorkflow: (_data, input) => withFiles(input, (files) => drafts.takeWorkflow(draft, files), true),
  choosePicture: ({ name }, input) => withFiles(input, ([file]) => drafts.takePictures(draft, [file], name), true),
  choosePictures: (_data, input) => withFiles(input, (files) => drafts.takePictures(draft, files), true),
  choosePlace: (_data, select) => { drafts.setTarget(draft, { place: select.value }); return checkIfKnown(); },
  typeSsh: (_data, input) => drafts.setTarget(draft, { sshString: input.value }),
  typePort: (_data, input) => drafts.setTarget(draft, { comfyuiPort: input.value }),
  changeInput: ({ name }, field) => drafts.change(draft, inputNamed(name), field.value),
  randomSeed: ({ name }) => {
    drafts.change(draft, inputNamed(name), drafts.randomSeed());
    document.getElementById(fieldId(name)).value = draft.changes[name];
  },
  nameRun: (_data, input) => { draft.workflowName = input.value; },
  choosePriority: (_data, input) => { draft.base.priority = Number(input.value) || 0; },
  chooseParts: (_data, input) => { draft.base.spread = Number(input.value) > 1 ? Number(input.value) : undefined; },
  typeApiKey: (_data, input) => { draft.apiKey = input.value; drafts.markStale(draft); },
  changeDelivery: ({ name }, field) => { changeDelivery(draft.delivery, name, field.value); drafts.markStale(draft); },
  chooseSeeds: (_data, select) => { draft.base.seed_mode = select.value; },
  check: () => checkNow(),
  provision: () => { draft.base.provision = true; return start(); },
  start,
};

let redraw = () => {};
/** Sets the function that redraws the page after an asynchronous change. */
export const onChange = (listener) => { redraw = listener; };
window.addEventListener("pagehide", () => { if (draft) drafts.save(draft); });

async function start() {
  draft.trouble = null;
  draft.isStarting = true;
  redraw();
  try {
    location.hash = toRun(await drafts.start(draft));
    draft.isStarted = true;
  } catch (error) {
    draft.trouble = isUnreachable(error) ? NO_RESPONSE : error.message;
    draft.isStarting = false;
  }
}

async function checkNow() {
  const checked = drafts.check(draft);
  redraw();
  await checked;
  redraw();
}

const checkIfKnown = () => (draft.inspection && draft.place ? checkNow() : null);

/** Handles files from a file field or a drop. */
async function withFiles(source, take, isChecked) {
  const files = [...(source.files ?? [])];
  if (!files.length) return;
  draft.trouble = null;
  draft.uploading = files.map(({ name }) => name).join(", ");
  redraw();
  try {
    await take(files);
  } catch (error) {
    draft.trouble = error.message;
  } finally {
    draft.uploading = null;
    if ("value" in source) source.value = ""; // the same file may be chosen again
  }
  if (isChecked && !draft.trouble) await checkIfKnown();
}

function workflowPart() {
  const { inspection, fileName } = draft;
  return el("section.card", { "data-key": "workflow", "aria-labelledby": "workflow", "data-drop": "chooseWorkflow" },
    el("h2", { id: "workflow" }, "Workflow"),
    inspection ? el("p", {}, el("strong.name", {}, fileName), el("span.quiet", {},
      ` · ${labels.count(inspection.nodes.length, "node", "nodes")} · ${inspection.format === "editor" ? "the editor's format" : "API format"}`)) : null,
    chooser("chooseWorkflow", inspection ? "Choose another" : "Drop a workflow here, or choose a file",
      ".json,.png,.webp,.avif,.jpg,.jpeg,.mp4,.mov,.webm,.mkv,.flac,.mp3,.opus,.glb,.svg,.latent", inspection ? "button" : "drop"),
    inspection ? null : el("p.quiet.small", {}, "JSON, saved by the editor or in API format; or a picture or video with its workflow inside."));
}

function wherePart() {
  const { instances, place } = draft;
  const option = (value, text) => el("option", { value, selected: value === place }, text);
  const tags = [...new Set(instances.flatMap((each) => each.tags))];
  const offered = [drafts.SSH_STRING, "any", ...instances.map(({ name }) => name), ...tags.map((tag) => `any:${tag}`)];
  return el("section.card", { "data-key": "where", "aria-labelledby": "where" },
    el("h2", { id: "where" }, "Where"),
    instances.length ? el("label.field", {}, el("span", {}, "Instance"),
      el("select", { "data-do": "choosePlace", "data-on": "change" },
        instances.map(({ name, state }) => option(name, `${name} (${state.reachability})`)),
        option("any", "Any free instance"), tags.map((tag) => option(`any:${tag}`, `Any tagged ${tag}`)),
        offered.includes(place) ? null : option(place, `${place} (removed)`),
        option(drafts.SSH_STRING, "An ssh string…"))) : null,
    place === drafts.SSH_STRING ? [
      el("label.field", {}, el("span", {}, "ssh string from your provider"),
        el("input", { type: "text", value: draft.sshString, placeholder: "ssh -p 40738 root@198.53.64.194 -L 8080:localhost:18188",
          "data-do": "typeSsh", "data-on": "input", autocomplete: "off", spellcheck: "false", required: true })),
      el("label.field", {}, el("span", {}, "Port of ComfyUI on the machine (found if empty)"),
        el("input", { type: "number", min: 1, max: 65535, value: draft.comfyuiPort ?? "", placeholder: "18188 or 8188",
          "data-do": "typePort", "data-on": "input", inputmode: "numeric" }))] : null);
}

function inputsPart() {
  const { inputs } = draft;
  const files = inputs.filter(({ kind }) => kind === "file");
  const others = inputs.filter(({ kind }) => kind !== "file");
  const nodes = [...new Set(others.map(({ node_id }) => node_id))];
  const elsewhere = [...new Set(allFindings().map(({ node_id }) => node_id))].filter((id) => !inputs.some(({ node_id }) => node_id === id));
  return [
    files.length ? el("section.card", { "data-key": "pictures", "aria-labelledby": "pictures", "data-drop": "choosePictures" },
      el("h2", { id: "pictures" }, "Input files"),
      el("ul.slots", {}, files.map(slot)),
      chooser("choosePictures", "Drop files here, or choose several", null, "drop")) : null,
    el("section.card", { "data-key": "inputs", "aria-labelledby": "inputs" },
      el("h2", { id: "inputs" }, "Inputs"),
      inputs.length || !draft.inspection.needs_instance ? null
        : el("p.quiet", {}, "Press Check to load the inputs from an instance."),
      elsewhere.map((id) => el("div.group", { "data-key": `findings ${id}` }, id === null ? null : el("h3", {}, nodeName(id)), problems(id))),
      nodes.map((id) => nodeGroup(id, others.filter(({ node_id }) => node_id === id))),
      more()),
  ];
}

function nodeGroup(id, inputs) {
  const { title, class_type } = inputs[0];
  return el("fieldset.group", { "data-key": id },
    el("legend", {}, el("bdi", {}, title || class_type), title && title !== class_type ? el("span.quiet.small", {}, ` ${class_type}`) : null),
    el("div.fields", {}, inputs.map(field)),
    problems(id));
}

function field(input) {
  const id = fieldId(input.name);
  const own = { id, "data-do": "changeInput", "data-on": "input", "data-name": input.name,
    "aria-describedby": drafts.findings(draft, input.node_id).length ? problemsId(input.node_id) : null,
    "aria-invalid": drafts.findings(draft, input.node_id).some((each) => each.input === input.input && each.severity === "error") ? "true" : null };
  return el("div.field", { "data-kind": input.kind, "data-key": `${input.name} ${input.options ? "options" : ""}` },
    el("label", { for: id }, input.input, input.role ? ` (${input.role})` : ""), control(input, own),
    input.kind === "seed" ? button("Random", "randomSeed", { name: input.name }) : null);
}

function control(input, own) {
  const value = drafts.valueOf(draft, input);
  if (input.options && input.options.length <= MANY_OPTIONS) {
    const options = input.options.includes(value) ? input.options : [value, ...input.options];
    return el("select", own, options.map((each) => el("option", { value: each, selected: each === value }, String(each))));
  }
  if (input.kind === "text") return el("textarea", { ...own, rows: Math.min(8, Math.max(2, Math.ceil(String(value).length / 60))) }, String(value));
  if (typeof input.value !== "number") return el("input", { ...own, type: "text", value });
  return el("input", { ...own, type: "number", value, min: input.minimum, max: input.maximum, step: input.step ?? "any", inputmode: "decimal" });
}

function slot(input) {
  const chosen = draft.pictures[input.name];
  return el("li", { "data-key": input.name, "data-drop": "choosePicture", "data-name": input.name },
    el("div.frame", {}, chosen?.url && input.media === "image" ? el("img", { src: chosen.url, alt: chosen.filename }) : null),
    el("div", {},
      el("p.name", {}, input.title || input.class_type),
      el("p.quiet.small.name", {}, chosen ? chosen.filename : `${input.value} (as in the workflow)`),
      chooser("choosePicture", chosen ? "Choose another" : "Choose", input.media && `${input.media}/*`, "button", { "data-name": input.name }),
      problems(input.node_id)));
}

function more() {
  const modes = [["saved", "as in the workflow"], ["control", "change as in the editor"], ["randomize", "new random seeds"]];
  const mode = draft.base.seed_mode ?? "saved";
  return el("details", { "data-key": "more", open: mode !== "saved" || !isDefault(draft.delivery) },
    el("summary", {}, "More: name, seeds, priority, image format, upload, webhook, API key"),
    el("div.fields", {},
      el("label.field", {}, el("span", {}, "Name of the run"),
        el("input", { type: "text", value: draft.workflowName, placeholder: draft.fileName, maxlength: 200, "data-do": "nameRun", "data-on": "input" })),
      el("label.field", {}, el("span", {}, "Seeds"),
        el("select", { "data-do": "chooseSeeds", "data-on": "change" },
          modes.map(([value, text]) => el("option", { value, selected: value === mode }, text)))),
      el("label.field", {}, el("span", {}, "Priority"),
        el("input", { type: "number", min: -1000, max: 1000, value: draft.base.priority ?? 0, "data-do": "choosePriority", "data-on": "input" })),
      deliveryFields(draft.delivery),
      el("label.field", {}, el("span", {}, "Parts"),
        el("input", { type: "number", min: 1, max: 64, value: draft.base.spread ?? 1, "data-do": "chooseParts", "data-on": "input" }),
        el("span.quiet.small", {}, "Runs on as many machines at once; each makes its own pictures.")),
      el("label.field", {}, el("span", {}, "Comfy.org API key"),
        el("input", { type: "password", value: draft.apiKey, maxlength: 1024, autocomplete: "off", spellcheck: "false",
          "data-do": "typeApiKey", "data-on": "input" }),
        el("span.quiet.small", {}, "For nodes that call a paid service. It is not stored with the run."))));
}

const problems = (nodeId) => {
  const found = drafts.findings(draft, nodeId);
  return found.length ? el("ul.plain.problems", { id: problemsId(nodeId) }, found.map((finding) =>
    el("li.problem", { "data-severity": finding.severity }, finding.message))) : null;
};

function footer() {
  const isReady = draft.inspection && drafts.target(draft) && !draft.isStarting && !draft.uploading;
  return el("div.footer", { "data-key": "footer" },
    el("p", { role: "status", "data-tone": draft.trouble ? "bad" : checkTone() }, draft.trouble ?? (draft.uploading ? `Uploading ${draft.uploading}…` : checkText())),
    el("div.actions", {},
      el("button.button", { type: "button", "data-do": "check", disabled: !isReady || draft.check?.state === "checking" }, "Check"),
      canProvide() ? el("button.button", { type: "button", "data-do": "provision", disabled: !isReady }, "Get what is missing, and start") : null,
      el("button.button.primary", { type: "submit", disabled: !isReady }, draft.isStarting ? "Starting…" : "Start")));
}

const missing = () => (draft.check?.answer && !draft.check.isStale ? draft.check.answer.missing ?? [] : []);
const missingPacks = () => (draft.check?.answer && !draft.check.isStale ? draft.check.answer.missing_packs ?? [] : []);
const canProvide = () => [...missing(), ...missingPacks()].some((each) => each.can_provide);

/** The models and node packs that the instance lacks: where each can be had, or why it cannot be installed. */
function missingModels() {
  if (!missing().length && !missingPacks().length) return null;
  return el("section.card", { "data-key": "missing", "aria-labelledby": "missing" },
    el("h2", { id: "missing" }, "Missing on the instance"),
    el("ul.plain", {}, missing().map((model) => el("li", { "data-key": `${model.folder} ${model.name}` },
      el("bdi.name", {}, model.name),
      el("span.quiet.small", {}, ` ${missingText(model)}`)))),
    el("ul.plain", {}, missingPacks().map((pack) => el("li", { "data-key": `pack ${pack.name}` },
      el("bdi.name", {}, pack.name), el("span.quiet.small", {}, ` node pack ${missingText({ size_bytes: null, ...pack })}`)))),
    missingPacks().length ? el("p.quiet.small", {}, "To load a node pack, ComfyUI is restarted when no prompt runs there.") : null);
}

function missingText({ can_provide: can, size_bytes: size, url, reason }) {
  if (!can) return `cannot be had: ${reason}`;
  return `${size === null ? "" : `${labels.size(size)} `}from ${new URL(url).host}`;
}

function checkTone() {
  if (draft.check?.state === "failed" || (draft.check?.answer?.valid === false && !draft.check.isStale)) return "bad";
  return draft.check?.answer && !draft.check.isStale ? "good" : null;
}

function checkText() {
  const { inspection, check } = draft;
  if (!inspection) return "Choose a workflow first.";
  if (!drafts.target(draft)) return "Choose an instance.";
  if (check === null) return "Check tests whether the instance can run this. It uploads nothing.";
  if (check.state === "checking") return `Checking ${drafts.target(draft)}…`;
  if (check.state === "failed") return check.message;
  if (check.isStale) return "Changed since the last check.";
  const { errors, warnings, valid } = check.answer;
  const warned = warnings.length ? ` ${labels.count(warnings.length, "warning", "warnings")}.` : "";
  return (valid ? "The instance can run this." : `The instance cannot run this: ${labels.count(errors.length, "error", "errors")}.`) + warned;
}

const allFindings = () => (draft.check?.answer ? [...draft.check.answer.errors, ...draft.check.answer.warnings] : []);
const inputNamed = (name) => draft.inputs.find((input) => input.name === name);
const fieldId = (name) => `input-${name}`;
const problemsId = (nodeId) => `problems-${nodeId}`;

function nodeName(id) {
  const finding = allFindings().find(({ node_id }) => node_id === id);
  return finding?.title || finding?.class_type || `Node ${id}`;
}
