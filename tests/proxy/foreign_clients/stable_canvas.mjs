// @stable-canvas/comfyui-client, used as its own examples do: URL -> what was heard and made, as JSON.
import { readFileSync } from "node:fs";
import { Client, Workflow } from "@stable-canvas/comfyui-client";
import WebSocket from "ws";

const [url, , picture] = process.argv.slice(2);
const client = new Client({ api_host: new URL(url).host, WebSocket, fetch });
await client.connect();
const stats = await client.getSystemStats();
const form = new FormData();
form.append("image", new Blob([readFileSync(picture)]), "from_stable_canvas.png");
const uploaded = await (await client.fetchApi("/upload/image", { method: "POST", body: form })).json();
const workflow = new Workflow();
const [image] = workflow.classes.LoadImage({ image: uploaded.name });
workflow.classes.SaveImage({ images: image, filename_prefix: "stable_canvas" });
const heard = [];
const made = await client.enqueue(workflow.workflow().prompt, { progress: (each) => heard.push(each) });
const sizes = {};
for (const each of made.images) {
  const content = each.type === "url" ? await (await fetch(each.data)).arrayBuffer() : each.data;
  sizes[new URL(each.data).searchParams.get("filename")] = content.byteLength;
}
console.log(JSON.stringify({ images: sizes, system: Object.keys(stats), queue: await client.getQueue() }));
process.exit(0);
