// The draft of a run: its workflow, its target and its changed inputs. This module draws nothing.

import { RUNS, ApiError, call, load, uploadFile } from "./api.js";
import { deliveryBody, newDelivery, withoutSecrets } from "./delivery.js";
import { forget, recall, recallHere, remember, rememberHere } from "./storage.js";

const LAST_PLACE = "last-place-chosen";
const LAST_SSH_STRING = "last-ssh-string";
const DRAFT = "draft";
export const SSH_STRING = ""; // the choice "An ssh string…" instead of a named instance
const LARGEST_SEED = 2 ** 48; // integers in JavaScript are exact up to 2 ** 53

let drafts = 0;

/** A new draft. `base` is the request body of the run that is run again. */
export function newDraft(instances) {
  const last = recall(LAST_PLACE);
  const isOffered = last === SSH_STRING || isNamed(last ?? "", instances);
  return {
    number: ++drafts,
    key: randomKey(), // the idempotency key: the request can be repeated if its response is lost
    base: {},
    fileName: null, // the default name of the run
    workflowName: "",
    inspection: null, // {format, nodes, key_inputs, needs_instance}
    inputs: [], // the key inputs, each with its value in the workflow
    place: isOffered ? last : instances[0]?.name ?? SSH_STRING,
    sshString: recall(LAST_SSH_STRING) ?? "",
    comfyuiPort: "", // as typed; only for an ssh string
    instances,
    apiKey: "", // of Comfy.org; sent with the run and stored nowhere
    delivery: newDelivery(), // format, upload and webhook
    changes: {}, // "6.text" -> value
    pictures: {}, // "10.image" -> {path, filename, url}
    check: null, // {state: "checking" | "done" | "failed", message, answer, isStale}
    trouble: null,
    uploading: null, // names of the files that are being uploaded
    isStarting: false,
    isStarted: false,
  };
}

/** Saves the draft without its secrets, so that it survives a reload or a login. */
export function save(draft) {
  const delivery = withoutSecrets(draft.delivery);
  if (draft.isStarted || !draft.inspection) forget(DRAFT);
  else rememberHere(DRAFT, JSON.stringify({ ...draft, apiKey: "", delivery, check: null, trouble: null, uploading: null, isStarting: false }));
}

/** Returns the saved draft and deletes it from the storage; null if there is none. Its pictures have names only: their
 * previews are lost. */
export function restore() {
  const draft = JSON.parse(recallHere(DRAFT) ?? "null");
  forget(DRAFT);
  if (draft === null) return null;
  for (const picture of Object.values(draft.pictures)) picture.url = null;
  return { ...draft, apiKey: "", delivery: draft.delivery ?? newDelivery(), number: ++drafts };
}

/** Fills the draft with the request of an earlier run. Raises: ApiError. */
export async function takeRun(draft, id) {
  const { request } = await load(`${RUNS}/${encodeURIComponent(id)}/request`);
  const { workflow, inputs, workflow_name: name, upload, convert, ...rest } = request; // the server has the workflow: `again` refers to it
  draft.base = { ...rest, again: id };
  draft.delivery = newDelivery({ upload, convert });
  draft.fileName = draft.workflowName = name ?? "workflow";
  const isPlace = isNamed(request.ssh_connection, draft.instances);
  draft.place = isPlace ? request.ssh_connection : SSH_STRING;
  if (!isPlace) draft.sshString = request.ssh_connection;
  draft.comfyuiPort = request.comfyui_port ?? "";
  delete draft.base.comfyui_port; // the field has it
  takeInspection(draft, await inspect({ again: id }));
}

/** Takes a workflow in API format or the editor's format, or a picture or video that contains one. The other files are inputs of
 * its nodes. Raises: ApiError. */
export async function takeWorkflow(draft, files) {
  const file = files.find(({ name }) => /\.json$/i.test(name)) ?? files[0];
  const path = await uploadFile(file);
  const inspection = await inspect({ workflow_file: path });
  draft.base = { workflow_file: path };
  draft.fileName = draft.workflowName = file.name.replace(/\.(json|png|webp|avif|jpe?g|mp4|mov|webm|mkv|flac|mp3|opus|glb|svg|latent)$/i, "");
  draft.changes = {};
  draft.pictures = {};
  draft.check = null;
  takeInspection(draft, inspection);
  await takePictures(draft, files.filter((each) => each !== file));
}

/** Assigns pictures to the nodes that load them: by name if possible, then in order. Raises: ApiError. */
export async function takePictures(draft, files, name = null) {
  for (const file of files) {
    const slot = name ?? slotFor(draft, file, files.length === 1);
    if (slot === null) throw new ApiError(`The workflow has no free node for ${file.name}.`);
    const path = await uploadFile(file);
    draft.pictures[slot] = { path, filename: baseName(path), url: URL.createObjectURL(file) };
    markStale(draft);
  }
}

export const valueOf = (draft, input) => draft.changes[input.name] ?? input.value;

/** Stores a changed value, with the type of the input. A value that equals that of the workflow is no change. */
export function change(draft, input, text) {
  const value = typeof input.value === "number" ? exactNumber(text) : text;
  if (value === input.value || value === null) delete draft.changes[input.name];
  else draft.changes[input.name] = value;
  markStale(draft);
}

/** An integer that JavaScript would round stays a text; ComfyUI accepts that too. */
function exactNumber(text) {
  const value = Number(text);
  if (String(text).trim() === "" || Number.isNaN(value)) return null;
  return Number.isInteger(value) && !Number.isSafeInteger(value) ? String(text) : value;
}

/** Marks the result of the last check as outdated. */
export function markStale(draft) {
  draft.trouble = null;
  if (draft.check) draft.check.isStale = true;
}

/** Changes the target; the result of the last check is deleted. */
export function setTarget(draft, target) {
  Object.assign(draft, target, { check: null, trouble: null });
}

export const randomSeed = () => Math.floor(Math.random() * LARGEST_SEED);

export const target = (draft) => draft.place || draft.sshString.trim();

/** Checks whether the instance can run the draft, and loads the allowed values of its inputs. */
export async function check(draft) {
  draft.trouble = null;
  const asked = (draft.check = { state: "checking", message: null, answer: draft.check?.answer ?? null, isStale: false });
  try {
    // Seeds are drawn when the run starts; a check would draw other ones.
    const answer = await call("POST", `${RUNS}/validate`, { ...body(draft), seed_mode: "saved" }, { isSlow: true });
    Object.assign(asked, { state: "done", answer });
    if (draft.check === asked) draft.inputs = withDetails(draft.inputs, answer.key_inputs);
  } catch (error) {
    Object.assign(asked, { state: "failed", message: error.message, answer: null });
  }
}

/** Starts the run and returns its id. Raises: ApiError. */
export async function start(draft) {
  const { workflow_id: id } = await call("POST", `${RUNS}/execute`, body(draft), { key: draft.key });
  remember(LAST_PLACE, draft.place);
  if (draft.place === SSH_STRING) remember(LAST_SSH_STRING, draft.sshString.trim());
  return id;
}

/** Errors and warnings of a node; with null, those that belong to no node. */
export function findings(draft, nodeId) {
  const answer = draft.check?.answer;
  return answer ? [...answer.errors, ...answer.warnings].filter((finding) => finding.node_id === nodeId) : [];
}

function body(draft) {
  const pictures = Object.entries(draft.pictures);
  const isUnique = (filename) => pictures.filter(([, other]) => other.filename === filename).length === 1;
  const chosen = Object.fromEntries(pictures.map(([name, { filename, path }]) => [name, isUnique(filename) ? filename : path]));
  return {
    ...draft.base,
    ...(draft.place === SSH_STRING && draft.comfyuiPort ? { comfyui_port: Number(draft.comfyuiPort) } : {}),
    ssh_connection: target(draft),
    workflow_name: draft.workflowName.trim() || draft.fileName,
    inputs: { ...draft.changes, ...chosen },
    input_images: [...remainingImages(draft, chosen), ...pictures.map(([, { path }]) => path)],
    ...deliveryBody(draft.delivery),
    ...(draft.apiKey.trim() && { comfy_org_api_key: draft.apiKey.trim() }),
  };
}

/** Input images of the earlier run, without those that the user has replaced. */
function remainingImages(draft, chosen) {
  const replaced = new Set(draft.inputs.filter(({ name }) => name in chosen).map(({ value }) => baseName(value)));
  const taken = new Set(Object.values(chosen).map(baseName));
  return (draft.base.input_images ?? []).filter((path) => !replaced.has(baseName(path)) && !taken.has(baseName(path)));
}

/** The input for a file: the one with the same file name, or the first free one. A single file replaces the picture of
 * the only matching input. */
function slotFor(draft, file, isSingle) {
  const slots = draft.inputs.filter(({ kind, media }) => kind === "file" && isKindOf(file, media));
  const named = slots.find(({ value }) => baseName(value).normalize() === file.name.normalize());
  const free = slots.find(({ name }) => !(name in draft.pictures));
  return (named ?? free ?? (isSingle && slots.length === 1 ? slots[0] : null))?.name ?? null;
}

/** A GIF matches images and videos. */
const isKindOf = ({ type }, media) => !type || !media || type === "image/gif" || type.startsWith(`${media}/`);

function takeInspection(draft, inspection) {
  draft.inspection = inspection;
  draft.inputs = inspection.key_inputs;
}

/** Adds the ranges and options of the instance. The values stay those of the workflow. */
function withDetails(inputs, found) {
  const own = new Map(inputs.map(({ name, value }) => [name, value]));
  return found.map((input) => ({ ...input, value: own.get(input.name) ?? input.value }));
}

const isNamed = (place, instances) => /^any(:|$)/.test(place) || instances.some(({ name }) => name === place);
const inspect = (workflow) => call("POST", `${RUNS}/inspect`, workflow);
const baseName = (path) => path.split(/[\\/]/).pop();

/** A random key of 128 bits, as hexadecimal digits. */
export function randomKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
