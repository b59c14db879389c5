"""Stand-ins for nodes that need a model: loaders, text encoder, VAE. Their display names say "stand-in"."""

from comfyui_workflow.sandbox.node import Folders, InputTypes, NodeContext, NodeResult
from comfyui_workflow.sandbox.nodes.stand_in_values import (
    PIXELS_PER_LATENT,
    StandInModel,
    StandInText,
    StandInVae,
    latent_of,
    pictures_of,
)
from comfyui_workflow.sandbox.nodes.typed_node import (
    IMAGE,
    Declared,
    Latent,
    Pixels,
    TypedNode,
    choice,
    integer,
    number,
    outputs,
    required,
    text,
)
from comfyui_workflow.sandbox.system import models_in

CHECKPOINTS = (
    "sandbox-stand-in.safetensors",
    "v1-5-pruned-emaonly.safetensors",
    "v1-5-pruned-emaonly-fp16.safetensors",
)
VAES = ("sandbox-stand-in.safetensors", "vae-ft-mse-840000-ema-pruned.safetensors", "pixel_space")
LORAS = ("sandbox-stand-in.safetensors",)

MODEL: Declared = ("MODEL",)
CLIP: Declared = ("CLIP",)
VAE: Declared = ("VAE",)
LATENT: Declared = ("LATENT",)
CONDITIONING: Declared = ("CONDITIONING",)


def with_files(names: tuple[str, ...], kind: str, folders: Folders) -> list[str]:
    """Returns the stand-ins, and the files that were put into the folder of this kind of model."""
    return [*names, *(each for each in models_in(kind, folders) or () if not each.startswith("."))]


class CheckpointLoaderSimple(TypedNode):
    CATEGORY = "model/loaders"
    DISPLAY_NAME = "Load Checkpoint (stand-in)"
    DESCRIPTION = "Stand-in of the sandbox: loads nothing, and only passes the name on."
    RETURN_TYPES = ("MODEL", "CLIP", "VAE")

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(
            ckpt_name=choice(
                with_files(CHECKPOINTS, "checkpoints", folders),
                tooltip="Stand-ins: there is no such file here.",
            )
        )

    def run(self, context: NodeContext, *, ckpt_name: str) -> NodeResult:
        return outputs(StandInModel(name=ckpt_name), StandInModel(name=ckpt_name), StandInVae(name=ckpt_name))


class VAELoader(TypedNode):
    CATEGORY = "model/loaders"
    DISPLAY_NAME = "Load VAE (stand-in)"
    DESCRIPTION = "Stand-in of the sandbox: loads nothing, and only passes the name on."
    RETURN_TYPES = ("VAE",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(vae_name=choice(with_files(VAES, "vae", folders)))

    def run(self, context: NodeContext, *, vae_name: str) -> NodeResult:
        return outputs(StandInVae(name=vae_name))


class LoraLoader(TypedNode):
    CATEGORY = "model/loaders"
    DISPLAY_NAME = "Load LoRA (Model and CLIP) (stand-in)"
    DESCRIPTION = (
        "Stand-in of the sandbox: loads nothing; the name and the strengths lead to another picture."
    )
    RETURN_TYPES = ("MODEL", "CLIP")

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(
            model=MODEL,
            clip=CLIP,
            lora_name=choice(LORAS, tooltip="Stand-ins: there is no such file here."),
            strength_model=_strength(),
            strength_clip=_strength(),
        )

    def run(
        self,
        context: NodeContext,
        *,
        model: StandInModel,
        clip: StandInModel,
        lora_name: str,
        strength_model: float,
        strength_clip: float,
    ) -> NodeResult:
        return outputs(
            _with_lora(model, lora_name, strength_model), _with_lora(clip, lora_name, strength_clip)
        )


class LoraLoaderModelOnly(TypedNode):
    CATEGORY = "model/loaders"
    DISPLAY_NAME = "Load LoRA (stand-in)"
    DESCRIPTION = "Stand-in of the sandbox: loads nothing; the name and the strength lead to another picture."
    RETURN_TYPES = ("MODEL",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(model=MODEL, lora_name=choice(LORAS), strength_model=_strength())

    def run(
        self, context: NodeContext, *, model: StandInModel, lora_name: str, strength_model: float
    ) -> NodeResult:
        return outputs(_with_lora(model, lora_name, strength_model))


class CLIPSetLastLayer(TypedNode):
    CATEGORY = "model/conditioning"
    DISPLAY_NAME = "CLIP Set Last Layer (stand-in)"
    DESCRIPTION = "Stand-in of the sandbox: another layer leads to another picture."
    RETURN_TYPES = ("CLIP",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(clip=CLIP, stop_at_clip_layer=integer(-1, -24, -1, step=1, advanced=True))

    def run(self, context: NodeContext, *, clip: StandInModel, stop_at_clip_layer: int) -> NodeResult:
        return outputs(clip.changed(f"layer {stop_at_clip_layer}"))


class CLIPTextEncode(TypedNode):
    CATEGORY = "model/conditioning"
    DISPLAY_NAME = "CLIP Text Encode (Prompt) (stand-in)"
    DESCRIPTION = "Stand-in of the sandbox: passes the text on to the stand-in sampler."
    RETURN_TYPES = ("CONDITIONING",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(text=text(multiline=True, dynamicPrompts=True), clip=CLIP)

    def run(self, context: NodeContext, *, text: str, clip: StandInModel) -> NodeResult:
        return outputs([StandInText(text=text, clip=clip)])


class ConditioningCombine(TypedNode):
    CATEGORY = "model/conditioning/transform"
    DISPLAY_NAME = "Conditioning (Combine) (stand-in)"
    DESCRIPTION = "Stand-in of the sandbox: both texts."
    RETURN_TYPES = ("CONDITIONING",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(conditioning_1=CONDITIONING, conditioning_2=CONDITIONING)

    def run(
        self, context: NodeContext, *, conditioning_1: list[StandInText], conditioning_2: list[StandInText]
    ) -> NodeResult:
        return outputs(conditioning_1 + conditioning_2)


class VAEDecode(TypedNode):
    CATEGORY = "model/latent"
    DISPLAY_NAME = "VAE Decode (stand-in)"
    DESCRIPTION = "Stand-in of the sandbox: shows the picture that the stand-in sampler painted."
    RETURN_TYPES = ("IMAGE",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(samples=LATENT, vae=VAE)

    def run(self, context: NodeContext, *, samples: Latent, vae: StandInVae) -> NodeResult:
        return outputs(pictures_of(samples))


class VAEEncode(TypedNode):
    CATEGORY = "model/latent"
    DISPLAY_NAME = "VAE Encode (stand-in)"
    DESCRIPTION = "Stand-in of the sandbox: passes the picture on to the stand-in sampler."
    RETURN_TYPES = ("LATENT",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(pixels=IMAGE, vae=VAE)

    def run(self, context: NodeContext, *, pixels: Pixels, vae: StandInVae) -> NodeResult:
        return outputs(latent_of(_cut_to_whole_latents(pixels[..., :3])))


def _strength() -> Declared:
    return number(1.0, -100.0, 100.0, step=0.01)


def _with_lora(model: StandInModel, name: str, strength: float) -> StandInModel:
    return model.changed(f"{name} x {strength}") if strength else model


def _cut_to_whole_latents(pixels: Pixels) -> Pixels:
    """Crops the picture around its centre to a multiple of the latent size, as a real VAE does."""
    height, width = (side // PIXELS_PER_LATENT * PIXELS_PER_LATENT for side in pixels.shape[1:3])
    top, left = (pixels.shape[1] - height) // 2, (pixels.shape[2] - width) // 2
    return pixels[:, top : top + height, left : left + width]
