// When to look again: every two seconds, less often while the page is hidden or looking fails; one look at a time.

const USUAL_MS = 2_000;
const HIDDEN_MS = 20_000;
const LONGEST_MS = 15_000;

/** `look` is awaited before the next one is planned. Begins with the first call
 * of `soon`, which looks at once. */
export function keepLooking(look) {
  let failures = 0;
  let timer = null;
  let isLooking = false;
  let isWanted = false;

  async function turn() {
    clearTimeout(timer);
    if (isLooking) {
      isWanted = true;
      return;
    }
    isLooking = true;
    isWanted = false;
    let isWell = false;
    try {
      isWell = await look();
    } finally {
      failures = isWell ? 0 : failures + 1;
      isLooking = false;
      timer = setTimeout(turn, isWanted ? 0 : pause(failures));
    }
  }

  document.addEventListener("visibilitychange", () => { if (!document.hidden) turn(); });
  window.addEventListener("online", turn);
  return { soon: turn };
}

function pause(failures) {
  if (document.hidden) return HIDDEN_MS;
  return Math.min(USUAL_MS * 2 ** Math.max(0, failures - 1), LONGEST_MS);
}
