import dataclasses
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from loupe.diffusion import sampling
from loupe.diffusion.adapter import adapter_parameters, add_adapter
from loupe.diffusion.device import DevicePolicy
from loupe.diffusion.model_loading import load_noise_scheduler, load_text_encoder, load_tokenizer, load_unet, load_vae
from loupe.diffusion.sampling import (
    PICTURES_AT_ONCE_CPU,
    DrawingBatch,
    DrawingModel,
    PictureRequest,
    SamplingSettings,
    denoise,
    embed_texts,
    initial_latents,
    make_sampler,
    pictures_at_once,
    sample_batches,
    sample_pictures,
    sample_seed,
    to_pixels,
)
from loupe.diffusion.validity import are_finite, pixel_problem
from tests.tiny_models import TINY_SIDE_PX

CPU = DevicePolicy("cpu", "float32", "for a test")
# What stands in the scheduler folder of Stable Diffusion 1.5, and of a model with zero terminal SNR.
SD15_CONFIG = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
}
ZERO_SNR_CONFIG = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
    "clip_sample": False,
}
SETTINGS = SamplingSettings(TINY_SIDE_PX, TINY_SIDE_PX, 4.0, 6, "")
TEXTS = ["a photo of red shoes", "black shoes", "blue shoes on white background"]


@pytest.fixture(scope="module")
def tiny(tiny_base_model):
    on_cpu = {"device": "cpu", "dtype": torch.float32}
    model = DrawingModel(
        unet=load_unet(tiny_base_model, **on_cpu),
        vae=load_vae(tiny_base_model, **on_cpu),
        noise_scheduler=load_noise_scheduler(tiny_base_model),
        policy=CPU,
    )
    embeddings = embed_texts(
        [*TEXTS, ""],
        tokenizer=load_tokenizer(tiny_base_model),
        text_encoder=load_text_encoder(tiny_base_model, **on_cpu),
    )
    return model, embeddings


def _draw(tiny, requests, *, settings=SETTINGS, batch_size=8):
    model, embeddings = tiny
    return list(sample_pictures(model, requests, embeddings=embeddings, settings=settings, batch_size=batch_size))


def _requests(count):
    return [PictureRequest(TEXTS[n % len(TEXTS)], 100 + n) for n in range(count)]


# --- seeds -----------------------------------------------------------------------------------------------------------


def test_a_seed_depends_on_every_part_and_never_changes_between_versions():
    parts = {"purpose": "generate", "prompt_id": "red", "seed_index": 0}
    first = sample_seed(42, **parts)
    assert first == 7084249632340127680
    others = [
        sample_seed(43, **parts),
        sample_seed(42, **{**parts, "purpose": "confirm"}),
        sample_seed(42, **{**parts, "prompt_id": "rea"}),
        sample_seed(42, **{**parts, "seed_index": 1}),
    ]
    assert len({first, *others}) == 5


def test_confirm_never_uses_a_seed_of_generate():
    seeds = {
        purpose: {
            sample_seed(1, purpose=purpose, prompt_id=f"p{p}", seed_index=i) for p in range(50) for i in range(20)
        }
        for purpose in ("generate", "confirm")
    }
    assert {seed % 2 for seed in seeds["generate"]} == {0}
    assert {seed % 2 for seed in seeds["confirm"]} == {1}
    assert all(0 <= seed < 2**63 for seed in seeds["generate"] | seeds["confirm"])
    assert len(seeds["generate"]) == 1000


def test_initial_latents_come_from_their_own_generator():
    before = torch.get_rng_state()
    first = initial_latents(7, (4, 8, 8))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, initial_latents(7, (4, 8, 8)))
    assert not torch.equal(first, initial_latents(8, (4, 8, 8)))


# --- the sampler against closed forms --------------------------------------------------------------------------------


def test_the_sampler_takes_over_the_schedule_of_stable_diffusion_1_5():
    sampler = make_sampler(DDPMScheduler.from_config(SD15_CONFIG))
    sampler.set_timesteps(20)
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    np.testing.assert_allclose(sampler.alphas_cumprod, np.cumprod(1 - betas), rtol=1e-4)
    assert sampler.config.prediction_type == "epsilon"
    assert sampler.config.algorithm_type == "dpmsolver++"
    assert sampler.timesteps[0] == 999
    assert len(sampler.timesteps) == 20


def test_the_sampler_takes_over_zero_terminal_snr_and_trailing_timesteps():
    sampler = make_sampler(DDPMScheduler.from_config(ZERO_SNR_CONFIG))
    sampler.set_timesteps(20)
    assert sampler.config.prediction_type == "v_prediction"
    assert sampler.alphas_cumprod[-1] < 1e-6
    assert sampler.timesteps.tolist() == list(range(999, 0, -50))


class _GaussianData:
    """The ideal UNet for data that is normal with this mean and standard deviation, from the closed form."""

    def __init__(self, config, *, mean, sd):
        self.alphas_cumprod = make_sampler(DDPMScheduler.from_config(config)).alphas_cumprod
        self.prediction_type = config.get("prediction_type", "epsilon")
        self.mean, self.sd = mean, sd

    def __call__(self, noisy, timestep, *, encoder_hidden_states):
        alpha, sigma = (x**0.5 for x in (self.alphas_cumprod[timestep], 1 - self.alphas_cumprod[timestep]))
        variance = alpha**2 * self.sd**2 + sigma**2
        noise = sigma * (noisy - alpha * self.mean) / variance
        clean = self.mean + alpha * self.sd**2 * (noisy - alpha * self.mean) / variance
        predicted = noise if self.prediction_type == "epsilon" else alpha * noise - sigma * clean
        return SimpleNamespace(sample=predicted)

    def exact(self, start):
        """The probability-flow ODE's solution: a normal variable is only shifted and scaled."""
        alpha, sigma = (x**0.5 for x in (self.alphas_cumprod[-1], 1 - self.alphas_cumprod[-1]))
        return self.mean + (start - alpha * self.mean) * self.sd / (alpha**2 * self.sd**2 + sigma**2) ** 0.5


def _denoise(unet, config, *, latents, guidance_scale=1.0, steps=20, **texts):
    model = DrawingModel(unet, None, DDPMScheduler.from_config(config), CPU)
    blank = torch.zeros(len(latents), 1, 1)
    return denoise(
        model,
        latents_BCHW=latents,
        prompts_BTD=texts.get("prompts", blank),
        negative_BTD=texts.get("negative", blank),
        guidance_scale=guidance_scale,
        num_inference_steps=steps,
    )


@pytest.mark.parametrize("config", [SD15_CONFIG, ZERO_SNR_CONFIG], ids=["epsilon", "v, zero terminal SNR"])
def test_denoising_finds_the_one_picture_that_there_is(config):
    start = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    found = _denoise(_GaussianData(config, mean=0.7, sd=0.0), config, latents=start)
    np.testing.assert_allclose(found, 0.7, atol=2e-3)


@pytest.mark.parametrize("config", [SD15_CONFIG, ZERO_SNR_CONFIG], ids=["epsilon", "v, zero terminal SNR"])
def test_denoising_follows_the_probability_flow_and_more_steps_come_closer(config):
    start = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    ideal = _GaussianData(config, mean=0.3, sd=1.0)
    errors = [
        float((_denoise(ideal, config, latents=start, steps=steps) - ideal.exact(start)).abs().max())
        for steps in (10, 20, 40)
    ]
    assert errors[0] > errors[1] > errors[2]
    assert errors[1] < 0.1  # of values up to 4


def test_guidance_moves_away_from_the_negative_prompt_by_the_given_scale():
    seen = []  # the timestep of every row; a CPU may share out the rows of one

    def unet(noisy, timestep, *, encoder_hidden_states):
        seen.extend(timestep.expand(len(noisy)).tolist())
        return SimpleNamespace(sample=encoder_hidden_states.reshape(-1, 1, 1, 1).expand_as(noisy))

    def constant(value, start, **options):
        return _denoise(
            lambda noisy, t, encoder_hidden_states: SimpleNamespace(sample=torch.full_like(noisy, value)),
            SD15_CONFIG, latents=start, **options,
        )  # fmt: skip

    start = torch.zeros(2, 1, 2, 2)
    texts = {"prompts": torch.full((2, 1, 1), 0.3), "negative": torch.full((2, 1, 1), 0.1)}
    guided = _denoise(unet, SD15_CONFIG, latents=start, guidance_scale=4.0, **texts)
    assert set(Counter(seen).values()) == {4}
    torch.testing.assert_close(guided, constant(0.1 + 4.0 * (0.3 - 0.1), start))
    seen.clear()
    unguided = _denoise(unet, SD15_CONFIG, latents=start, guidance_scale=1.0, **texts)
    assert set(Counter(seen).values()) == {2}
    torch.testing.assert_close(unguided, constant(0.3, start))


# --- pictures --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("two_cores")
def test_a_picture_is_the_same_bits_alone_in_any_place_and_beside_any_others(tiny):
    requests = _requests(PICTURES_AT_ONCE_CPU + 3)
    together = _draw(tiny, requests)
    backwards = _draw(tiny, requests[::-1], batch_size=3)[::-1]
    for request, one, other in zip(requests, together, backwards, strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)
        if request.seed % 4 == 0:
            np.testing.assert_array_equal(one.pixels, _draw(tiny, [request], batch_size=1)[0].pixels)


def test_prompt_seed_and_negative_prompt_each_change_the_picture(tiny):
    request = PictureRequest(TEXTS[0], 1)
    negative = SamplingSettings(TINY_SIDE_PX, TINY_SIDE_PX, 4.0, 6, TEXTS[1])
    pictures = [
        *_draw(tiny, [request, PictureRequest(TEXTS[1], 1), PictureRequest(TEXTS[0], 2)]),
        *_draw(tiny, [request], settings=negative),
    ]
    assert len({picture.pixels.tobytes() for picture in pictures}) == 4


def test_the_cpu_takes_a_constant_number_at_once_and_a_gpu_the_batch_size():
    assert pictures_at_once(CPU, 3) == pictures_at_once(CPU, 64) == PICTURES_AT_ONCE_CPU
    assert pictures_at_once(DevicePolicy("cuda", "bfloat16", "for a test"), 3) == 3


def test_a_picture_that_is_not_finite_is_named_and_spoils_no_other(tiny):
    model, embeddings = tiny
    poisoned = {**embeddings, "poison": torch.full_like(embeddings[""], float("nan"))}
    requests = [_requests(1)[0], PictureRequest("poison", 5)]
    sound, broken = _draw((model, poisoned), requests)
    assert broken.pixels is None
    assert broken.invalid_reason == "not finite"
    assert sound.invalid_reason is None
    np.testing.assert_array_equal(sound.pixels, _draw(tiny, requests[:1])[0].pixels)


def test_a_latent_or_a_decoded_value_that_is_not_finite_is_enough_by_itself(tiny, monkeypatch):
    model, embeddings = tiny
    poisoned = (model, {**embeddings, "poison": torch.full_like(embeddings[""], float("inf"))})
    fine = torch.rand(3, TINY_SIDE_PX, TINY_SIDE_PX, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(sampling, "decode_latents", lambda vae, latents: fine)
    assert _draw(tiny, _requests(1))[0].invalid_reason is None
    assert _draw(poisoned, [PictureRequest("poison", 5)])[0].invalid_reason == "not finite"
    fine[0, 3, 5] = float("inf")
    assert _draw(tiny, _requests(1))[0].invalid_reason == "not finite"


@pytest.mark.filterwarnings("ignore:The configuration file of this scheduler:FutureWarning")
def test_pictures_agree_with_the_stock_pipeline(tiny, tiny_base_model):
    from diffusers import StableDiffusionPipeline

    model, _ = tiny
    stock = StableDiffusionPipeline.from_pretrained(tiny_base_model, safety_checker=None, feature_extractor=None)
    stock.scheduler = make_sampler(model.noise_scheduler)  # set late: the pipeline rewrites the one it is built with
    stock.set_progress_bar_config(disable=True)
    settings = SamplingSettings(TINY_SIDE_PX, TINY_SIDE_PX, 5.0, 8, TEXTS[2])
    for request in _requests(2):
        expected = stock(
            request.prompt,
            negative_prompt=settings.negative_prompt,
            latents=initial_latents(request.seed, (4, TINY_SIDE_PX // 8, TINY_SIDE_PX // 8))[None],
            guidance_scale=settings.guidance_scale,
            num_inference_steps=settings.num_inference_steps,
            output_type="np",
        ).images[0]
        drawn = _draw(tiny, [request], settings=settings)[0].pixels
        assert np.abs(drawn - 255 * expected).max() < 0.51  # rounding to a level, and the last bits of other kernels


def test_a_base_in_bfloat16_takes_a_float32_adapter_and_draws_nearly_the_same(tiny, tiny_base_model):
    """What a GPU does, with the CPU in its place: dtypes must meet without an error and without losing the adapter."""
    model, embeddings = tiny
    pictures = {}
    for dtype_name in ("float32", "bfloat16"):
        policy = DevicePolicy("cpu", dtype_name, "for a test")
        unet = load_unet(tiny_base_model, device="cpu", dtype=policy.dtype)
        add_adapter(unet, rank=2, alpha=4, target_modules=["to_q"], generator=torch.Generator().manual_seed(0))
        assert {weight.dtype for weight in adapter_parameters(unet).values()} == {torch.float32}
        changed = DrawingModel(unet, model.vae, model.noise_scheduler, policy)
        pictures[dtype_name] = _draw((changed, embeddings), _requests(1))[0].pixels.astype(int)
    difference = np.abs(pictures["float32"] - pictures["bfloat16"])
    assert 0 < difference.mean() < 3


def test_pixels_are_clamped_and_rounded_not_cut():
    image = torch.tensor([-1.5, -1.0, 0.998, 1.0, 1.2, 0.0]).reshape(1, 1, 6).expand(3, 1, 6)
    np.testing.assert_array_equal(to_pixels(image)[0, :, 0], [0, 0, 255, 255, 255, 128])


# --- validity --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pixels", "problem"),
    [
        (np.zeros((8, 8, 3), np.uint8), "black"),
        (np.full((8, 8, 3), (255, 0, 0), np.uint8), "flat"),
        (np.full((8, 8, 3), 250, np.uint8), "flat"),
        (np.zeros((8, 6, 3), np.uint8), "wrong size"),
        (np.zeros((8, 8), np.uint8), "wrong size"),
        (np.pad(np.zeros((4, 4, 3), np.uint8), ((2, 2), (2, 2), (0, 0)), constant_values=255), None),
    ],
)
def test_unusable_pictures_are_named(pixels, problem):
    assert pixel_problem(pixels, width_px=8, height_px=8) == problem


def test_an_infinite_or_missing_number_anywhere_is_not_finite():
    fine = torch.zeros(3)
    assert are_finite(fine, fine)
    assert not are_finite(fine, torch.tensor([0.0, float("inf")]))
    assert not are_finite(torch.tensor([float("nan")]), fine)


def test_the_module_never_seeds_the_global_generator(tiny):
    before = torch.get_rng_state()
    _draw(tiny, _requests(1))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_next_batch_is_begun_before_the_pictures_of_the_last_are_handed_out(tiny, monkeypatch):
    """As on a GPU, where a batch's pictures arrive later; taking a batch puts its adapter into the model."""
    model, embeddings = tiny
    requests = _requests(3)
    expected = [_draw(tiny, [request])[0].pixels for request in requests]
    begin, events = sampling._begin, []

    class Arrival:
        def synchronize(self):
            events.append("arrived")

    def begun(*arguments):
        events.append("begun")
        return dataclasses.replace(begin(*arguments), arrived=Arrival())

    def batches():
        for request in requests:
            events.append("taken")
            yield DrawingBatch([request], embeddings, n_rows=8)

    monkeypatch.setattr(sampling, "_begin", begun)
    drawn = [pictures[0].pixels for pictures in sample_batches(model, batches(), settings=SETTINGS)]

    assert events == ["taken", "begun", "taken", "begun", "arrived", "taken", "begun", "arrived", "arrived"]
    for pixels, alone in zip(drawn, expected, strict=True):
        np.testing.assert_array_equal(pixels, alone)
