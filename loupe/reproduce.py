"""The command that draws one picture of a run again. It runs nothing.

A picture's seed comes from the run's root seed, the prompt's id and the seed index, so the id is part of the command;
pictures of lower seed indices come with it, mostly from the work store.
"""

from __future__ import annotations

import shlex


def reproduce_command(*, prompt_id: str, text: str, seed_index: int) -> tuple[str, str]:
    """Return what stands before and after the step in the shell command that draws this picture.

    It holds while params.yaml, the checkpoints and the base model are those of the run.
    """
    before = f"python -m loupe.cli generate {shlex.quote(text)} --prompt-id {shlex.quote(prompt_id)} --step "
    return before, f" --count {seed_index + 1} --output reproduced"
