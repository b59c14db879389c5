// The run that is being prepared: a workflow, where it goes, and what is changed of it. Nothing here draws.

import { INSTANCES, RUNS, ApiError, call, keepFile, look } from "./api.js";

const LAST_PLACE = "last-place";
export const SSH_STRING = ""; // the choice of a place that is not one of the named ones
const LARGEST_SEED = 2 ** 48; // a browser's numbers are exact up to 2 ** 53

let drafts = 0;

/** Everything that was chosen so far. `base` is the body of the request that a run is made again from. */
export function newDraft() {
  const last = localStorage.getItem(LAST_PLACE) ?? "";
  return {
    number: ++drafts,
    base: {},
    workflowName: null,
    inspection: null, // {format, nodes, key_inputs, needs_instance}
    place: SSH_STRING,
    sshString: last,
    instances: [],
    changes: {}, // "6.text" -> value
    pictures: {}, // "10.image" -> {path, filename, url}
    check: null, // {state: "checking" | "done" | "failed", message, answer, isStale}
    trouble: null,
    arriving: null, // names of files that are on their way to the server
    isStarting: false,
    isStarted: false,
  };
}

export async function takeInstances(draft) {
  draft.instances = (await look(INSTANCES)).instances;
  const last = localStorage.getItem(LAST_PLACE) ?? "";
  const known = draft.instances.some(({ name }) => name === last);
  if (draft.base.ssh_connection === undefined) {
    draft.place = known || last === "any" ? last : draft.instances[0]?.name ?? SSH_STRING;
    if (known || last === "any") draft.sshString = "";
  }
}

/** With everything of an earlier run. Raises: ApiError. */
export async function takeRun(draft, id) {
  const { request, graph } = await look(`${RUNS}/${encodeURIComponent(id)}/request`);
  // The workflow itself stays where it is: a browser would round its largest seeds.
  const { workflow, inputs, ...rest } = request;
  draft.base = { ...rest, again: id };
  draft.workflowName = request.workflow_name ?? "workflow";
  const isNamed = request.ssh_connection.startsWith("any") || draft.instances.some(({ name }) => name === request.ssh_connection);
  draft.place = isNamed ? request.ssh_connection : SSH_STRING;
  draft.sshString = isNamed ? "" : request.ssh_connection;
  draft.inspection = await inspect({ workflow: graph ?? workflow });
}

/** A file of either format, or a picture with a workflow inside. Raises: ApiError. */
export async function takeWorkflow(draft, file) {
  const path = await keepFile(file);
  draft.inspection = await inspect({ workflow_file: path });
  draft.base = { workflow_file: path, ssh_connection: draft.base.ssh_connection };
  draft.workflowName = file.name.replace(/\.(json|png|webp|jpe?g)$/i, "");
  draft.changes = {};
  draft.pictures = {};
  draft.check = null;
}

/** Pictures for the nodes that load them: first by their names, then in order. Raises: ApiError. */
export async function takePictures(draft, files, name = null) {
  for (const file of files) {
    const slot = name ?? slotFor(draft, file);
    if (slot === null) throw new ApiError(`No node is left to load ${file.name}.`);
    const path = await keepFile(file);
    draft.pictures[slot] = { path, filename: baseName(path), url: URL.createObjectURL(file) };
    outdate(draft);
  }
}

export const keyInputs = (draft) => draft.check?.answer?.key_inputs ?? draft.inspection?.key_inputs ?? [];

export const valueOf = (draft, input) => draft.changes[input.name] ?? input.value;

/** As the input's kind wants it. What is like the workflow has it is no change. */
export function change(draft, input, text) {
  const value = typeof input.value === "number" ? exactNumber(text) : text;
  if (value === input.value || value === null) delete draft.changes[input.name];
  else draft.changes[input.name] = value;
  outdate(draft);
}

/** A whole number that would be rounded stays the text that it is, which ComfyUI reads, too. */
function exactNumber(text) {
  const value = Number(text);
  if (String(text).trim() === "" || Number.isNaN(value)) return null;
  return Number.isInteger(value) && !Number.isSafeInteger(value) ? String(text) : value;
}

/** What was found of it before it was changed is no longer the last word. */
function outdate(draft) {
  if (draft.check?.state === "done") draft.check.isStale = true;
}

export const randomSeed = () => Math.floor(Math.random() * LARGEST_SEED);

export const target = (draft) => draft.place || draft.sshString.trim();

/** Whether the instance can run it, and what its nodes allow. */
export async function check(draft) {
  const asked = (draft.check = { state: "checking", message: null, answer: draft.check?.answer ?? null });
  try {
    const answer = await call("POST", `${RUNS}/validate`, body(draft), { isSlow: true });
    Object.assign(asked, { state: "done", answer });
  } catch (error) {
    Object.assign(asked, { state: "failed", message: error.message, answer: null });
  }
}

/** The id of the run. Raises: ApiError. */
export async function start(draft) {
  const { workflow_id: id } = await call("POST", `${RUNS}/execute`, body(draft));
  localStorage.setItem(LAST_PLACE, target(draft));
  return id;
}

/** What is wrong or doubtful at a node; with null, what belongs to none. */
export function findings(draft, nodeId) {
  const answer = draft.check?.answer;
  return answer ? [...answer.errors, ...answer.warnings].filter((finding) => finding.node_id === nodeId) : [];
}

function body(draft) {
  const pictures = Object.entries(draft.pictures);
  const chosen = Object.fromEntries(pictures.map(([name, { filename }]) => [name, filename]));
  return {
    ...draft.base,
    ssh_connection: target(draft),
    workflow_name: draft.workflowName,
    inputs: { ...draft.changes, ...chosen },
    input_images: [...stillWanted(draft, chosen), ...pictures.map(([, { path }]) => path)],
  };
}

/** Pictures of the run that this one is made from, but for those that others have taken the place of. */
function stillWanted(draft, chosen) {
  const replaced = new Set(keyInputs(draft).filter(({ name }) => name in chosen).map(({ value }) => value));
  const taken = new Set(Object.values(chosen));
  return (draft.base.input_images ?? []).filter((path) => !replaced.has(baseName(path)) && !taken.has(baseName(path)));
}

function slotFor(draft, file) {
  const slots = keyInputs(draft).filter(({ kind }) => kind === "file");
  const free = slots.filter(({ name }) => !(name in draft.pictures));
  return (slots.find(({ value }) => value === file.name) ?? free[0])?.name ?? null;
}

const inspect = (workflow) => call("POST", `${RUNS}/inspect`, workflow);
const baseName = (path) => path.split(/[\\/]/).pop();
