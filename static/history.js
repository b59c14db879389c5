// Scroll positions of the history entries, for Back and Forward.

import { forget, recallHere, rememberHere } from "./storage.js";

const WANTED = "wanted"; // the address before the login; stored by login.js
const SCROLLS = "scrolls";
const MAX_STORED = 50;

const scrolls = new Map(JSON.parse(recallHere(SCROLLS) ?? "[]"));
let here = null;

history.scrollRestoration = "manual"; // the browser would scroll before the content exists

const wanted = recallHere(WANTED);
forget(WANTED);
if (wanted && !location.hash) history.replaceState(null, "", wanted);

/** Stores the scroll position. Call it before another view is drawn. */
export function leave() {
  if (here) scrolls.set(here, scrollY);
}

window.addEventListener("pagehide", () => {
  leave();
  rememberHere(SCROLLS, JSON.stringify([...scrolls].slice(-MAX_STORED)));
});

/** Returns the state of the current history entry. Call it after the address has changed. */
export function arrive() {
  const isFirst = here === null;
  const wasHere = Boolean(history.state?.place);
  here = history.state?.place ?? `${Date.now()} ${scrolls.size}`;
  if (!wasHere) history.replaceState({ place: here }, "");
  return { isFirst, wasHere, scrolled: scrolls.get(here) ?? 0 };
}
