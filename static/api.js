// The public API, as calls. Every failure is an ApiError with a sentence for the reader.

export const RUNS = "/comfyui/workflow";
export const BATCHES = `${RUNS}/batch`;
export const INSTANCES = "/comfyui/instances";
const PATIENCE_MS = 20_000;
const SLOW_PATIENCE_MS = 180_000;
const UPLOAD_PATIENCE_MS = 3_600_000; // half a gigabyte over a slow line

export class ApiError extends Error {
  constructor(message, { status = 0, code = null } = {}) {
    super(message);
    this.status = status; // 0: no answer at all
    this.code = code;
  }
}

const known = new Map(); // address -> {etag, body}, of what is asked for again and again
const MOST_KNOWN = 50;

/** The answer; the very same object as long as it has not changed. */
export async function look(address) {
  const before = known.get(address);
  const response = await send(address, { headers: before ? { "If-None-Match": before.etag } : {} });
  if (response.status === 304) return before.body;
  const body = await read(response);
  const etag = response.headers.get("ETag");
  known.delete(address);
  if (etag) known.set(address, { etag, body });
  if (known.size > MOST_KNOWN) known.delete(known.keys().next().value);
  return body;
}

/** What may wait for an instance (`isSlow`) is given longer. What has a `key` is done once, however often it is
 * asked for. */
export async function call(method, address, body, { isSlow = false, key } = {}) {
  const headers = { ...(body && { "Content-Type": "application/json" }), ...(key && { "Idempotency-Key": key }) };
  const content = body === undefined ? {} : { body: JSON.stringify(body) };
  return read(await send(address, { method, headers, ...content }, isSlow ? SLOW_PATIENCE_MS : PATIENCE_MS));
}

/** The path under which the server has kept the file. */
export async function keepFile(file) {
  const form = new FormData();
  form.append("file", file, file.name);
  return (await read(await send(`${RUNS}/files`, { method: "POST", body: form }, UPLOAD_PATIENCE_MS))).path;
}

export const isAway = (error) => error instanceof ApiError && error.status === 0;

async function send(address, options, patience = PATIENCE_MS) {
  try {
    return await fetch(address, { cache: "no-store", ...options, signal: AbortSignal.timeout(patience) });
  } catch {
    throw new ApiError("The server is away. This page comes back by itself.");
  }
}

async function read(response) {
  const body = await response.text().then(parsed, () => null);
  if (response.ok && body) return body;
  if (response.status === 401) location.reload(); // then it asks for the token
  throw new ApiError(body?.message ?? `The server answers ${response.status} and nothing that can be read.`, {
    status: response.status,
    code: body?.code,
  });
}

/** Null for what is no JSON. A whole number that would be rounded is the text that it is: a seed must not change. */
function parsed(text) {
  try {
    return JSON.parse(text, (_name, value, context) =>
      (Number.isInteger(value) && !Number.isSafeInteger(value) && context ? context.source : value));
  } catch {
    return null;
  }
}
