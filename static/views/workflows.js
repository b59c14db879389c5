// The views of custom workflows: the list, and a form made from the parameters of one of them.

import { INSTANCES, call, isUnreachable, load, uploadFile } from "../api.js";
import { el } from "../dom.js";
import { chooser } from "../components.js";
import { changeDelivery, deliveryBody, deliveryFields, newDelivery } from "../delivery.js";
import { randomKey } from "../draft.js";
import { toRun, toWorkflow, toWorkflows } from "../route.js";

const WORKFLOWS = "/workflow";
const NO_RESPONSE = "The server did not respond. The run may have started. Press Start again when the server is back: the run does not start twice.";
let form = null; // what the user has entered; another workflow has another form

export const title = ({ workflow }) => (workflow ? workflow.summary || workflow.name : "Custom workflows");

export async function learn(route) {
  if (!route.id) return { workflows: (await load(WORKFLOWS)).workflows };
  const address = `${WORKFLOWS}/${route.id.split("/").map(encodeURIComponent).join("/")}`;
  const [{ workflow }, { instances }] = await Promise.all([load(address), load(INSTANCES)]);
  if (form?.name !== workflow.name || form.isStarted) form = newForm(workflow, address);
  return { workflow, instances };
}

const newForm = ({ name, input_schema: schema }, address) => ({
  name,
  address,
  key: randomKey(), // the idempotency key
  values: Object.fromEntries(Object.entries(schema?.properties ?? {}).filter(([, each]) => "default" in each).map(([field, each]) => [field, each.default])),
  files: {}, // the names of uploaded files, by parameter
  target: "any",
  delivery: newDelivery(),
  trouble: null,
  uploading: null,
  isStarting: false,
  isStarted: false,
});

export function draw({ workflows, workflow, instances }) {
  return workflow ? drawForm(workflow, instances) : drawList(workflows);
}

function drawList(workflows) {
  return [
    el("h1", { tabindex: -1, "data-key": "title" }, "Custom workflows"),
    workflows.length
      ? el("ul.plain.cards", { "data-key": "list" }, workflows.map((each) => el("li.card", { "data-key": each.name },
        el("h2", {}, each.trouble ? each.name : el("a", { href: toWorkflow(each.name) }, each.summary || each.name)),
        each.trouble ? el("p.problem", {}, each.trouble) : el("p.quiet", {}, each.description || each.name))))
      : el("p.empty", { "data-key": "list" }, "There are no files in the directory of custom workflows."),
  ];
}

function drawForm(workflow, instances) {
  const { properties = {}, required = [] } = workflow.input_schema ?? {};
  return [
    el("nav.back", { "data-key": "back", "aria-label": "Back" }, el("a", { href: toWorkflows }, "← Custom workflows")),
    el("h1", { tabindex: -1, "data-key": "title" }, title({ workflow })),
    workflow.description ? el("p", { "data-key": "description" }, workflow.description) : null,
    workflow.trouble ? el("p.problem", { "data-key": "trouble" }, workflow.trouble) : el("form.start", { "data-key": `form ${form.key}`, "data-do": "runCustom" },
      el("section.card.what-to-run", { "aria-labelledby": "parameters" },
        el("h2", { id: "parameters" }, "Parameters"),
        el("div.fields", {}, Object.entries(properties).map(([name, schema]) => field(name, schema, required.includes(name)))),
        el("details", { "data-key": "more" },
          el("summary", {}, "More: image format, upload, webhook"),
          el("div.fields", {}, deliveryFields(form.delivery, "changeCustomDelivery")))),
      el("aside", {}, where(instances), footer())),
  ];
}

function field(name, schema, isRequired) {
  const id = `parameter-${name}`;
  const own = { id, "data-do": "typeValue", "data-on": "input", "data-name": name, "aria-describedby": schema.description ? `${id}-about` : null, required: isRequired };
  const isText = schema.type === "string" && !schema.enum && schema.format !== "file";
  return el("div.field", { "data-key": name, "data-kind": isText ? "text" : "choice" },
    el("label", { for: id }, schema.title || name, isRequired ? " (required)" : ""),
    control(name, schema, own),
    schema.description ? el("span.quiet.small", { id: `${id}-about` }, schema.description) : null);
}

function control(name, schema, own) {
  const value = form.values[name];
  if (schema.format === "file") {
    return el("div", {}, form.files[name] ? el("p.name", {}, form.files[name]) : null,
      chooser("chooseValueFile", form.files[name] ? "Choose another" : "Choose a file", null, "button", { "data-name": name, id: own.id }));
  }
  const options = schema.type === "boolean" ? [true, false] : schema.enum;
  if (options) {
    return el("select", { ...own, "data-on": "change" },
      value === undefined ? el("option", { value: "" }, "") : null,
      options.map((each) => el("option", { value: JSON.stringify(each), selected: each === value }, String(each))));
  }
  if (schema.type === "integer" || schema.type === "number") {
    return el("input", { ...own, type: "number", value: value ?? "", min: schema.minimum, max: schema.maximum, step: schema.type === "integer" ? 1 : "any", inputmode: "decimal" });
  }
  if (schema.type === "string") return el("textarea", { ...own, rows: 2, maxlength: schema.maxLength }, value ?? "");
  return el("textarea", { ...own, rows: 2, "data-json": true }, value === undefined ? "" : JSON.stringify(value));
}

function where(instances) {
  const named = [["any", "Any free instance"], ...instances.map(({ name, state }) => [name, `${name} (${state.reachability})`])];
  return el("section.card", { "data-key": "where", "aria-labelledby": "where" },
    el("h2", { id: "where" }, "Where"),
    el("label.field", {}, el("span", {}, "Instance"),
      el("select", { "data-do": "chooseCustomPlace", "data-on": "change" },
        named.map(([value, text]) => el("option", { value, selected: value === form.target }, text)))));
}

function footer() {
  const isBusy = form.isStarting || form.uploading;
  return el("div.footer", { "data-key": "footer" },
    el("p", { role: "status", "data-tone": form.trouble ? "bad" : null }, form.trouble ?? (form.uploading ? `Uploading ${form.uploading}…` : "")),
    el("div.actions", {}, el("button.button.primary", { type: "submit", disabled: Boolean(isBusy) }, form.isStarting ? "Starting…" : "Start")));
}

export const actions = {
  typeValue: ({ name, json }, input) => setValue(name, input, json !== undefined),
  changeCustomDelivery: ({ name }, input) => { changeDelivery(form.delivery, name, input.value); form.trouble = null; },
  chooseCustomPlace: (_data, select) => { form.target = select.value; },
  chooseValueFile: ({ name }, input) => takeFile(name, input),
  runCustom: () => start(),
};

let redraw = () => {};
/** Sets the function that redraws the page after an asynchronous change. */
export const onChange = (listener) => { redraw = listener; };

function setValue(name, input, isJson) {
  const value = input.value;
  if (value === "") delete form.values[name];
  else if (input.nodeName === "SELECT" || input.type === "number" || isJson) form.values[name] = parsed(value);
  else form.values[name] = value;
  form.trouble = null;
}

/** A value that is no JSON yet is sent as it is: the server says what it wants. */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

async function takeFile(name, input) {
  const [file] = input.files ?? [];
  if (!file) return;
  Object.assign(form, { trouble: null, uploading: file.name });
  redraw();
  try {
    form.values[name] = await uploadFile(file);
    form.files[name] = file.name;
  } catch (error) {
    form.trouble = error.message;
  }
  form.uploading = null;
  redraw();
}

async function start() {
  const { values: input, target, address, delivery } = form;
  Object.assign(form, { trouble: null, isStarting: true });
  redraw();
  try {
    const { workflow_id: id } = await call("POST", address, { input, ssh_connection: target, ...deliveryBody(delivery) }, { key: form.key });
    form.isStarted = true;
    location.hash = toRun(id);
  } catch (error) {
    form.trouble = isUnreachable(error) ? NO_RESPONSE : error.message;
    form.isStarting = false;
    redraw();
  }
}
