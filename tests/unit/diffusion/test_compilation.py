"""torch.compile without what it needs is a sentence, not a traceback of the compiler's."""

from __future__ import annotations

import os
import shutil

import pytest
from torch._inductor import config

from loupe.diffusion.base_model import base_model_info
from loupe.diffusion.compilation import require_compiler
from loupe.diffusion.trainer_start import build_trainer
from loupe.errors import PipelineError
from tests.unit.diffusion.test_train_run import ADAPTER
from tests.unit.diffusion.tiny_training import CPU, tiny_examples, tiny_settings


def test_a_machine_without_a_compiler_is_told_before_the_unet_is_compiled(tiny_base_model) -> None:
    info = base_model_info(tiny_base_model, name="tiny", revision=None)
    options = {"settings": tiny_settings(compile=True), "adapter": ADAPTER, "policy": CPU}
    said = r"train\.compile is true.*No working C\+\+ compiler.*train\.compile to false"
    with config.patch({"cpp.cxx": ("no-such-compiler",)}), pytest.raises(PipelineError, match=said):
        build_trainer(tiny_base_model, info, tiny_examples(), **options)


@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="this machine has no C++ compiler")
def test_where_it_works_nothing_is_said(capsys) -> None:
    require_compiler("cpu")
    assert capsys.readouterr().out == ""
