// What the reader can do from any view: each action is a call, and says what it did.

import { BATCHES, INSTANCES, RUNS, call } from "./api.js";

/** `ask` puts a question and gives whether it was said yes to; `say` tells something for a moment. */
export const commonActions = ({ ask, say }) => ({
  async cancel({ id, name }) {
    if (await ask(`Cancel “${name}”?`, "What it is doing on the GPU stops. What is finished by then is kept.", "Cancel the run")) {
      say((await call("POST", `${RUNS}/${id}/cancel`)).message);
    }
  },
  retry: async ({ id }) => say((await call("POST", `${RUNS}/${id}/retry`)).message),
  async cancelBatch({ id, name }) {
    if (await ask(`Cancel the rest of “${name}”?`, "Runs that are finished stay as they are.", "Cancel the rest")) {
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
    if (await ask(`Forget the host key of “${name}”?`, "The next key that is shown at its address is trusted.", "Forget it")) {
      say((await call("POST", `${INSTANCES}/${id}/forget-host-key`)).message);
    }
  },
  async removeInstance({ id, name }) {
    if (await ask(`Remove “${name}” from the list?`, "Nothing happens on the machine itself.", "Remove")) {
      await call("DELETE", `${INSTANCES}/${id}`);
      say(`${name} is removed.`);
    }
  },
  async addInstance(_data, form) {
    const given = [...new FormData(form)].filter(([, value]) => value !== "");
    const numbers = new Set(["price_per_hour", "local_port"]);
    const body = Object.fromEntries(given.map(([name, value]) => [name, numbers.has(name) ? Number(value) : value]));
    await call("POST", INSTANCES, body);
    form.reset();
    say(`${body.name} is added.`);
  },
});
