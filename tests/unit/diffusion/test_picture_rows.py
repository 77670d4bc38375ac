"""A GPU's memory decides how many pictures go together; here it is made up, and the tiny model draws on the CPU."""

import weakref

import pytest
import torch

from loupe.atomic_io import empty_folder
from loupe.diffusion import generation, picture_rows
from loupe.diffusion.device import DevicePolicy
from loupe.diffusion.device_memory import DeviceFull, is_out_of_memory
from loupe.diffusion.generation import render_samples
from loupe.diffusion.memory import PROCESS_BYTES
from loupe.diffusion.picture_rows import measure_room, takes_fewer
from loupe.diffusion.processes import Processes
from loupe.diffusion.sampling import SamplingSettings
from loupe.diffusion.unet_forward import UNetForward
from loupe.records import PromptRecord
from loupe.workstore import WorkStore
from tests.tiny_models import TINY_SIDE_PX
from tests.unit.diffusion.tiny_checkpoints import write_checkpoints

SETTINGS = SamplingSettings(TINY_SIDE_PX, TINY_SIDE_PX, 3.0, 2, "")
CUDA = DevicePolicy("cuda", "bfloat16", "test")
PROMPTS = [PromptRecord(prompt_id=f"p{n}", text=f"{n} shoes", colour=None) for n in range(5)]
ASKED = 4
PLENTY = 10**15


@pytest.fixture(scope="module")
def source(tiny_base_model, tmp_path_factory):
    return write_checkpoints(tmp_path_factory.mktemp("checkpoints"), tiny_base_model, (2,))


@pytest.fixture
def gpu(monkeypatch):
    """A device that may take fewer pictures, of `free` bytes, whose UNet raises `error` above `holds` pictures."""

    class Gpu:
        free = PLENTY
        holds = ASKED
        error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        batches: tuple[int, ...] = ()

    device = Gpu()
    forward = UNetForward.__call__

    def limited(self, noisy, timestep, text):
        pictures = len(noisy) // 2
        device.batches = (*device.batches, pictures)
        if pictures > device.holds:
            raise type(device.error)(*device.error.args)
        return forward(self, noisy, timestep, text)

    monkeypatch.setenv("LOUPE_DEVICE", "cpu")
    monkeypatch.setattr(UNetForward, "__call__", limited)
    monkeypatch.setattr(generation, "takes_fewer", lambda policy: True)
    monkeypatch.setattr(generation, "pictures_at_once", lambda policy, batch_size: batch_size)
    monkeypatch.setattr(picture_rows, "available_bytes", lambda policy: device.free)
    return device


def _render(source, root, **changes):
    return render_samples(
        source,
        **{
            "steps": (0, 2), "prompts": PROMPTS, "seeds_per_prompt": 1, "purpose": "generate", "root_seed": 42,
            "settings": SETTINGS, "batch_size": ASKED, "output": empty_folder(root / "samples"),
            "store": WorkStore(root / ".work"), **changes,
        },
    )  # fmt: skip


def _room(source, policy):
    return measure_room(source.base_folder, settings=SETTINGS, policy=policy)


# --- by the estimate -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("room", [4, 2, 1, 0])
def test_as_many_as_the_free_memory_holds_by_the_estimate(source, gpu, room):
    gpu.free = PLENTY
    cost = _room(source, CUDA).cost
    fixed = cost.weight_bytes + cost.decode_bytes + PROCESS_BYTES["cuda"]
    gpu.free = fixed + 4 * max(room, 1) * cost.row_bytes - (0 if room else 1)
    assert _room(source, CUDA).pictures(ASKED) == max(room, 1), "whether one picture fits, only trying can tell"


def test_a_smaller_batch_is_said_in_one_line_and_no_larger_one_is_tried(source, gpu, tmp_path, capsys):
    on_cpu = DevicePolicy("cpu", "float32", "test")
    cost = _room(source, on_cpu).cost
    gpu.free, gpu.holds = cost.weight_bytes + 16 * cost.row_bytes + PROCESS_BYTES["cpu"], 8
    _render(source, tmp_path, batch_size=16)
    assert set(gpu.batches) == {8}
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "at a time" in line]
    assert line.startswith("generate: 8 pictures at a time, not 16: 16 need about 1.5 GB on cpu, and 1.5 GB are free")


def test_the_cpu_never_takes_fewer_and_no_estimate_is_made_for_it(source, monkeypatch, tmp_path):
    monkeypatch.setenv("LOUPE_DEVICE", "cpu")
    monkeypatch.setattr(generation, "measure_room", lambda *_, **__: pytest.fail("it was estimated"))
    assert not takes_fewer(DevicePolicy("cpu", "float32", "test"))
    assert takes_fewer(CUDA)
    assert _render(source, tmp_path).n_computed == 10


# --- when memory is full all the same --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
    ids=["cuda", "mps", "cublas"],
)
def test_a_full_memory_halves_the_batch_and_all_pictures_come(source, gpu, tmp_path, capsys, error):
    gpu.holds, gpu.error = 1, error
    drawn = _render(source, tmp_path / "tight")
    assert [n for n, before in zip(gpu.batches, (0, *gpu.batches), strict=False) if n != before] == [4, 2, 1]
    out = capsys.readouterr().out
    assert "generate: 4 pictures at a time filled the device's memory; 2 from now on." in out
    assert "generate: 2 pictures at a time filled the device's memory; 1 from now on." in out

    gpu.holds = ASKED
    asked = _render(source, tmp_path / "asked", batch_size=1)
    assert [s.sha256 for s in drawn.manifest.samples] == [s.sha256 for s in asked.manifest.samples]
    assert drawn.n_computed == 10


def test_model_and_recordings_of_an_attempt_that_filled_the_memory_are_gone_before_the_next(
    source, gpu, tmp_path, monkeypatch
):
    gpu.holds, earlier = 1, []
    load = generation.load_drawing_model

    def loaded(*arguments, **options):
        assert [forward() for forward in earlier] == [None] * len(earlier)
        model = load(*arguments, **options)
        earlier.append(weakref.ref(model.forward))
        return model

    monkeypatch.setattr(generation, "load_drawing_model", loaded)
    _render(source, tmp_path)
    assert len(earlier) == 3


def test_a_key_tells_how_many_pictures_went_together(source, gpu, tmp_path):
    """What was drawn two at a time is found by a run that draws two at a time, and by no other."""
    gpu.holds = 2
    _render(source, tmp_path)
    gpu.holds = ASKED
    assert _render(source, tmp_path, batch_size=2).n_reused == 10
    assert _render(source, tmp_path, batch_size=4).n_reused == 0


def test_the_last_batch_is_filled_up(source, gpu, tmp_path):
    _render(source, tmp_path)
    assert set(gpu.batches) == {ASKED}, "five prompts, four at a time"


def test_every_process_goes_down_with_the_one_whose_memory_is_full(source, gpu, tmp_path):
    attempts = []

    class Peers(Processes):
        """The main one of two; the other's memory held two pictures at most."""

        def from_main(self, tensor):
            pass

        def require_same(self, what, text):
            pass

        def least(self, number):
            attempts.append(number)
            return number if len(attempts) != 2 else 0

    with pytest.raises(Exception, match="drawn by another process"):
        _render(source, tmp_path, processes=Peers(0, 2))
    assert attempts == [4, 1, 1]
    assert set(gpu.batches) == {4, 2}


def test_not_even_one_picture_is_a_sentence_with_what_would_fit(source, gpu, tmp_path):
    gpu.holds = 0
    with pytest.raises(DeviceFull, match=r"did not hold one picture.*estimated to fit.*LOUPE_DEVICE=cpu"):
        _render(source, tmp_path)
    cost = _room(source, CUDA).cost
    gpu.free = cost.weight_bytes + PROCESS_BYTES["cuda"] + 4 * cost.row_bytes + cost.decode_bytes - 1
    room = measure_room(source.base_folder, settings=SamplingSettings(512, 512, 3.0, 2, ""), policy=CUDA)
    assert "drawing one picture of 512 x 512 px needs about" in room.why_none()
    assert "This would fit: data.resolution 64." in room.why_none()
    assert not (tmp_path / "samples" / "manifest.json").exists()


def test_another_error_is_no_full_memory(source, gpu, tmp_path):
    gpu.holds, gpu.error = 0, RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        _render(source, tmp_path)
    assert set(gpu.batches) == {ASKED}
    assert not is_out_of_memory(RuntimeError(""))
