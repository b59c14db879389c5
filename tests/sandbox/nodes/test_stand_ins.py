from typing import Any

import numpy as np
import pytest

from comfyui_workflow.sandbox.node import Interrupted
from comfyui_workflow.sandbox.nodes.typed_node import Latent, Pixels
from tests.sandbox.nodes.context import Context, flat_image, random_image

CHECKPOINT = "sandbox-stand-in.safetensors"


def _latent(context: Context, width: int = 128, height: int = 96, batch: int = 1) -> Latent:
    latent: Latent = context.value("EmptyLatentImage", width=width, height=height, batch_size=batch)
    return latent


def _sampled(
    context: Context, latent: Latent, text: str = "a cat", *, lora: float = 0.0, layer: int = 0, **more: Any
) -> Latent:
    model, clip, _ = context.values("CheckpointLoaderSimple", ckpt_name=CHECKPOINT)
    if lora:
        model, clip = context.values(
            "LoraLoader",
            model=model,
            clip=clip,
            lora_name=CHECKPOINT,
            strength_model=lora,
            strength_clip=lora,
        )
    if layer:
        clip = context.value("CLIPSetLastLayer", clip=clip, stop_at_clip_layer=layer)
    asked = {
        "model": model,
        "seed": 1,
        "steps": 4,
        "cfg": 8.0,
        "sampler_name": "euler",
        "scheduler": "normal",
        "positive": context.value("CLIPTextEncode", text=text, clip=clip),
        "negative": context.value("CLIPTextEncode", text="", clip=clip),
        "latent_image": latent,
        "denoise": 1.0,
    }
    sampled: Latent = context.value("KSampler", **asked | more)
    return sampled


def _decoded(context: Context, latent: Latent) -> Pixels:
    vae = context.value("VAELoader", vae_name="sandbox-stand-in.safetensors")
    image: Pixels = context.value("VAEDecode", samples=latent, vae=vae)
    return image


def _encoded(context: Context, image: Pixels) -> Latent:
    vae = context.value("VAELoader", vae_name="sandbox-stand-in.safetensors")
    latent: Latent = context.value("VAEEncode", pixels=image, vae=vae)
    return latent


def _painted(context: Context, **more: Any) -> Pixels:
    return _decoded(context, _sampled(context, _latent(context), **more))


def test_a_latent_has_an_eighth_of_the_size(context: Context) -> None:
    assert _latent(context, 512, 256, 2)["samples"].shape == (2, 4, 32, 64)
    assert _encoded(context, random_image(83, 50))["samples"].shape == (1, 4, 6, 10)


def test_the_same_prompt_and_seed_paint_the_same_picture(context: Context) -> None:
    first = _painted(context)
    assert first.shape == (1, 96, 128, 3)
    assert first.dtype == np.float32
    assert 0 <= first.min() < first.max() <= 1
    assert np.array_equal(_painted(context), first)
    assert np.array_equal(_painted(context, steps=9, cfg=3.0), first)


@pytest.mark.parametrize(
    "other",
    [{"seed": 2}, {"text": "a dog"}, {"lora": 0.5}, {"layer": -2}],
    ids=lambda other: next(iter(other)),
)
def test_anything_else_paints_another(context: Context, other: dict[str, Any]) -> None:
    assert np.abs(_painted(context) - _painted(context, **other)).mean() > 0.005


def test_a_colour_in_the_prompt_shows(context: Context) -> None:
    red, _, blue = _painted(context, text="a blue lake").mean(axis=(0, 1, 2))
    assert blue > red + 0.1
    red, _, blue = _painted(context, text="a red car").mean(axis=(0, 1, 2))
    assert red > blue + 0.1


def test_each_image_of_a_batch_is_another(context: Context) -> None:
    pictures = _decoded(context, _sampled(context, _latent(context, batch=3)))
    assert len(np.unique(pictures.mean(axis=(1, 2, 3)))) == 3


def test_every_step_is_told_with_a_preview(context: Context) -> None:
    _sampled(context, _latent(context, 512, 256), steps=6)
    assert context.steps == [(step, 6) for step in range(1, 7)]
    assert [preview.size for preview in context.previews] == [(128, 64)] * 6
    first, last = (np.asarray(context.previews[index]).astype(float) for index in (0, -1))
    assert np.abs(np.diff(first, axis=1)).mean() > 5 * np.abs(np.diff(last, axis=1)).mean()  # out of noise


def test_it_stops_between_two_steps(context: Context) -> None:
    context.interrupt_after = 2
    with pytest.raises(Interrupted):
        _sampled(context, _latent(context))
    assert context.steps == [(1, 4), (2, 4)]


def test_denoise_says_how_much_is_painted_over(context: Context) -> None:
    image = flat_image(64, 40, 0.2, 0.4, 0.6)  # too small for the mark
    before = _encoded(context, image)
    fully, half = (_decoded(context, _sampled(context, before, denoise=share)) for share in (1.0, 0.5))
    assert half == pytest.approx((image + fully) / 2, abs=1e-6)
    assert np.array_equal(_decoded(context, _sampled(context, before, denoise=0.0)), image)


def test_a_noise_mask_keeps_the_rest(context: Context) -> None:
    image = flat_image(64, 40, 0.2, 0.4, 0.6)
    mask = np.zeros((1, 40, 64), np.float32)
    mask[:, :, 32:] = 1
    masked = context.value("SetLatentNoiseMask", samples=_encoded(context, image), mask=mask)
    painted = _decoded(context, _sampled(context, masked))
    assert np.array_equal(painted[:, :, :32], image[:, :, :32])
    assert not np.array_equal(painted[:, :, 32:], image[:, :, 32:])


def test_a_large_picture_carries_the_mark(context: Context) -> None:
    """The mark is white; the rest of the lower left corner is not."""
    corner = _decoded(context, _sampled(context, _latent(context, 512, 512)))[0, -40:, :80]
    assert np.abs(np.diff(corner, axis=1)).max() > 0.1
    other = _decoded(context, _sampled(context, _latent(context, 64, 64)))[0, -5:, :10]
    assert np.abs(np.diff(other, axis=1)).max() < 0.1


def test_encode_and_decode_keep_the_picture_but_for_odd_borders(context: Context) -> None:
    image = random_image(83, 50)
    assert np.array_equal(_decoded(context, _encoded(context, image)), image[:, 1:49, 1:81])


def test_samples_alone_decode_to_a_blurred_picture(context: Context) -> None:
    latent = _encoded(context, flat_image(64, 48, 0.25, 0.5, 0.75))
    blurred = _decoded(context, {"samples": latent["samples"]})
    assert blurred == pytest.approx(flat_image(64, 48, 0.25, 0.5, 0.75), abs=1e-6)


def test_an_upscaled_latent_is_painted_on(context: Context) -> None:
    small = _sampled(context, _latent(context))
    large = context.value("LatentUpscaleBy", samples=small, upscale_method="bislerp", scale_by=2.0)
    assert large["samples"].shape == (1, 4, 24, 32)
    again = context.value(
        "LatentUpscale", samples=small, upscale_method="bilinear", width=200, height=0, crop="disabled"
    )
    assert again["samples"].shape == (1, 4, 18, 25)
    assert _decoded(context, _sampled(context, large, denoise=0.5)).shape == (1, 192, 256, 3)


def test_the_advanced_sampler_counts_its_part_of_the_steps(context: Context) -> None:
    model, clip, _ = context.values("CheckpointLoaderSimple", ckpt_name=CHECKPOINT)
    text = context.value("CLIPTextEncode", text="a cat", clip=clip)
    both = context.value("ConditioningCombine", conditioning_1=text, conditioning_2=text)
    sampled = context.value(
        "KSamplerAdvanced",
        model=model,
        add_noise="enable",
        noise_seed=3,
        steps=20,
        cfg=8.0,
        sampler_name="euler",
        scheduler="normal",
        positive=both,
        negative=text,
        latent_image=_latent(context),
        start_at_step=15,
        end_at_step=10000,
        return_with_leftover_noise="disable",
    )
    assert context.steps == [(step, 5) for step in range(1, 6)]
    assert _decoded(context, sampled).shape == (1, 96, 128, 3)
