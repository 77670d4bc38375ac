"""Sums of the memory estimate, and the setting that it proposes."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from loupe.diffusion import memory
from loupe.diffusion.cost_model import DrawingCost, UNetCost
from loupe.diffusion.device import DevicePolicy
from loupe.diffusion.memory import (
    PROCESS_BYTES,
    Beside,
    TrainingSetting,
    available_bytes,
    drawing_bytes,
    drawing_problem,
    memory_problem,
    needs_gradient_checkpointing,
    pictures_that_fit,
    run_bytes,
    setting_that_fits,
    training_bytes,
    why_full,
)

CPU = DevicePolicy("cpu", "float32", "test")
PROCESS = PROCESS_BYTES["cpu"]
ON_CUDA = PROCESS_BYTES["cuda"]
COST = UNetCost(
    n_base_parameters=1000,
    n_adapter_parameters=10,
    weight_bytes=4_000_000,
    forward_flop=1,
    training_flop=2,
    checkpointed_flop=3,
    kept_bytes=1_000_000,
    checkpointed_bytes=200_000,
    largest_tensor_bytes=50_000,
    row_bytes=7000,
)
STATE = 3 * 10 * 4
FIXED = 4_000_000 + STATE + PROCESS
ASKED = TrainingSetting(resolution_px=512, batch_size=4, gradient_accumulation_steps=2, gradient_checkpointing=False)


def test_training_is_weights_state_and_activations_per_image():
    assert training_bytes(COST, batch_size=4, gradient_checkpointing=False, device="cpu") == FIXED + 4 * 1_100_000
    assert training_bytes(COST, batch_size=4, gradient_checkpointing=True, device="cpu") == FIXED + 4 * 300_000
    average = training_bytes(COST, batch_size=4, gradient_checkpointing=True, device="cpu", numbers_per_parameter=5)
    assert average == FIXED + 4 * 300_000 + 10 * 4


def test_checkpointing_is_needed_exactly_when_training_does_not_fit_without():
    plain = FIXED + 4 * 1_100_000
    many = replace(ASKED, batch_size=4)
    assert not needs_gradient_checkpointing(COST, many, device="cpu", free_bytes=plain)
    assert needs_gradient_checkpointing(COST, many, device="cpu", free_bytes=plain - 1)


def test_checkpointing_is_not_taken_for_needed_where_the_validation_decides():
    heavy = replace(ASKED, beside=Beside(10_000_000, 0))
    assert not needs_gradient_checkpointing(COST, heavy, device="cpu", free_bytes=0)


def test_a_run_takes_what_its_steps_or_the_work_beside_the_trainer_take():
    """Both where the step is recorded, which keeps its activations."""
    on_gpu = FIXED - PROCESS + ON_CUDA
    steps = 4 * 1_100_000
    little, much = Beside(4_000_000, 7000), Beside(4_000_000, 700_000)
    assert run_bytes(COST, ASKED, device="cpu") == FIXED + steps
    assert run_bytes(COST, replace(ASKED, beside=little), device="cpu") == FIXED + steps
    assert run_bytes(COST, replace(ASKED, beside=much), device="cpu") == FIXED + 4_700_000
    recorded = replace(ASKED, beside=little, is_recorded=True)
    assert run_bytes(COST, recorded, device="cuda") == on_gpu + steps + 4_007_000
    assert run_bytes(COST, replace(recorded, is_recorded=False), device="cuda") == on_gpu + steps
    averaged = replace(recorded, numbers_per_parameter=5)
    assert run_bytes(COST, averaged, device="cuda") == on_gpu + steps + 4_007_000 + 10 * 4


def test_activations_of_steps_and_validation_grow_with_the_pixels():
    half = replace(ASKED, resolution_px=256, beside=Beside(4_000_000, 8000), is_recorded=True)
    on_gpu = FIXED - PROCESS + ON_CUDA
    assert run_bytes(COST, half, device="cuda", cost_px=512) == on_gpu + 1_100_000 + 4_000_000 + 2000


def test_a_run_that_does_not_fit_for_its_validation_says_so():
    heavy = replace(ASKED, beside=Beside(1000, 7_000_000))
    text = memory_problem(COST, heavy, device="cpu", free_bytes=FIXED + 4 * 1_100_000)
    assert text.startswith("training, with what is done with a checkpoint beside it, needs about")
    assert "data.resolution" in text


def test_where_memory_was_full_all_the_same_the_nearest_setting_that_takes_less_is_named():
    free = FIXED + 10**9
    text = why_full(COST, ASKED, device="cpu", free_bytes=free)
    assert "was estimated to take 1.5 of the 2.5 GB that were free" in text
    assert "data.resolution 512, train.batch_size 4" in text
    assert "train.gradient_checkpointing always" in text
    recomputing = replace(ASKED, gradient_checkpointing=True)
    text = why_full(COST, recomputing, device="cpu", free_bytes=free)
    assert "train.batch_size 2, train.gradient_accumulation_steps 4" in text
    smallest = replace(recomputing, resolution_px=64, batch_size=1)
    assert why_full(COST, smallest, device="cpu", free_bytes=free).endswith("No setting would take less.")


def test_where_it_was_said_beforehand_that_nothing_fits_what_takes_less_is_named_all_the_same():
    text = why_full(COST, ASKED, device="cpu", free_bytes=1000)
    assert "train.batch_size 4" in text
    assert "train.gradient_checkpointing always" in text


def test_recomputed_activations_are_not_recorded_so_what_is_proposed_counts_none_of_that():
    recorded = replace(ASKED, is_recorded=True, beside=Beside(4_000_000, 0))
    free = FIXED - PROCESS + ON_CUDA + 4_000_000
    assert setting_that_fits(COST, recorded, device="cuda", free_bytes=free) == replace(
        recorded, gradient_checkpointing=True, is_recorded=False
    )


def test_what_fits_is_left_as_asked():
    free = FIXED + 4 * 1_100_000
    assert setting_that_fits(COST, ASKED, device="cpu", free_bytes=free) == ASKED
    assert memory_problem(COST, ASKED, device="cpu", free_bytes=free) is None


@pytest.mark.parametrize(
    ("room", "px", "batch_size", "accumulation"),
    [(4 * 300_000, 512, 4, 2), (4 * 300_000 - 1, 512, 2, 4), (300_000, 512, 1, 8), (299_999, 448, 1, 8)],
)
def test_checkpointing_comes_before_smaller_batches_and_those_before_lower_resolution(
    room, px, batch_size, accumulation
):
    fitting = setting_that_fits(COST, ASKED, device="cpu", free_bytes=FIXED + room)
    assert fitting == TrainingSetting(
        resolution_px=px,
        batch_size=batch_size,
        gradient_accumulation_steps=accumulation,
        gradient_checkpointing=True,
    )
    assert fitting.batch_size * fitting.gradient_accumulation_steps == 8


def test_a_setting_that_does_not_fit_is_said_with_the_one_that_would():
    text = memory_problem(COST, ASKED, device="cpu", free_bytes=FIXED + 300_000)
    assert "training needs about 1.5 GB on cpu, and 1.5 GB are free" in text
    assert "train.batch_size 1, train.gradient_accumulation_steps 8, train.gradient_checkpointing always" in text


def test_where_not_even_the_weights_fit_nothing_is_proposed():
    text = memory_problem(COST, ASKED, device="cpu", free_bytes=FIXED - 1)
    assert text.endswith("No setting would fit on this device.")


DRAWING = DrawingCost(weight_bytes=1110, row_flop=1, row_bytes=50, decode_flop=1, decode_bytes=300)


def test_drawing_needs_its_weights_and_the_larger_of_unet_and_decoder():
    assert drawing_bytes(DRAWING, n_pictures=2, guided=True, device="cpu") == 1110 + 300 + PROCESS
    assert drawing_bytes(DRAWING, n_pictures=8, guided=True, device="cpu") == 1110 + 800 + PROCESS
    assert drawing_bytes(DRAWING, n_pictures=8, guided=False, device="cpu") == 1110 + 400 + PROCESS


def test_on_a_gpu_two_recordings_keep_their_memory_while_the_decoder_runs():
    assert drawing_bytes(DRAWING, n_pictures=8, guided=True, device="cuda") == 1110 + 2 * 800 + 300 + ON_CUDA


def test_pictures_together_are_halved_until_they_fit():
    def fitting(room, asked=8):
        free = ON_CUDA + 1110 + 300 + room
        return pictures_that_fit(DRAWING, asked=asked, guided=True, device="cuda", free_bytes=free)

    assert [fitting(room) for room in (1600, 1599, 799, 399, 200, 199)] == [8, 4, 2, 1, 1, 0]
    assert [fitting(room, asked=12) for room in (2400, 2399, 1199, 599, 199)] == [12, 6, 3, 1, 0]


def test_drawing_that_does_not_fit_is_said_with_the_resolution_that_would():
    def problem(room):
        free = PROCESS + 1110 + room
        return drawing_problem(DRAWING, n_pictures=8, side_px=512, guided=True, device="cpu", free_bytes=free)

    assert problem(800) is None
    assert problem(799).endswith("This would fit: data.resolution 448.")
    assert problem(200).endswith("This would fit: data.resolution 256.")
    assert problem(199).endswith("This would fit: data.resolution 192.")
    assert problem(1).endswith("No resolution would fit on this device.")
    assert problem(799).startswith("drawing 8 pictures together of 512 x 512 px needs about")


def test_available_memory_of_the_cpu_is_a_part_of_what_the_machine_has():
    import psutil

    assert 0 < available_bytes(CPU) <= psutil.virtual_memory().total


def test_processes_of_one_machine_share_its_memory(monkeypatch):
    import psutil

    monkeypatch.setattr(memory, "container_free_bytes", lambda: None)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=9000))
    assert available_bytes(CPU) == 9000
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert available_bytes(CPU) == 3000
