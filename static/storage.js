// What this browser remembers: between visits, or (`Here`) as long as its tab is open. Where it may remember
// nothing, nothing is known.

export const remember = (name, value) => put("localStorage", name, value);
export const recall = (name) => get("localStorage", name);
export const rememberHere = (name, value) => put("sessionStorage", name, value);
export const recallHere = (name) => get("sessionStorage", name);
export const forget = (name) => { put("sessionStorage", name, null); };

function get(storage, name) {
  try {
    return window[storage].getItem(name);
  } catch {
    return null;
  }
}

function put(storage, name, value) {
  try {
    if (value === null) window[storage].removeItem(name);
    else window[storage].setItem(name, value);
  } catch {
    // forbidden, or full: then it is not remembered
  }
}
