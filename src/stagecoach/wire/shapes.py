"""What all shapes share: camelCase on the wire, snake_case understood as well, unknown keys ignored."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic.alias_generators import to_camel

MAX_SIZE_TEXT_LENGTH = 20


class Shape(BaseModel):
    """camelCase on the wire."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)


def _whole_number(value: object) -> object:
    """A size comes as a number or, from shell scripts, as decimal text. 1.5, true and 1e400 are no sizes."""
    if isinstance(value, bool | float):
        raise ValueError("must be a whole number of bytes")
    if isinstance(value, str):
        if len(value) > MAX_SIZE_TEXT_LENGTH or not re.fullmatch(r"-?[0-9]+", value, re.ASCII):
            raise ValueError("must be a whole number of bytes")
        return int(value)
    return value


MAX_OBJECT_BYTES = 5 * 1024**4
SizeBytes = Annotated[
    int,
    Field(ge=0, le=MAX_OBJECT_BYTES),
    BeforeValidator(_whole_number),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": MAX_OBJECT_BYTES},
                {"type": "string", "pattern": f"^[0-9]{{1,{MAX_SIZE_TEXT_LENGTH}}}$"},
            ]
        }
    ),
]
"""0 … 5 TiB, which is the largest object S3 knows."""


class Problem(BaseModel):
    """The body of every answer that is not a success: FirecREST's keys, and our stable ``code`` beside them."""

    model_config = ConfigDict(frozen=True)

    errorType: str = Field(description="validation or error")
    code: str = Field(description="Stable, for programs.")
    message: str = Field(description="For people.")
    causedBy: list[str] | None = None
    data: dict[str, Any] | None = None
    user: str | None = None
