// The public API, as calls. Every failure is an ApiError with a sentence for the reader.

export const RUNS = "/comfyui/workflow";
export const BATCHES = `${RUNS}/batch`;
export const INSTANCES = "/comfyui/instances";
const PATIENCE_MS = 20_000;
const SLOW_PATIENCE_MS = 180_000;

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

/** What may wait for an instance (`isSlow`) is given longer. */
export async function call(method, address, body, { isSlow = false, signal } = {}) {
  const json = body === undefined ? {} : { headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  return read(await send(address, { method, ...json }, isSlow ? SLOW_PATIENCE_MS : PATIENCE_MS, signal));
}

/** The path under which the server has kept the file. */
export async function keepFile(file) {
  const form = new FormData();
  form.append("file", file, file.name);
  return (await read(await send(`${RUNS}/files`, { method: "POST", body: form }, SLOW_PATIENCE_MS))).path;
}

export const isAway = (error) => error instanceof ApiError && error.status === 0;

async function send(address, options, patience = PATIENCE_MS, signal) {
  const signals = [AbortSignal.timeout(patience), ...(signal ? [signal] : [])];
  try {
    return await fetch(address, { cache: "no-store", ...options, signal: AbortSignal.any(signals) });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError("The server is away. This page comes back by itself.");
  }
}

async function read(response) {
  const body = await response.json().catch(() => null);
  if (response.ok && body) return body;
  if (response.status === 401) location.assign("/"); // there it asks for the token
  throw new ApiError(body?.message ?? `The server answers ${response.status} and nothing that can be read.`, {
    status: response.status,
    code: body?.code,
  });
}
