"""Stand-in samplers: they run real steps with previews, and return a painted picture."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from comfyui_workflow.sandbox.node import Folders, InputTypes, NodeContext, NodeResult
from comfyui_workflow.sandbox.nodes.painting import Recipe, add_mark, noise, paint
from comfyui_workflow.sandbox.nodes.resampling import resize, resize_mask, to_eight_bits
from comfyui_workflow.sandbox.nodes.stand_in_values import (
    StandInModel,
    StandInText,
    latent_of,
    pictures_of,
)
from comfyui_workflow.sandbox.nodes.stand_ins import CONDITIONING, LATENT, MODEL
from comfyui_workflow.sandbox.nodes.typed_node import (
    Latent,
    Pixels,
    TypedNode,
    choice,
    integer,
    number,
    outputs,
    required,
    seed,
)

SAMPLERS = (  # noqa: SIM905 - forty lines otherwise
    "euler euler_cfg_pp euler_ancestral euler_ancestral_cfg_pp heun heunpp2 exp_heun_2_x0 "
    "exp_heun_2_x0_sde dpm_2 dpm_2_ancestral lms "
    "dpm_fast dpm_adaptive dpmpp_2s_ancestral dpmpp_2s_ancestral_cfg_pp dpmpp_sde dpmpp_sde_gpu "
    "dpmpp_2m dpmpp_2m_cfg_pp dpmpp_2m_sde dpmpp_2m_sde_gpu dpmpp_2m_sde_heun dpmpp_2m_sde_heun_gpu "
    "dpmpp_3m_sde dpmpp_3m_sde_gpu ddpm lcm ipndm ipndm_v deis res_multistep res_multistep_cfg_pp "
    "res_multistep_ancestral res_multistep_ancestral_cfg_pp gradient_estimation "
    "gradient_estimation_cfg_pp er_sde seeds_2 seeds_3 sa_solver sa_solver_pece ddim uni_pc uni_pc_bh2"
).split()
SCHEDULERS = (
    "simple",
    "sgm_uniform",
    "karras",
    "exponential",
    "ddim_uniform",
    "beta",
    "normal",
    "linear_quadratic",
    "kl_optimal",
)
_PREVIEW_SIDE = 128


class KSampler(TypedNode):
    CATEGORY = "model/sampling"
    DISPLAY_NAME = "KSampler (stand-in)"
    DESCRIPTION = (
        "Stand-in of the sandbox: counts the steps, and paints a picture out of the prompt and the seed."
    )
    RETURN_TYPES = ("LATENT",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(
            model=MODEL,
            seed=seed(),
            steps=integer(20, 1, 10000),
            cfg=number(8.0, 0.0, 100.0, step=0.1, round=0.01),
            sampler_name=choice(SAMPLERS),
            scheduler=choice(SCHEDULERS),
            positive=CONDITIONING,
            negative=CONDITIONING,
            latent_image=LATENT,
            denoise=number(1.0, 0.0, 1.0, step=0.01),
        )

    def run(
        self,
        context: NodeContext,
        *,
        model: StandInModel,
        seed: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        positive: list[StandInText],
        negative: list[StandInText],
        latent_image: Latent,
        denoise: float,
    ) -> NodeResult:
        recipe = _recipe(model, positive, negative, seed)
        steps = steps if denoise > 0 else 0
        return outputs(_sample(context, recipe, latent_image, steps=steps, share=denoise))


class KSamplerAdvanced(TypedNode):
    CATEGORY = "model/sampling"
    DISPLAY_NAME = "KSampler (Advanced) (stand-in)"
    DESCRIPTION = (
        "Stand-in of the sandbox: counts the steps, and paints a picture out of the prompt and the seed."
    )
    RETURN_TYPES = ("LATENT",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(
            model=MODEL,
            add_noise=choice(["enable", "disable"], advanced=True),
            noise_seed=seed(),
            steps=integer(20, 1, 10000),
            cfg=number(8.0, 0.0, 100.0, step=0.1, round=0.01),
            sampler_name=choice(SAMPLERS),
            scheduler=choice(SCHEDULERS),
            positive=CONDITIONING,
            negative=CONDITIONING,
            latent_image=LATENT,
            start_at_step=integer(0, 0, 10000, advanced=True),
            end_at_step=integer(10000, 0, 10000, advanced=True),
            return_with_leftover_noise=choice(["disable", "enable"], advanced=True),
        )

    def run(
        self,
        context: NodeContext,
        *,
        model: StandInModel,
        add_noise: str,
        noise_seed: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        positive: list[StandInText],
        negative: list[StandInText],
        latent_image: Latent,
        start_at_step: int,
        end_at_step: int,
        return_with_leftover_noise: str,
    ) -> NodeResult:
        recipe = _recipe(model, positive, negative, noise_seed)
        done_here = max(0, min(steps, end_at_step) - start_at_step)
        return outputs(_sample(context, recipe, latent_image, steps=done_here, share=done_here / steps))


def _recipe(
    model: StandInModel, positive: Sequence[StandInText], negative: Sequence[StandInText], seed: int
) -> Recipe:
    return Recipe(positive=_words(positive), negative=_words(negative), model=repr(model), seed=seed)


def _words(conditioning: Sequence[StandInText]) -> str:
    return "\n".join(f"{part.text} {' '.join(part.clip.changes)}" for part in conditioning)


def _sample(context: NodeContext, recipe: Recipe, latent: Latent, *, steps: int, share: float) -> Latent:
    """Runs the steps, then mixes a painted picture into the latent's one, with weight `share` (0 to 1)."""
    before = pictures_of(latent)
    preview = _Preview(recipe, before, share)
    for step in range(1, steps + 1):
        context.step(step, steps, preview.after(step / steps))
    rest = {key: value for key, value in latent.items() if key not in ("samples", "pictures")}
    return latent_of(_painted_over(before, recipe, share, latent.get("noise_mask")), **rest)


class _Preview:
    """Preview: a small version of the batch's first picture, faded in from noise."""

    def __init__(self, recipe: Recipe, before: Pixels, share: float) -> None:
        height, width = before.shape[1:3]
        factor = min(1.0, _PREVIEW_SIDE / max(width, height))
        width, height = max(1, round(width * factor)), max(1, round(height * factor))
        start = resize(before[:1], width, height, "area")[0]
        self._noise = start * (1 - share) + noise(recipe, width, height) * share
        self._picture = start * (1 - share) + paint(recipe, width, height) * share

    def after(self, done: float) -> Image.Image:
        return Image.fromarray(to_eight_bits(self._noise * (1 - done) + self._picture * done))


def _painted_over(before: Pixels, recipe: Recipe, share: float, mask: Pixels | None) -> Pixels:
    if share == 0:
        return before
    batch, height, width = before.shape[:3]
    pictures = [paint(replace(recipe, index=index), width, height) for index in range(batch)]
    mixed = before * np.float32(1 - share) + np.stack(pictures) * np.float32(share)
    for picture in mixed:
        add_mark(picture)
    if mask is None:
        return mixed
    cover = np.resize(resize_mask(mask, width, height), (batch, height, width))[..., np.newaxis]
    return (before * (1 - cover) + mixed * cover).astype(np.float32)
