// Calls of the public API. Every failure is an ApiError with a message for the user.

export const RUNS = "/comfyui/workflow";
export const BATCHES = `${RUNS}/batch`;
export const INSTANCES = "/comfyui/instances";
const TIMEOUT_MS = 20_000;
const SLOW_TIMEOUT_MS = 180_000;
const UPLOAD_TIMEOUT_MS = 3_600_000; // half a gigabyte over a slow connection

export class ApiError extends Error {
  constructor(message, { status = 0, code = null } = {}) {
    super(message);
    this.status = status; // 0: no response
    this.code = code;
  }
}

const cache = new Map(); // address -> {etag, body}, for addresses that are polled
const MAX_CACHED = 50;

/** Returns the response body. If it has not changed, this is the same object as before. */
export async function load(address) {
  const before = cache.get(address);
  const response = await send(address, { headers: before ? { "If-None-Match": before.etag } : {} });
  if (response.status === 304) return before.body;
  const body = await read(response);
  const etag = response.headers.get("ETag");
  cache.delete(address);
  if (etag) cache.set(address, { etag, body });
  if (cache.size > MAX_CACHED) cache.delete(cache.keys().next().value);
  return body;
}

/** `isSlow`: a longer timeout, for requests that may wait for an instance. `key`: an idempotency key, so that the
 * request can be repeated. */
export async function call(method, address, body, { isSlow = false, key } = {}) {
  const headers = { ...(body && { "Content-Type": "application/json" }), ...(key && { "Idempotency-Key": key }) };
  const content = body === undefined ? {} : { body: JSON.stringify(body) };
  return read(await send(address, { method, headers, ...content }, isSlow ? SLOW_TIMEOUT_MS : TIMEOUT_MS));
}

/** Uploads a file and returns its path on the server. */
export async function uploadFile(file) {
  const form = new FormData();
  form.append("file", file, file.name);
  return (await read(await send(`${RUNS}/files`, { method: "POST", body: form }, UPLOAD_TIMEOUT_MS))).path;
}

export const isUnreachable = (error) => error instanceof ApiError && error.status === 0;

async function send(address, options, timeout = TIMEOUT_MS) {
  try {
    return await fetch(address, { cache: "no-store", ...options, signal: AbortSignal.timeout(timeout) });
  } catch {
    throw new ApiError("The server does not respond. This page reconnects by itself.");
  }
}

async function read(response) {
  const body = await response.text().then(parseJson, () => null);
  if (response.ok && body) return body;
  if (response.status === 401) location.reload(); // the login page asks for the token
  throw new ApiError(body?.message ?? `The server responded with status ${response.status} and without readable content.`, {
    status: response.status,
    code: body?.code,
  });
}

/** Parses JSON; null if it is invalid. An integer that JavaScript would round stays a text: a seed must not change. */
function parseJson(text) {
  try {
    return JSON.parse(text, (_name, value, context) =>
      (Number.isInteger(value) && !Number.isSafeInteger(value) && context ? context.source : value));
  } catch {
    return null;
  }
}
