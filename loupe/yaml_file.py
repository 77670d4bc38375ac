"""Reading a YAML file the way DVC means it; mistakes are named by line. It checks no content."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from loupe.errors import PipelineError


def read_yaml(path: Path) -> Any:
    """Parse as YAML 1.2, where 1e-05 (which DVC itself writes) is a number; YAML 1.1 readers make it a string."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PipelineError(f"{path} is not there. Copy one of profiles/*.yaml to {path.name}.") from None
    except UnicodeDecodeError as error:
        raise PipelineError(f"{path} is not UTF-8 (byte {error.start}). Save it as UTF-8.") from None
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise PipelineError(f"{path}{place}: {getattr(error, 'problem', None) or error}") from None
