// The list of runs, asked for every two seconds; slower while the page is hidden or the server is away.
const API = "/comfyui/workflow";
const SHOWN = 20;
const list = document.getElementById("runs");
const notice = document.getElementById("notice");
const template = document.getElementById("run");
const drawn = new Map(); // workflow_id -> the run as it was drawn, so that what has not changed is left alone

function say(text) {
  if (notice.textContent !== text) notice.textContent = text;
}

function now(run) {
  if (run.error_message) return run.error_message;
  if (run.queue_position !== null) return `${run.queue_position} ahead in the queue`;
  return run.message ?? (run.current_node ? `Running ${run.current_node}` : "");
}

function pictures(run) {
  return Array.from({ length: Math.min(run.output_count, 12) }, (_, number) => {
    const link = document.createElement("a");
    const picture = document.createElement("img");
    link.href = `${API}/${run.workflow_id}/outputs/${number}`;
    picture.src = `${link.href}?preview=192`;
    picture.alt = `Output ${number + 1}`;
    picture.loading = "lazy";
    picture.addEventListener("error", () => { picture.replaceWith(`Output ${number + 1}`); });
    link.append(picture);
    return link;
  });
}

function draw(run) {
  const item = template.content.cloneNode(true).querySelector("li");
  item.id = run.workflow_id;
  item.dataset.status = run.status;
  item.querySelector(".name").textContent = run.workflow_name;
  item.querySelector(".status").textContent = run.status === "executing" ? `${run.progress_percent} %` : run.status;
  item.querySelector("progress").value = run.progress_percent;
  item.querySelector(".now").textContent = now(run);
  if (run.status === "completed") item.querySelector(".pictures").append(...pictures(run));
  return item;
}

function show(runs) {
  say(runs.length ? "" : "No runs yet. Start one: comfyui-workflow run WORKFLOW --ssh \"…\"");
  runs.forEach((run, position) => {
    const state = JSON.stringify(run);
    const there = document.getElementById(run.workflow_id);
    if (drawn.get(run.workflow_id) === state && list.children[position] === there) return;
    const item = draw(run);
    if (there) there.replaceWith(item);
    if (list.children[position] !== item) list.insertBefore(item, list.children[position] ?? null);
    drawn.set(run.workflow_id, state);
  });
  while (list.children.length > runs.length) list.lastElementChild.remove();
}

async function look() {
  let wait = document.hidden ? 15000 : 2000;
  try {
    const answer = await fetch(`${API}?limit=${SHOWN}`);
    const body = await answer.json();
    if (body.success) show(body.workflows); else say(body.message);
  } catch {
    say("The server is away. This page comes back by itself.");
    wait = 5000;
  }
  setTimeout(look, wait);
}

look();
