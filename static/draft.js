// The run that is being prepared: a workflow, where it goes, and what is changed of it. Nothing here draws.

import { RUNS, ApiError, call, keepFile, look } from "./api.js";
import { forget, recall, recallHere, remember, rememberHere } from "./storage.js";

const LAST_PLACE = "last-place-chosen";
const LAST_SSH_STRING = "last-ssh-string";
const DRAFT = "draft";
export const SSH_STRING = ""; // the choice of a place that is not one of the named ones
const LARGEST_SEED = 2 ** 48; // a browser's numbers are exact up to 2 ** 53

let drafts = 0;

/** Everything that was chosen so far. `base` is the body of the request that a run is made again from. */
export function newDraft(instances) {
  const last = recall(LAST_PLACE);
  const isOffered = last === SSH_STRING || isNamed(last ?? "", instances);
  return {
    number: ++drafts,
    key: chance(), // one order, however often its answer is lost
    base: {},
    fileName: null, // what a run is called that is given no name
    workflowName: "",
    inspection: null, // {format, nodes, key_inputs, needs_instance}
    inputs: [], // the key inputs, each with the value that the workflow has
    place: isOffered ? last : instances[0]?.name ?? SSH_STRING,
    sshString: recall(LAST_SSH_STRING) ?? "",
    instances,
    changes: {}, // "6.text" -> value
    pictures: {}, // "10.image" -> {path, filename, url}
    check: null, // {state: "checking" | "done" | "failed", message, answer, isStale}
    trouble: null,
    arriving: null, // names of files that are on their way to the server
    isStarting: false,
    isStarted: false,
  };
}

/** For when the page comes back: after a reload, or a login. */
export function keep(draft) {
  if (draft.isStarted || !draft.inspection) forget(DRAFT);
  else rememberHere(DRAFT, JSON.stringify({ ...draft, check: null, trouble: null, arriving: null, isStarting: false }));
}

/** What was kept, once; null where there is nothing. Of its pictures only the names are left to be shown. */
export function kept() {
  const draft = JSON.parse(recallHere(DRAFT) ?? "null");
  forget(DRAFT);
  if (draft === null) return null;
  for (const picture of Object.values(draft.pictures)) picture.url = null;
  return { ...draft, number: ++drafts };
}

/** With everything of an earlier run. Raises: ApiError. */
export async function takeRun(draft, id) {
  const { request } = await look(`${RUNS}/${encodeURIComponent(id)}/request`);
  const { workflow, inputs, workflow_name: name, ...rest } = request; // the workflow itself stays where it is
  draft.base = { ...rest, again: id };
  draft.fileName = draft.workflowName = name ?? "workflow";
  const isPlace = isNamed(request.ssh_connection, draft.instances);
  draft.place = isPlace ? request.ssh_connection : SSH_STRING;
  if (!isPlace) draft.sshString = request.ssh_connection;
  takeInspection(draft, await inspect({ again: id }));
}

/** A file of either format, or a picture with a workflow inside; what else is there is for its nodes. Raises: ApiError. */
export async function takeWorkflow(draft, files) {
  const file = files.find(({ name }) => /\.json$/i.test(name)) ?? files[0];
  const path = await keepFile(file);
  const inspection = await inspect({ workflow_file: path });
  draft.base = { workflow_file: path };
  draft.fileName = draft.workflowName = file.name.replace(/\.(json|png|webp|jpe?g)$/i, "");
  draft.changes = {};
  draft.pictures = {};
  draft.check = null;
  takeInspection(draft, inspection);
  await takePictures(draft, files.filter((each) => each !== file));
}

/** Pictures for the nodes that load them: first by their names, then in order. Raises: ApiError. */
export async function takePictures(draft, files, name = null) {
  for (const file of files) {
    const slot = name ?? slotFor(draft, file, files.length === 1);
    if (slot === null) throw new ApiError(`No node is left to load ${file.name}.`);
    const path = await keepFile(file);
    draft.pictures[slot] = { path, filename: baseName(path), url: URL.createObjectURL(file) };
    outdate(draft);
  }
}

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
export function outdate(draft) {
  draft.trouble = null;
  if (draft.check) draft.check.isStale = true;
}

/** Somewhere else, where nothing was asked yet. */
export function goElsewhere(draft, where) {
  Object.assign(draft, where, { check: null, trouble: null });
}

export const randomSeed = () => Math.floor(Math.random() * LARGEST_SEED);

export const target = (draft) => draft.place || draft.sshString.trim();

/** Whether the instance can run it, and what its nodes allow. */
export async function check(draft) {
  draft.trouble = null;
  const asked = (draft.check = { state: "checking", message: null, answer: draft.check?.answer ?? null, isStale: false });
  try {
    // Seeds are drawn when the run is started: those of a check would be others.
    const answer = await call("POST", `${RUNS}/validate`, { ...body(draft), seed_mode: "saved" }, { isSlow: true });
    Object.assign(asked, { state: "done", answer });
    if (draft.check === asked) draft.inputs = informed(draft.inputs, answer.key_inputs);
  } catch (error) {
    Object.assign(asked, { state: "failed", message: error.message, answer: null });
  }
}

/** The id of the run. Raises: ApiError. */
export async function start(draft) {
  const { workflow_id: id } = await call("POST", `${RUNS}/execute`, body(draft), { key: draft.key });
  remember(LAST_PLACE, draft.place);
  if (draft.place === SSH_STRING) remember(LAST_SSH_STRING, draft.sshString.trim());
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
    workflow_name: draft.workflowName.trim() || draft.fileName,
    inputs: { ...draft.changes, ...chosen },
    input_images: [...stillWanted(draft, chosen), ...pictures.map(([, { path }]) => path)],
  };
}

/** Pictures of the run that this one is made from, but for those that others have taken the place of. */
function stillWanted(draft, chosen) {
  const replaced = new Set(draft.inputs.filter(({ name }) => name in chosen).map(({ value }) => value));
  const taken = new Set(Object.values(chosen));
  return (draft.base.input_images ?? []).filter((path) => !replaced.has(baseName(path)) && !taken.has(baseName(path)));
}

/** A single file takes the place of what is there, where there is but one node that it could be for. */
function slotFor(draft, file, isSingle) {
  const slots = draft.inputs.filter(({ kind, media }) => kind === "file" && isKindOf(file, media));
  const named = slots.find(({ value }) => value === file.name);
  const free = slots.find(({ name }) => !(name in draft.pictures));
  return (named ?? free ?? (isSingle && slots.length === 1 ? slots[0] : null))?.name ?? null;
}

/** A moving picture may be either. */
const isKindOf = ({ type }, media) => !type || !media || type === "image/gif" || type.startsWith(`${media}/`);

function takeInspection(draft, inspection) {
  draft.inspection = inspection;
  draft.inputs = inspection.key_inputs;
}

/** With what the instance knows of them: ranges, options. The values stay the workflow's own. */
function informed(inputs, found) {
  const own = new Map(inputs.map(({ name, value }) => [name, value]));
  return found.map((input) => ({ ...input, value: own.get(input.name) ?? input.value }));
}

const isNamed = (place, instances) => /^any(:|$)/.test(place) || instances.some(({ name }) => name === place);
const inspect = (workflow) => call("POST", `${RUNS}/inspect`, workflow);
const baseName = (path) => path.split(/[\\/]/).pop();

/** Nobody else's. */
function chance() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
