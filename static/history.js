// The places that Back and Forward lead to, and how far down each of them its reader was.

import { forget, recallHere, rememberHere } from "./storage.js";

const WANTED = "wanted"; // what was asked for before the login; kept by login.js
const SCROLLS = "scrolls";
const MOST_KEPT = 50;

const scrolls = new Map(JSON.parse(recallHere(SCROLLS) ?? "[]"));
let here = null;

history.scrollRestoration = "manual"; // what is to be scrolled is not there yet when the browser would

const wanted = recallHere(WANTED);
forget(WANTED);
if (wanted && !location.hash) history.replaceState(null, "", wanted);

/** To be called before another place is drawn. */
export function leave() {
  if (here) scrolls.set(here, scrollY);
}

window.addEventListener("pagehide", () => {
  leave();
  rememberHere(SCROLLS, JSON.stringify([...scrolls].slice(-MOST_KEPT)));
});

/** Of the place that the address has just changed to. */
export function arrive() {
  const isFirst = here === null;
  const wasHere = Boolean(history.state?.place);
  here = history.state?.place ?? `${Date.now()} ${scrolls.size}`;
  if (!wasHere) history.replaceState({ place: here }, "");
  return { isFirst, wasHere, scrolled: scrolls.get(here) ?? 0 };
}
