// @saintno/comfyui-sdk, used as its own examples do: URL -> what was heard and made, as JSON.
import { readFileSync } from "node:fs";
import { ComfyApi, CallWrapper, PromptBuilder } from "@saintno/comfyui-sdk";

const [url, workflowFile, picture] = process.argv.slice(2);
const api = new ComfyApi(url, "saintno").init();
await api.waitForReady();
const uploaded = await api.uploadImage(readFileSync(picture), "from_saintno.png", {});
const workflow = new PromptBuilder(JSON.parse(readFileSync(workflowFile)), ["image"], ["images"])
  .setInputNode("image", "1.inputs.image")
  .setOutputNode("images", "2")
  .input("image", uploaded.info.filename);
const heard = [];
const sizes = await new Promise((resolve, reject) => {
  new CallWrapper(api, workflow)
    .onPending(() => heard.push("pending"))
    .onStart(() => heard.push("start"))
    .onFinished(async (data) => {
      heard.push("finished");
      const made = {};
      for (const image of data.images.images) {
        made[image.filename] = (await (await api.getImage(image)).arrayBuffer()).byteLength;
      }
      resolve(made);
    })
    .onFailed(reject)
    .run();
});
console.log(JSON.stringify({ images: sizes, heard, queue: await api.getQueue() }));
process.exit(0);
