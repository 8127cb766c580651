"""What every part of a plan is made of."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]
Probability = Annotated[float, Field(ge=0, le=1)]


class Table(BaseModel):
    """Base of every table: unknown keys are refused, values never change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _kind(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


NameAlone = BeforeValidator(_kind)  # `flip` for `{kind: flip}`
