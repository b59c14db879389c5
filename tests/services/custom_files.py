"""Workflow files for tests of custom workflows."""

from pathlib import Path
from typing import Any

from tests.foreign_client import installed_libraries

GRAPH: dict[str, Any] = {
    "3": {"class_type": "KSampler", "inputs": {"seed": 7, "steps": 20, "cfg": 8.0, "latent_image": ["5", 0]}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 512}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat"}, "_meta": {"title": "Prompt"}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "x"}},
}
PARAMETERS: dict[str, Any] = {
    "prompt": {"input": "Prompt.text", "required": True, "description": "What to paint", "maxLength": 40},
    "steps": {"input": "3.steps", "minimum": 1, "maximum": 50, "default": 25},
    "cfg": {"input": "3.cfg", "type": "number"},
    "size": {"input": ["5.width", "5.height"], "enum": [512, 768]},
}

PYTHON = '''"""Paints a square."""

from pydantic import BaseModel, Field

SUMMARY = "Square"


class Colour(BaseModel):
    red: int = 0


class Request(BaseModel):
    text: str = Field(description="What to write")
    size: int = Field(64, ge=16, le=512)
    colour: Colour = Colour()


def generate(request):
    print("this is no part of the answer")
    if request.text == "boom":
        raise RuntimeError("no paint left")
    image = {"class_type": "EmptyImage", "inputs": {"width": request.size, "height": request.size}}
    saved = {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "p"}}
    return {"1": image, "2": saved}
'''

TYPESCRIPT = """import { z } from "zod";
import { ComfyPrompt, Workflow } from "../types";
import config from "../config";

const RequestSchema = z.object({
  prompt: z.string().describe("What to paint"),
  steps: z.number().int().min(1).max(100).optional().default(20),
  seed: z.number().int().optional().default(() => Math.floor(Math.random() * 100000000000)),
  sampler: config.samplers.optional().default("euler"),
  checkpoint: z.string().refine((name) => config.models.checkpoints.all.includes(name)).optional()
    .default(config.warmupCkpt || config.models.checkpoints.all[0]),
});

type InputType = z.infer<typeof RequestSchema>;

function generateWorkflow(input: InputType): ComfyPrompt {
  console.log("this is no part of the answer");
  if (input.prompt === "boom") throw new Error("no paint left");
  return {
    "3": { class_type: "KSampler", inputs: { steps: input.steps, sampler_name: input.sampler } },
    "6": { class_type: "CLIPTextEncode", inputs: { text: input.prompt } },
  };
}

const workflow: Workflow = { RequestSchema, generateWorkflow, summary: "Text to image" };
export default workflow;
"""

COMMON_JS = """"use strict";
Object.defineProperty(exports, "__esModule", { value: true });
var zod_1 = require("zod");
var RequestSchema = zod_1.z.object({ size: zod_1.z.number().default(64) });
var workflow = {
  RequestSchema: RequestSchema,
  generateWorkflow: async function (input) {
    return { "1": { class_type: "EmptyImage", inputs: { width: input.size, height: input.size } } };
  },
};
exports.default = workflow;
"""


def write(directory: Path, name: str, content: str) -> Path:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def install_npm_packages(directory: Path) -> None:
    """Gives the directory zod and sucrase, as `npm install` does; skips the test where they are not there."""
    installed = installed_libraries("workflow_javascript")
    directory.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json", "node_modules"):
        (directory / name).symlink_to(installed / name)
