// The open view is the part of the address after "#", so that a reload and the browser's Back lead to the same view.

/** {view: "home" | "run" | "start" | "instances" | "workflows", id, query} */
export function readRoute(hash = location.hash) {
  const [path, search = ""] = hash.replace(/^#\/?/, "").split("?");
  const [view = "", id = null] = path.split("/").map(decode);
  const query = new URLSearchParams(search);
  return { view: view || "home", id, query };
}

export const toHome = (query = {}) => withQuery("#/", query);
export const toRun = (id) => `#/run/${encodeURIComponent(id)}`;
export const toInstances = "#/instances";
export const toWorkflows = "#/workflows";
export const toWorkflow = (name) => `#/workflows/${encodeURIComponent(name)}`;
export const toStart = (query = {}) => withQuery("#/start", query);

function withQuery(path, query) {
  const given = Object.entries(query).filter(([, value]) => value);
  return given.length ? `${path}?${new URLSearchParams(given)}` : path;
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
