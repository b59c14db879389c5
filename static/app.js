// The page: which view is open, looking again and again, and handing what the reader does to who does it.

import { isAway } from "./api.js";
import { commonActions } from "./actions.js";
import { el, morph } from "./dom.js";
import { viewer } from "./gallery.js";
import { arrive, leave } from "./history.js";
import { keepLooking } from "./poll.js";
import { readRoute, toHome } from "./route.js";
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
const busy = new WeakSet(); // buttons and forms whose last press is still being done

let route = readRoute();
let view = VIEWS[route.view] ?? home;
let known = null; // what the view has learned, or null before that
let settle = null; // where in a view that was gone to its reader wants to be, once it is drawn
let isLeaving = false;
let silence = null;

const actions = {
  ...commonActions({ ask, say }),
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
    settle?.();
    settle = null;
    return true;
  } catch (error) {
    if (wanted === route) fail(error);
    if (!isAway(error) && !error.status) throw error; // ours: it belongs in the console
    return false;
  }
}

function draw() {
  if (known === null) return;
  document.title = `${view.title(known)} – ComfyUI runs`;
  morph(main, view.draw(known, route).flat(Infinity).filter(Boolean));
}

function fail(error) {
  const message = error.message ?? String(error);
  if (known !== null || isAway(error)) {
    tell(message);
    return;
  }
  tell("");
  document.title = "Not here – ComfyUI runs";
  morph(main, [el("h1", { tabindex: -1 }, "Not here"), el("p", {}, message), el("p", {}, el("a", { href: toHome() }, "All runs"))]);
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
  busy.add(element);
  try {
    await actions[name](data, element);
  } catch (error) {
    say(error.message ?? String(error));
  } finally {
    busy.delete(element);
  }
  draw();
  looking.soon();
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
    settle = () => {
      scrollTo(0, scrolled);
      if (!isFirst) main.querySelector("h1")?.focus({ preventScroll: true }); // who hears the page or uses keys
    };
    known = null;
    isLeaving = true; // what was typed and not sent is not sent by going
    main.replaceChildren(el("p.empty.looking", {}, "Looking…"));
    isLeaving = false;
  } else if (wasHere || before.query.get("before") !== route.query.get("before")) {
    settle = () => (wasHere ? scrollTo(0, scrolled) : main.querySelector("[data-top]")?.scrollIntoView());
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
delegate("search", (element) => element.dataset.on === "change"); // a search field that was emptied

/** A field shows what is meant, also where what was typed meant nothing. */
document.addEventListener("focusout", ({ target: field }) => {
  if (field.nodeName === "INPUT" && field.dataset.on === "input") field.value = field.getAttribute("value") ?? "";
});

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
