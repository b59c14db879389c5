// What happens to the outputs of a run: their format, an upload, and a webhook. The fields are shared by "Start a run" and
// the forms of custom workflows.

import { el } from "./dom.js";

const FORMATS = [["", "as ComfyUI saves them"], ["jpeg", "JPEG"], ["webp", "WebP"]];

/** The fields as they are entered. `given`: the body of a request that is made again. */
export function newDelivery({ upload = null, convert = null } = {}) {
  return {
    upload: uploadText(upload),
    givenUpload: upload, // sent unchanged if its text is unchanged
    format: convert?.format ?? "",
    quality: String(convert?.options?.quality ?? ""),
    options: convert?.options ?? {}, // the other options are kept
    webhook: "",
  };
}

/** The fields of a request body; null is "none", also if the run that is made again has the field. */
export const deliveryBody = (delivery) => ({
  upload: uploadBody(delivery),
  convert: delivery.format ? { format: delivery.format, options: options(delivery) } : null,
  webhook: delivery.webhook.trim() || null,
});

/** The fields as a browser may store them: URLs that may contain a secret are left out. */
export const withoutSecrets = (delivery) => ({
  ...delivery,
  ...(mayBeSecret(delivery.upload) && { upload: "", givenUpload: null }),
  ...(mayBeSecret(delivery.webhook) && { webhook: "" }),
});

/** Stores a field. Another format has other options. */
export function changeDelivery(delivery, name, value) {
  delivery[name] = value;
  if (name === "format") delivery.options = {};
}

export const isDefault = ({ upload, format, webhook }) => !upload && !format && !webhook;

/** Draws the fields. `action` stores them: all views share the names of their actions. */
export const deliveryFields = (delivery, action = "changeDelivery") => [
  el("label.field", { "data-key": "format", "data-kind": "choice" }, el("span", {}, "Image format"),
    el("select", { "data-do": action, "data-on": "change", "data-name": "format" },
      formats(delivery).map(([value, text]) => el("option", { value, selected: value === delivery.format }, text)))),
  delivery.format ? el("label.field", { "data-key": "quality" }, el("span", {}, "Quality, 1 to 100"),
    el("input", { type: "number", min: 1, max: 100, step: 1, value: delivery.quality, placeholder: "80", inputmode: "numeric",
      "data-do": action, "data-on": "input", "data-name": "quality" })) : null,
  address(delivery, action, "upload", "Upload the outputs to", "s3://bucket/prefix",
    "Also hf://owner/repo/directory, a container of Azure, or a web URL that takes PUT. The outputs stay on this server too."),
  address(delivery, action, "webhook", "Webhook", "https://example.com/hook", "A URL that gets a POST request when the run has ended."),
];

const address = (delivery, action, name, label, placeholder, about) =>
  el("label.field", { "data-key": name, "data-kind": "text" }, el("span", {}, label),
    el("input", { type: "text", value: delivery[name], placeholder, maxlength: 8192, inputmode: "url", autocomplete: "off", spellcheck: "false",
      "data-do": action, "data-on": "input", "data-name": name }),
    el("span.quiet.small", {}, about));

const formats = ({ format }) => (FORMATS.some(([known]) => known === format) ? FORMATS : [...FORMATS, [format, format]]);

/** An integer that is no quality is sent as it is: the server says what it wants. */
const options = ({ options: before, quality }) => {
  const { quality: _, ...others } = before;
  return quality.trim() ? { ...others, quality: Number(quality) } : others;
};

/** An upload as one line: a URL if it has one, else JSON. */
function uploadText(upload) {
  if (upload === null || typeof upload === "string") return upload ?? "";
  const { s3, http_upload: http } = upload;
  if (s3) return `s3://${[s3.bucket, s3.prefix].filter(Boolean).join("/")}`;
  return http ? http.url_prefix : JSON.stringify(upload);
}

function uploadBody({ upload, givenUpload }) {
  const text = upload.trim();
  if (!text) return null;
  if (text === uploadText(givenUpload)) return givenUpload;
  try {
    return text.startsWith("{") ? JSON.parse(text) : text;
  } catch {
    return text; // the server says what it wants
  }
}

/** A user and a password, or a signature in a query. */
const mayBeSecret = (url) => !/^hf:/i.test(url) && /[@?]/.test(url);
