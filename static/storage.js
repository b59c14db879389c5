// Browser storage: local storage, or (`…Here`) session storage of the tab. If the browser forbids storage, reads return
// null and writes do nothing.

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
    // storage is forbidden or full
  }
}
