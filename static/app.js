// The page: which view is open, looking again and again, and handing what the reader does to who does it.

import { isAway } from "./api.js";
import { deeds } from "./deeds.js";
import { morph } from "./dom.js";
import { viewer } from "./gallery.js";
import { keepLooking } from "./poll.js";
import { readRoute } from "./route.js";
import * as home from "./views/home.js";
import * as instances from "./views/instances.js";
import * as run from "./views/run.js";
import * as start from "./views/start.js";

const VIEWS = { home, instances, run, start };
const SAID_FOR_MS = 6_000;
const SECOND_MS = 1_000;

const main = document.querySelector("main");
const notice = document.getElementById("notice");
const said = document.getElementById("said");
const question = document.getElementById("question");
const enlarged = viewer(document.getElementById("viewer"));

let route = readRoute();
let view = VIEWS[route.view] ?? home;
let known = null; // what the view has learned, or null before that
let isNew = false; // another view was gone to: who hears the page or uses keys is taken to its heading
let silence = null;

const actions = {
  ...deeds({ ask, say }),
  ...home.actions,
  ...start.actions,
  enlarge: (_data, link) => enlarged.open(link),
  toContent: () => main.focus(),
};

async function lookOnce() {
  const wanted = route;
  try {
    const learned = await view.learn(wanted, known);
    if (wanted !== route) return true;
    const news = known && view.news?.(known, learned);
    if (news) say(news);
    known = learned;
    tell("");
    draw();
    return true;
  } catch (error) {
    if (wanted === route) tell(error.message ?? String(error), known === null || isAway(error));
    if (!isAway(error) && !error.status) throw error; // ours: it belongs in the console
    return false;
  }
}

function draw() {
  if (known === null) return;
  document.title = `${view.title(known)} – ComfyUI runs`;
  morph(main, view.draw(known, route).flat(Infinity).filter(Boolean));
  if (isNew) main.querySelector("h1")?.focus({ preventScroll: true });
  isNew = false;
}

/** What keeps the reader from seeing what is true; stays until it passes. */
function tell(text) {
  if (notice.textContent !== text) notice.textContent = text;
}

function say(text) {
  said.textContent = text ?? "";
  clearTimeout(silence);
  silence = setTimeout(() => { said.textContent = ""; }, SAID_FOR_MS);
}

function ask(title, text, yes) {
  question.querySelector("h2").textContent = title;
  question.querySelector("p").textContent = text;
  question.querySelector("[value=yes]").textContent = yes;
  question.returnValue = "";
  question.showModal();
  return new Promise((resolve) => {
    question.addEventListener("close", () => resolve(question.returnValue === "yes"), { once: true });
  });
}

const looking = keepLooking(lookOnce);

async function act(name, data, element) {
  try {
    await actions[name](data, element);
  } catch (error) {
    say(error.message ?? String(error));
  }
  draw();
  looking.soon();
}

function goTo() {
  route = readRoute();
  const next = VIEWS[route.view] ?? home;
  if (next !== view || next === run) {
    isNew = known !== null;
    known = null;
    main.replaceChildren();
    scrollTo(0, 0);
  }
  view = next;
  for (const link of document.querySelectorAll("header nav a")) {
    link.toggleAttribute("aria-current", link.getAttribute("href") === `#/${route.view === "home" ? "" : route.view}`);
  }
  looking.soon();
}

function delegate(kind, isMeant) {
  document.addEventListener(kind, (event) => {
    const element = event.target.closest?.("[data-do]");
    if (!element || !isMeant(element, event)) return;
    if (kind === "click" || kind === "submit") event.preventDefault();
    act(element.dataset.do, element.dataset, element);
  });
}

const isPlainClick = (event) => event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey;
delegate("click", (element, event) => !element.dataset.on && element.tagName !== "FORM" && isPlainClick(event));
delegate("submit", (element) => element.tagName === "FORM");
delegate("change", (element) => element.dataset.on === "change");
delegate("input", (element) => element.dataset.on === "input");

document.addEventListener("dragover", (event) => {
  const zone = event.target.closest("[data-drop]");
  event.preventDefault(); // a file beside the zone must not replace the page
  event.dataTransfer.dropEffect = zone ? "copy" : "none";
  for (const each of document.querySelectorAll("[data-drop]")) each.toggleAttribute("data-over", each === zone);
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  const zone = event.target.closest("[data-drop]");
  for (const each of document.querySelectorAll("[data-drop]")) each.removeAttribute("data-over");
  if (zone) act(zone.dataset.drop, zone.dataset, { files: [...event.dataTransfer.files] });
});
document.addEventListener("toggle", (event) => { if (event.target.matches("details.looked-into[open]")) looking.soon(); }, true);
window.addEventListener("hashchange", goTo);
start.onChange(draw);
setInterval(() => { if (!document.hidden && ["home", "run"].includes(route.view)) draw(); }, SECOND_MS);
goTo();
