"""Where the models that a workflow names can be had: what the editor writes into its files, and URLs in place
of names.

The editor stores with a loader where its model came from: `properties.models[{name, url, directory, hash,
hash_type}]`; templates have such a list for the whole file too. A URL may also be the value of a loader's
input. Then the model gets a name that is derived from the URL, so that the same URL is the same file.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from comfyui_workflow.parsing.untrusted import as_list, as_object, as_text, is_safe_name
from comfyui_workflow.workflows.graph import Graph, with_replaced_texts
from comfyui_workflow.workflows.model import GraphRequest
from comfyui_workflow.workflows.model_files import is_model
from comfyui_workflow.workflows.node_definitions import Definitions
from comfyui_workflow.workflows.validation.live_inputs import live_definition

LONGEST_URL = 4096
_DEEPEST = 50
_FOLDERS_OF_INPUTS = {
    "ckpt_name": "checkpoints",
    "config_name": "configs",
    "vae_name": "vae",
    "lora_name": "loras",
    "control_net_name": "controlnet",
    "unet_name": "diffusion_models",
    "clip_name": "text_encoders",
    "clip_name1": "text_encoders",
    "clip_name2": "text_encoders",
    "clip_name3": "text_encoders",
    "clip_name4": "text_encoders",
    "style_model_name": "style_models",
    "gligen_name": "gligen",
    "hypernetwork_name": "hypernetworks",
    "photomaker_model_name": "photomaker",
    "audio_encoder_name": "audio_encoders",
}
"""The kind of model that an input of this name means, in ComfyUI's own classes."""
_FOLDERS_OF_CLASSES = {
    ("CLIPVisionLoader", "clip_name"): "clip_vision",
    ("UpscaleModelLoader", "model_name"): "upscale_models",
    ("LatentUpscaleModelLoader", "model_name"): "latent_upscale_models",
    ("ModelPatchLoader", "name"): "model_patches",
    ("ImageOnlyCheckpointLoader", "ckpt_name"): "checkpoints",
}
RENAMED_FOLDERS = {"clip": "text_encoders", "unet": "diffusion_models", "t2i_adapter": "controlnet"}
"""Names of earlier versions, which files of the editor still have."""


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """A place where a model can be had."""

    name: str
    """File name, without the subfolder in which an instance may have it."""
    url: str
    folder: str | None = None
    """ComfyUI's name of the kind of model (`checkpoints`). None: the loader tells it."""
    sha256: str | None = None


Sources = Mapping[str, Sequence[ModelSource]]
"""Sources by file name."""


@dataclass(frozen=True, kw_only=True)
class LackingModel:
    """A model that a node names and the instance does not have."""

    name: str
    """As the node names it, below the folder: it may have a subfolder."""
    folder: str | None
    """None if nothing tells what kind of model it is."""
    source: ModelSource | None
    """None if nothing tells where it can be had."""
    node_id: str
    class_type: str
    input_name: str
    choices: Sequence[Any] = ()
    """The names that the input accepts now."""


def is_url(value: object) -> bool:
    if not isinstance(value, str) or len(value) > LONGEST_URL:
        return False
    try:
        return bool(re.fullmatch(r"https?://[^\s/]\S*", value) and urlsplit(value).hostname)
    except ValueError:  # such as https://[
        return False


def direct_url(url: str) -> str:
    """Returns the address of the file for the address of its page at Hugging Face, which people copy."""
    return re.sub(r"^(https://huggingface\.co/[^/]+/[^/]+)/blob/", r"\1/resolve/", url)


def name_of_url(url: str) -> str:
    """Returns a file name: the one in the URL, made unique by a hash of the URL. Two models called
    `model.safetensors` are two files."""
    parts = urlsplit(url)
    last = PurePosixPath(unquote(parts.path)).name
    stem, ending = PurePosixPath(last).stem, PurePosixPath(last).suffix.lower()
    if not (is_model(last) or ending in (".yaml", ".yml")):
        stem, ending = last, _ending_of_query(parts.query)
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", stem).strip("._")[:80] or "model"
    return f"{plain}-{key_of_url(url)[:10]}{ending}"


def key_of_url(url: str) -> str:
    """Returns 32 hexadecimal digits."""
    return hashlib.sha256(url.encode()).hexdigest()[:32]


def sources_of(request: GraphRequest) -> Sources:
    """Returns the sources that the workflow and the values of the request name."""
    workflow = request.workflow
    declared = [*_declared(workflow.editor_file), *_declared_in_graph(workflow.graph)]
    texts = _texts([workflow.graph, workflow.editor_file, dict(request.inputs)])
    urls = [direct_url(text) for text in texts if is_url(text)]
    given = [ModelSource(name=name_of_url(url), url=url) for url in urls]
    found: dict[str, list[ModelSource]] = {}
    for each in [*declared, *given]:
        found.setdefault(each.name, []).append(each)
    return found


def with_model_names(graph: Graph, definitions: Definitions) -> Graph:
    """Returns the graph in which a URL that is the value of a loader is replaced by the name that the model
    gets. The same object if there is none."""

    def named(node: Mapping[str, Any], name: str, value: str) -> str:
        if not is_url(value):
            return value
        definition = definitions.get(node["class_type"])
        declared = live_definition(definition, node["inputs"]).input(name) if definition is not None else None
        is_choice = declared is not None and declared.choices is not None and not declared.is_file
        return name_of_url(direct_url(value)) if is_choice else value

    return with_replaced_texts(graph, named)


def lacking_models(graph: Graph, definitions: Definitions, sources: Sources) -> list[LackingModel]:
    """Returns the models that nodes name and their inputs do not list, once for each name and folder."""
    found: dict[tuple[str, str | None], LackingModel] = {}
    for each in _unlisted(graph, definitions, sources):
        found.setdefault((each.name, each.folder), each)
    return list(found.values())


def _unlisted(graph: Graph, definitions: Definitions, sources: Sources) -> Iterator[LackingModel]:
    for node_id, node in graph.items():
        class_type, inputs = node["class_type"], as_object(node.get("inputs"))
        definition = definitions.get(class_type)
        for declared in live_definition(definition, inputs).inputs if definition is not None else ():
            value, choices = inputs.get(declared.name), declared.choices
            if not isinstance(value, str) or choices is None or declared.is_file or value in choices:
                continue
            name = value.replace("\\", "/")
            source = _source(sources, PurePosixPath(name).name, known_folder(class_type, declared.name))
            if source is None and not is_model(name):
                continue
            yield LackingModel(
                name=name,
                folder=(source.folder if source else None) or known_folder(class_type, declared.name),
                source=source,
                node_id=node_id,
                class_type=class_type,
                input_name=declared.name,
                choices=choices,
            )


def known_folder(class_type: str, input_name: str) -> str | None:
    """Returns the kind of model that an input means; None if only its choices can tell."""
    return _FOLDERS_OF_CLASSES.get((class_type, input_name)) or _FOLDERS_OF_INPUTS.get(input_name)


def _source(sources: Sources, name: str, folder: str | None) -> ModelSource | None:
    """Returns the source of the wanted kind, else the first one of that name."""
    named = sources.get(name, ())
    return next((each for each in named if each.folder == folder), next(iter(named), None))


def is_safe_path(name: str) -> bool:
    """True for a name of a file below a folder: no way out of it, nothing hidden."""
    parts = name.split("/")
    return len(parts) <= _DEEPEST and all(is_safe_name(each) and not each.startswith(".") for each in parts)


def _ending_of_query(query: str) -> str:
    """Civitai tells the format of a model in the query: `?type=Model&format=PickleTensor`."""
    wanted = parse_qs(query).get("format", [""])[0].lower()
    return {"pickletensor": ".ckpt", "gguf": ".gguf", "onnx": ".onnx"}.get(wanted, ".safetensors")


def _declared(editor_file: Mapping[str, Any] | None) -> Iterator[ModelSource]:
    """Yields the sources in an editor file: of all nodes, also in subgraphs, and those of the whole file."""
    pending: list[Mapping[str, Any]] = [as_object(editor_file)]
    for graph in pending:
        yield from _read_list(graph.get("models"))
        for node in map(as_object, as_list(graph.get("nodes"))):
            yield from _read_list(as_object(node.get("properties")).get("models"))
        pending.extend(map(as_object, as_list(as_object(graph.get("definitions")).get("subgraphs"))))


def _declared_in_graph(graph: Graph) -> Iterator[ModelSource]:
    """Yields the sources that an API file has in the `_meta` of its nodes."""
    for node in graph.values():
        yield from _read_list(as_object(node.get("_meta")).get("models"))


def _read_list(value: object) -> Iterator[ModelSource]:
    for raw in map(as_object, as_list(value)):
        name, url = as_text(raw.get("name")), as_text(raw.get("url"))
        folder = as_text(raw.get("directory"))
        if not name or not is_url(url) or url is None or not is_safe_path(name):
            continue
        kind, digest = as_text(raw.get("hash_type")), as_text(raw.get("hash")) or ""
        is_digest = (kind or "").upper() in ("SHA256", "SHA-256") and re.fullmatch("[0-9a-fA-F]{64}", digest)
        yield ModelSource(
            name=PurePosixPath(name).name,
            url=direct_url(url),
            folder=RENAMED_FOLDERS.get(folder, folder) if folder and is_safe_path(folder) else None,
            sha256=digest.lower() if is_digest else None,
        )


def _texts(values: Iterable[object]) -> Iterator[str]:
    pending = list(values)
    while pending:
        value = pending.pop()
        match value:
            case str():
                yield value
            case Mapping():
                pending.extend(value.values())
            case list() | tuple():
                pending.extend(value)
