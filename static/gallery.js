// The outputs of a run: thumbnails that open a viewer, players for video and audio, and download links.

import { el } from "./dom.js";
import { outputAddress, thumbnail } from "./components.js";
import * as labels from "./labels.js";

const SMALL = 512; // pixels: sharp on a screen with double resolution too
const ALONE = 1024;
const PLAYERS = { video: "video", audio: "audio" };

export function gallery(run) {
  const numbered = run.outputs.map((output, number) => ({ ...output, number }));
  const side = numbered.length > 1 ? SMALL : ALONE;
  return el("ul.gallery", {}, numbered.map((output) =>
    el("li", { "data-key": output.number, "data-type": output.file_type },
      output.downloaded ? shown(run.workflow_id, output, side) : el("p.problem", {}, `${output.filename}: ${output.error ?? "not here yet"}`),
      output.downloaded ? caption(run.workflow_id, output) : null)));
}

function shown(id, { number, filename, file_type }, side) {
  const source = outputAddress(id, number);
  if (file_type === "image") {
    return el("a.picture", { href: source, "data-do": "enlarge", "data-name": filename }, thumbnail(id, number, filename, side));
  }
  if (file_type in PLAYERS) {
    return el(PLAYERS[file_type], { src: source, controls: true, preload: "metadata", "aria-label": filename });
  }
  return el("a.file", { href: source, target: "_blank", rel: "noopener" }, filename);
}

const caption = (id, { number, filename, size_bytes, upload_url, upload_error }) => [
  el("p.line.small", {},
    el("a.name", { href: outputAddress(id, number), download: filename, title: `Download ${filename}` }, filename),
    el("span.quiet", {}, size_bytes === null ? "" : labels.size(size_bytes))),
  upload_url ? el("p.small.quiet", {}, `Uploaded to ${upload_url}`) : null,
  upload_error ? el("p.small.problem", {}, upload_error) : null,
];

/** The picture viewer. The arrow keys show the next or previous picture; Escape and the browser's Back close it. */
export function viewer(dialog) {
  const picture = dialog.querySelector("img");
  const name = dialog.querySelector(".name");
  const save = dialog.querySelector("[download]");
  let links = [];
  let place = 0;

  function show(wanted) {
    place = (wanted + links.length) % links.length;
    const link = links[place];
    picture.src = link.href;
    picture.alt = name.textContent = link.dataset.name;
    save.href = link.href;
    save.download = link.dataset.name;
    dialog.classList.toggle("single", links.length < 2);
  }

  dialog.addEventListener("click", (event) => {
    const turn = event.target.closest("[data-turn]");
    if (turn) show(place + Number(turn.dataset.turn));
    else if (!event.target.closest("a, img")) dialog.close();
  });
  dialog.addEventListener("keydown", (event) => {
    const turn = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (turn) show(place + turn);
  });
  dialog.addEventListener("close", () => {
    picture.removeAttribute("src");
    if (history.state?.isEnlarged) history.back();
  });
  window.addEventListener("popstate", () => { if (dialog.open) dialog.close(); });
  return {
    open(link) {
      links = [...document.querySelectorAll("a.picture")];
      show(links.indexOf(link));
      dialog.showModal();
      history.pushState({ ...history.state, isEnlarged: true }, "");
    },
  };
}
