"""What every section of params.yaml is made of: a frozen section that refuses unknown keys, and bounded numbers.

It holds no parameter.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, Strict

Int = Annotated[int, Strict()]
"""A whole number: neither `true`, which Python counts as 1, nor a number in quotes."""
Float = Annotated[float, Strict()]
"""A number, in the same way."""
Share = Annotated[Float, Field(ge=0, le=1)]
PositiveInt = Annotated[Int, Field(gt=0)]


class Section(BaseModel):
    """A section of params.yaml; the docstring under each field is its description."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)
