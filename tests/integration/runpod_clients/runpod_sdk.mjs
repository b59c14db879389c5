// runpod-sdk of npm, used as its own examples do: STEP ENDPOINT ARGUMENT... -> what it said, as JSON.
// The base URL is in RUNPOD_ENDPOINT_BASE_URL, the key in RUNPOD_API_KEY, orders in the file orders.json.
import { readFileSync } from "node:fs";
import { setTimeout } from "node:timers/promises";
import runpodSdk from "runpod-sdk";

const { RUNPOD_API_KEY: key, RUNPOD_ENDPOINT_BASE_URL: baseUrl } = process.env;
const [step, endpointId, argument] = process.argv.slice(2);
const orders = JSON.parse(readFileSync("orders.json"));
const endpoint = runpodSdk(key, { baseUrl }).endpoint(endpointId);

const all = async (generator) => {
  const found = [];
  for await (const each of generator) found.push(each);
  return found;
};

const finished = async (id) => {
  let said = {};
  while (!said.completed) said = await endpoint.statusSync(id, 30000);
  return said;
};

const steps = {
  async whole() {
    const { id } = await endpoint.run({ input: orders.painted });
    const streamed = await all(endpoint.stream(id));
    const failed = await endpoint.run({ input: orders.failing });
    const job = await endpoint.status(id);
    return {
      job,
      output: job.output,
      streamed: streamed.map((each) => each.output),
      sync: (await endpoint.runSync({ input: orders.painted }, 30000)).output,
      failed: await finished(failed.id),
      health: await endpoint.health(),
    };
  },

  // One executes, one is cancelled, one is purged; and then the first is cancelled, too.
  async queue() {
    const slow = { input: orders.slow };
    const ids = [(await endpoint.run(slow)).id];
    while ((await endpoint.status(ids[0])).status === "IN_QUEUE") await setTimeout(50);
    for (let number = 0; number < 2; number++) ids.push((await endpoint.run(slow)).id);
    const cancelled = await endpoint.cancel(ids[1]);
    const before = (await endpoint.health()).jobs;
    const purged = await endpoint.purgeQueue();
    const last = await endpoint.cancel(ids[0]);
    const statuses = [];
    for (const id of ids) statuses.push((await endpoint.status(id)).status);
    return { ids, cancelled, before, purged, last, statuses };
  },

  async order() {
    const { id } = await endpoint.run({ input: orders[argument] });
    const job = await finished(id);
    return { job, output: job.output ?? null };
  },

  // It has no method for that.
  async retry() {
    const headers = { Authorization: `Bearer ${key}` };
    const answer = await fetch(`${baseUrl}/${endpointId}/retry/${argument}`, { method: "POST", headers });
    const { status, output } = await finished(argument);
    return { said: await answer.json(), status, output };
  },

  // Orders that the worker cannot execute.
  async invalid() {
    const jobs = [];
    for (const input of orders.invalid) jobs.push(await finished((await endpoint.run({ input })).id));
    return { jobs, sync: (await endpoint.runSync({ input: orders.invalid[0] })).output ?? null };
  },

  // With every field that an order may have.
  async example() {
    const { status, output } = await finished((await endpoint.run(orders.example)).id);
    return { status, output };
  },

  async refused() {
    const stranger = runpodSdk("wrong", { baseUrl }).endpoint(endpointId);
    try {
      return { said: await stranger.run({ input: orders.painted }) };
    } catch (error) {
      return { error: String(error) };
    }
  },
};

console.log(JSON.stringify(await steps[step]()));
