"""How a client tells the digests of a file: of all of it, and of each part."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, ValidationInfo, field_validator

from stagecoach.core.parts import MAX_PART_COUNT
from stagecoach.wire.shapes import Shape

HEX_DIGITS = {"md5": 32, "crc32": 8, "sha256": 64}

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$"), AfterValidator(str.lower)]
Crc32 = Annotated[str, Field(pattern=r"^[0-9a-fA-F]{8}$"), AfterValidator(str.lower)]
Hex = Annotated[str, Field(pattern=r"^[0-9a-fA-F]{8,64}$"), AfterValidator(str.lower)]


class PartDigests(Shape):
    """One digest for each part, in order. An empty file has one part, an empty one."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"properties": {"algorithm": {"const": name}, "values": {"items": {"pattern": f"^[0-9a-fA-F]{{{digits}}}$"}}}}
                for name, digits in HEX_DIGITS.items()
            ]
        }
    )

    algorithm: Literal["md5", "crc32", "sha256"]
    values: list[Hex] = Field(min_length=1, max_length=MAX_PART_COUNT, description="Hexadecimal.")

    @field_validator("values")
    @classmethod
    def _of_the_algorithm(cls, values: list[str], info: ValidationInfo) -> list[str]:
        digits = HEX_DIGITS.get(info.data.get("algorithm", ""))
        if digits is not None:
            for number, value in enumerate(values, 1):
                if len(value) != digits:
                    raise ValueError(f"value {number} has {len(value)} hexadecimal digits; this algorithm has {digits}")
        return values


class SaidDigests(Shape):
    """What the client knows of the file; all of it is optional, and all of it is compared on the cluster."""

    sha256: Sha256 | None = Field(None, description="SHA-256 of the whole file, compared on the cluster.")
    crc32: Crc32 | None = Field(None, description="CRC-32 (as of zlib and gzip) of the whole file, eight hexadecimal digits.")
    part_digests: PartDigests | None = Field(
        None, description="Of each part (of `maxPartSize` bytes, the last one shorter): MD5s are compared already at the store."
    )

    @property
    def whole(self) -> dict[str, str]:
        """By algorithm."""
        named = {"sha256": self.sha256, "crc32": self.crc32}
        return {name: value for name, value in named.items() if value is not None}

    @property
    def parts(self) -> dict[str, list[str]]:
        """By algorithm."""
        return {self.part_digests.algorithm: self.part_digests.values} if self.part_digests is not None else {}
