// The page: opens views, polls the server, and dispatches user events to actions.

import { isUnreachable } from "./api.js";
import { commonActions } from "./actions.js";
import { el, morph } from "./dom.js";
import { viewer } from "./gallery.js";
import { arrive, leave } from "./history.js";
import { startPolling } from "./poll.js";
import { readRoute, toHome } from "./route.js";
import * as home from "./views/home.js";
import * as instances from "./views/instances.js";
import * as run from "./views/run.js";
import * as start from "./views/start.js";
import * as workflows from "./views/workflows.js";

const VIEWS = { home, instances, run, start, workflows };
const STATUS_SHOWN_MS = 6_000;
const SECOND_MS = 1_000;

const main = document.querySelector("main");
const notice = document.getElementById("notice");
const said = document.getElementById("said");
const question = document.getElementById("question");
const enlarged = viewer(document.getElementById("viewer"));
const busy = new WeakSet(); // buttons and forms whose action is still running

let route = readRoute();
let view = VIEWS[route.view] ?? home;
let data = null; // what `view.learn` returned last, or null
let restorePosition = null; // called after the first drawing of a new view: sets scroll position and focus
let isLeaving = false;
let statusTimer = null;

const actions = {
  ...commonActions({ ask, say }),
  ...home.actions,
  ...start.actions,
  ...workflows.actions,
  enlarge: (_data, link) => enlarged.open(link),
  toContent: () => main.focus(),
};

async function pollOnce() {
  const wanted = route;
  try {
    const learned = await view.learn(wanted, data);
    if (wanted !== route) return true;
    const news = data && view.news?.(data, learned);
    if (news) say(news);
    data = learned;
    showNotice("");
    draw();
    restorePosition?.();
    restorePosition = null;
    return true;
  } catch (error) {
    if (wanted === route) fail(error);
    if (!isUnreachable(error) && !error.status) throw error; // a bug of the page: report it in the console
    return false;
  }
}

function draw() {
  if (data === null) return;
  document.title = `${view.title(data)} – ComfyUI runs`;
  morph(main, view.draw(data, route).flat(Infinity).filter(Boolean));
}

function fail(error) {
  const message = error.message ?? String(error);
  if (data !== null || isUnreachable(error)) {
    showNotice(message);
    return;
  }
  showNotice("");
  document.title = "Not found – ComfyUI runs";
  morph(main, [el("h1", { tabindex: -1 }, "Not found"), el("p", {}, message), el("p", {}, el("a", { href: toHome() }, "All runs"))]);
}

/** Shows why the page may be out of date. The notice stays until the problem is over. */
function showNotice(text) {
  if (notice.textContent !== text) notice.textContent = text;
}

function say(text) {
  said.textContent = text ?? "";
  clearTimeout(statusTimer);
  statusTimer = setTimeout(() => { said.textContent = ""; }, STATUS_SHOWN_MS);
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

const { pollNow } = startPolling(pollOnce);

async function act(name, parameters, element) {
  busy.add(element);
  try {
    await actions[name](parameters, element);
  } catch (error) {
    say(error.message ?? String(error));
  } finally {
    busy.delete(element);
  }
  draw();
  pollNow();
}

function goTo() {
  const before = route;
  leave();
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  say("");
  route = readRoute();
  const next = VIEWS[route.view] ?? home;
  const { isFirst, wasHere, scrolled } = arrive();
  if (next !== view || next === run) {
    restorePosition = () => {
      scrollTo(0, scrolled);
      if (!isFirst) main.querySelector("h1")?.focus({ preventScroll: true }); // for screen readers and keyboards
    };
    data = null;
    isLeaving = true; // removing a field fires `change`: its text must not be submitted
    main.replaceChildren(el("p.empty.loading", {}, "Loading…"));
    isLeaving = false;
  } else if (wasHere || before.query.get("before") !== route.query.get("before")) {
    restorePosition = () => (wasHere ? scrollTo(0, scrolled) : main.querySelector("[data-top]")?.scrollIntoView());
  }
  view = next;
  for (const link of document.querySelectorAll("header nav a")) {
    link.toggleAttribute("aria-current", link.getAttribute("href") === `#/${route.view === "home" ? "" : route.view}`);
  }
  pollNow();
}

function delegate(kind, isMeant) {
  document.addEventListener(kind, (event) => {
    const element = event.target.closest?.("[data-do]");
    if (!element || isLeaving || !isMeant(element, event)) return;
    const isPress = kind === "click" || kind === "submit";
    if (isPress) event.preventDefault();
    if (!isPress || !busy.has(element)) act(element.dataset.do, element.dataset, element);
  });
}

const isPlainClick = (event) => event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey;
delegate("click", (element, event) => !element.dataset.on && element.tagName !== "FORM" && isPlainClick(event));
delegate("submit", (element) => element.tagName === "FORM");
delegate("change", (element) => element.dataset.on === "change");
delegate("input", (element) => element.dataset.on === "input");
delegate("search", (element) => element.dataset.on === "change"); // the user cleared a search field

/** When a field loses the focus, it shows the stored value instead of an invalid text. */
document.addEventListener("focusout", ({ target: field }) => {
  if (field.nodeName === "INPUT" && field.dataset.on === "input") field.value = field.getAttribute("value") ?? "";
});

document.addEventListener("dragover", (event) => {
  const zone = event.target.closest("[data-drop]");
  event.preventDefault(); // a file that is dropped outside of a zone must not replace the page
  event.dataTransfer.dropEffect = zone ? "copy" : "none";
  for (const each of document.querySelectorAll("[data-drop]")) each.toggleAttribute("data-over", each === zone);
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  const zone = event.target.closest("[data-drop]");
  for (const each of document.querySelectorAll("[data-drop]")) each.removeAttribute("data-over");
  if (zone) act(zone.dataset.drop, zone.dataset, { files: [...event.dataTransfer.files] });
});
document.addEventListener("toggle", (event) => { if (event.target.matches("details.loads-content[open]")) pollNow(); }, true);
window.addEventListener("hashchange", goTo);
start.onChange(draw);
workflows.onChange(draw);
setInterval(() => { if (!document.hidden && ["home", "run"].includes(route.view)) draw(); }, SECOND_MS);
goTo();
