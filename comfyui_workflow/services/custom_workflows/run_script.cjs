// Runs a workflow file of comfyui-api (.js or .ts) in a process of its own: `scripts.py` starts it.
//
// Reads {"command": "describe" | "generate", "file": path, "input": object, "context": object} from stdin. Writes one JSON
// object to stdout: the description, or {"workflow": object, "input": the values with defaults}, or {"error": sentence,
// "is_input": bool}, with "reason" if the values fit and the workflow cannot be made, or {"missing": npm package}.
//
// zod and sucrase are those that Node.js finds from the directory of the file upwards, so that the file and this program use the
// same zod. sucrase is needed for TypeScript and for import and export only.

"use strict";

const fs = require("node:fs");
const path = require("node:path");
const { createRequire } = require("node:module");

console.log = console.info = console.debug = console.error; // what the file prints is no part of the answer

const ZOD = "zod@3";
const SUCRASE = "sucrase@3";

class WrongInput extends Error {
  constructor(message, reason = null) {
    super(message);
    this.reason = reason;
  }
}

class MissingPackage extends Error {}

/** The parts of comfyui-api's config that workflow files use. The instance is not known here: names of samplers and models are
 *  checked when the run is validated, unless the context lists them. */
function makeConfig(context, { z }) {
  const oneOf = (names) => (names?.length ? z.enum(names) : z.string());
  const models = context.models ?? {};
  const anything = Object.assign([], { includes: () => true });
  const model = (type) => ({ dir: "", all: models[type]?.length ? models[type] : anything, enum: oneOf(models[type]) });
  return {
    samplers: oneOf(context.samplers),
    schedulers: oneOf(context.schedulers),
    warmupCkpt: context.warmup_checkpoint ?? undefined,
    models: new Proxy({}, { get: (_, type) => model(type) }),
  };
}

function load(file, context) {
  const resolve = createRequire(file);
  const source = asCommonJs(fs.readFileSync(file, "utf8"), file, resolve);
  const requireForFile = (id) => {
    if (/^\.{1,2}\/(.*\/)?config(\.js|\.ts)?$/.test(id)) return { __esModule: true, default: makeConfig(context, resolve("zod")) };
    if (/^\.{1,2}\/(.*\/)?types(\.js|\.ts)?$/.test(id)) return {};
    return resolve(id);
  };
  const module = { exports: {} };
  const value = evaluate(source, requireForFile, module);
  const found = [value, module.exports.default, module.exports].find(isWorkflow);
  if (!found) throw new Error("it must export a workflow: { RequestSchema, generateWorkflow }");
  if (found.RequestSchema._zod) throw new MissingPackage(ZOD); // a schema of zod 4, which is built otherwise
  return found;
}

const isWorkflow = (value) => value && typeof value === "object" && (value.RequestSchema?._def || value.RequestSchema?._zod) && typeof value.generateWorkflow === "function";

function evaluate(source, require, module) { // the names that the file sees
  const exports = module.exports;
  return eval(source);
}

function asCommonJs(source, file, resolve) {
  const isTypeScript = file.endsWith(".ts");
  if (!isTypeScript && !/^\s*(import|export)\b/m.test(source)) return source;
  const { transform } = resolve("sucrase");
  return transform(source, { transforms: isTypeScript ? ["typescript", "imports"] : ["imports"], filePath: path.basename(file) }).code;
}

async function generate(workflow, input) {
  const parsed = await workflow.RequestSchema.safeParseAsync(input);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    throw new WrongInput(`${["input", ...issue.path].join(".")}: ${issue.message}`);
  }
  try {
    return { workflow: await workflow.generateWorkflow(parsed.data), input: parsed.data };
  } catch (error) {
    const reason = String(error?.message ?? error);
    throw new WrongInput(`the workflow cannot be made: ${reason}`, reason);
  }
}

const describe = (workflow) => ({
  schema: toSchema(workflow.RequestSchema),
  summary: typeof workflow.summary === "string" ? workflow.summary : null,
  description: typeof workflow.description === "string" ? workflow.description : null,
});

/** The JSON Schema of a zod schema. What JSON Schema cannot say (refinements, transformations) is left out. */
function toSchema(schema) {
  const def = schema._def;
  const own = READERS[def.typeName]?.(def) ?? {};
  return def.description && !own.description ? { ...own, description: def.description } : own;
}

const READERS = {
  ZodString: (def) => ({ type: "string", ...limits(def, { min: "minLength", max: "maxLength" }) }),
  ZodNumber: (def) => ({
    type: def.checks.some(({ kind }) => kind === "int") ? "integer" : "number",
    ...limits(def, { min: "minimum", max: "maximum", multipleOf: "multipleOf" }),
  }),
  ZodBoolean: () => ({ type: "boolean" }),
  ZodEnum: (def) => ({ type: "string", enum: def.values }),
  ZodNativeEnum: (def) => ({ enum: Object.values(def.values) }),
  ZodLiteral: (def) => ({ enum: [def.value] }),
  ZodArray: (def) => ({ type: "array", items: toSchema(def.type) }),
  ZodRecord: () => ({ type: "object" }),
  ZodUnion: (def) => ({ anyOf: def.options.map(toSchema) }),
  ZodNullable: (def) => ({ anyOf: [toSchema(def.innerType), { type: "null" }] }),
  ZodOptional: (def) => toSchema(def.innerType),
  ZodEffects: (def) => toSchema(def.schema),
  ZodDefault: (def) => withDefault(toSchema(def.innerType), def),
  ZodObject: (def) => {
    const shape = def.shape();
    const required = Object.keys(shape).filter((name) => !shape[name].isOptional());
    const properties = Object.fromEntries(Object.entries(shape).map(([name, each]) => [name, toSchema(each)]));
    return { type: "object", properties, ...(required.length ? { required } : {}) };
  },
};

function limits(def, names) {
  const found = def.checks.filter(({ kind }) => kind in names).map(({ kind, value }) => [names[kind], value]);
  return Object.fromEntries(found);
}

/** Leaves out a default that differs each time, such as a random seed. */
function withDefault(schema, def) {
  const [first, second] = [def.defaultValue(), def.defaultValue()];
  return first === undefined || JSON.stringify(first) !== JSON.stringify(second) ? schema : { ...schema, default: first };
}

/** The package to install if that is why the file cannot be loaded. */
function missingPackage(error) {
  if (error instanceof MissingPackage) return error.message;
  const [, name] = (error?.code === "MODULE_NOT_FOUND" && /^Cannot find module '(zod|sucrase)['/]/.exec(error.message)) || [];
  return { zod: ZOD, sucrase: SUCRASE }[name];
}

async function answer({ command, file, input, context }) {
  try {
    const workflow = load(file, context ?? {});
    return command === "describe" ? describe(workflow) : await generate(workflow, input);
  } catch (error) {
    const missing = missingPackage(error);
    if (missing) return { missing };
    if (error instanceof WrongInput) return { error: error.message, is_input: true, reason: error.reason };
    return { error: String(error?.message ?? error), is_input: false };
  }
}

answer(JSON.parse(fs.readFileSync(0, "utf8"))).then((given) => {
  fs.writeFileSync(1, JSON.stringify(given));
  process.exit(0); // the file may have left timers
});
