// Views return elements; `morph` updates the page with as few changes as possible, so that the focus, the scroll
// position, a playing video and open <details> elements do not change.

/** Creates an element. `kind` is "div.card.wide". Attributes that are null, undefined or false are omitted. Children
 * are nodes, texts, or lists of them. A text is never parsed as markup. */
export function el(kind, attributes = {}, ...children) {
  const [name, ...classes] = kind.split(".");
  const element = document.createElement(name);
  if (classes.length) element.className = classes.join(" ");
  setAttributes(element, attributes);
  element.append(...children.flat(Infinity).filter(isShown).map(asNode));
  return element;
}

/** Creates an SVG element. */
export function svg(name, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  setAttributes(element, attributes);
  element.append(...children.flat(Infinity).filter(isShown).map(asNode));
  return element;
}

/** Makes the children of `parent` equal to `wanted`. Elements with the same `data-key` are reused, also at another
 * position. */
export function morph(parent, wanted) {
  const keyed = new Map([...parent.children].filter(keyOf).map((child) => [keyOf(child), child]));
  let place = parent.firstChild;
  for (const node of wanted) {
    const match = keyOf(node) ? keyed.get(keyOf(node)) : place;
    if (match && isAlike(match, node)) {
      if (match !== place) parent.insertBefore(match, place);
      else place = place.nextSibling;
      update(match, node);
    } else {
      parent.insertBefore(node, place);
    }
  }
  while (place) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
}

const USERS_OWN = new Set(["open"]);

function setAttributes(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(name, value === true ? "" : value);
    }
  }
}

const isShown = (child) => child !== null && child !== undefined && child !== false && child !== "";
const asNode = (child) => (child instanceof Node ? child : document.createTextNode(String(child)));
const keyOf = (node) => (node instanceof Element ? node.getAttribute("data-key") : null);
const isAlike = (one, other) => one.nodeName === other.nodeName && keyOf(one) === keyOf(other);

function update(present, wanted) {
  if (present.nodeType === Node.TEXT_NODE) {
    if (present.data !== wanted.data) present.data = wanted.data;
    return;
  }
  for (const { name } of [...present.attributes]) {
    if (wanted.hasAttribute(name) || USERS_OWN.has(name)) continue;
    present.removeAttribute(name);
    fill(present, name, "");
  }
  for (const { name, value } of wanted.attributes) {
    if (present.getAttribute(name) === value || USERS_OWN.has(name)) continue;
    present.setAttribute(name, value);
    fill(present, name, value);
  }
  morph(present, [...wanted.childNodes]);
}

/** Sets the property of a field: after user input, a field ignores its attributes. A field is not overwritten while
 * the user types into it. */
function fill(field, name, value) {
  const isTyped = field === document.activeElement && field.dataset.on === "input";
  if (name === "value" && field.nodeName === "INPUT" && !isTyped) field.value = value;
  if (name === "selected") field.selected = field.hasAttribute(name);
}
