// Polling: every two seconds; less often while the page is hidden or requests fail; one poll at a time.

const USUAL_MS = 2_000;
const HIDDEN_MS = 20_000;
const LONGEST_MS = 15_000;

/** `poll` returns true if it succeeded; it is awaited before the next poll is scheduled. Polling begins with the
 * first call of `pollNow`, which polls immediately. */
export function startPolling(poll) {
  let failures = 0;
  let timer = null;
  let isPolling = false;
  let isWanted = false;

  async function turn() {
    clearTimeout(timer);
    if (isPolling) {
      isWanted = true;
      return;
    }
    isPolling = true;
    isWanted = false;
    let isOk = false;
    try {
      isOk = await poll();
    } finally {
      failures = isOk ? 0 : failures + 1;
      isPolling = false;
      timer = setTimeout(turn, isWanted ? 0 : pause(failures));
    }
  }

  document.addEventListener("visibilitychange", () => { if (!document.hidden) turn(); });
  window.addEventListener("online", turn);
  return { pollNow: turn };
}

function pause(failures) {
  if (document.hidden) return HIDDEN_MS;
  return Math.min(USUAL_MS * 2 ** Math.max(0, failures - 1), LONGEST_MS);
}
