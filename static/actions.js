// Actions of all views. Each action calls the API and shows the result.

import { BATCHES, INSTANCES, RUNS, call } from "./api.js";

/** `ask` opens a dialog and resolves to true if the user confirms; `say` shows a message for a few seconds. */
export const commonActions = ({ ask, say }) => ({
  async cancel({ id, name }) {
    if (await ask(`Cancel “${name}”?`, "The GPU stops working on it. Finished outputs are kept.", "Cancel the run")) {
      say((await call("POST", `${RUNS}/${id}/cancel`)).message);
    }
  },
  retry: async ({ id }) => say((await call("POST", `${RUNS}/${id}/retry`)).message),
  async cancelBatch({ id, name }) {
    if (await ask(`Cancel the rest of “${name}”?`, "Finished runs do not change.", "Cancel the rest")) {
      say((await call("POST", `${BATCHES}/${id}/cancel`)).message);
    }
  },
  retryBatch: async ({ id }) => say((await call("POST", `${BATCHES}/${id}/retry`)).message),
  connect: async ({ id }) => say((await call("POST", `${INSTANCES}/${id}/connect`)).message),
  disconnect: async ({ id }) => say((await call("POST", `${INSTANCES}/${id}/disconnect`)).message),
  async acceptHostKey({ id, name, fingerprint }) {
    if (await ask(`Trust this machine as “${name}”?`, fingerprint, "Accept the key")) {
      say((await call("POST", `${INSTANCES}/${id}/accept-host-key`, { fingerprint })).message);
    }
  },
  async forgetHostKey({ id, name }) {
    if (await ask(`Forget the host key of “${name}”?`, "The server trusts the next key that a machine at this address shows.", "Forget the key")) {
      say((await call("POST", `${INSTANCES}/${id}/forget-host-key`)).message);
    }
  },
  async removeInstance({ id, name }) {
    if (await ask(`Remove “${name}” from the list?`, "Nothing changes on the machine itself.", "Remove")) {
      await call("DELETE", `${INSTANCES}/${id}`);
      say(`${name} is removed.`);
    }
  },
  async addInstance(_data, form) {
    const given = [...new FormData(form)].filter(([, value]) => value !== "");
    const numbers = new Set(["price_per_hour", "local_port", "comfyui_port"]);
    const body = Object.fromEntries(given.map(([name, value]) => [name, numbers.has(name) ? Number(value) : value]));
    await call("POST", INSTANCES, body);
    form.reset();
    say(`${body.name} is added.`);
  },
});
