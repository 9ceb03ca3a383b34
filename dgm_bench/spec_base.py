"""What all declarations have in common. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict


class Spec(BaseModel):
    """Base of all declarations: immutable, unknown keys are errors, and numbers are finite."""

    # What checks values is made when the first is checked: most verbs check none.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with other values, without what was computed of the former ones."""
        copied = super().model_copy(update=update, deep=deep)
        for name in vars(copied).keys() - type(copied).model_fields.keys():
            del vars(copied)[name]
        return copied


def _recordable(args: dict[str, Any]) -> dict[str, Any]:
    try:
        json.dumps(args, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"no finite values of JSON: {error}") from error
    return args


#: Of models, data sets and objectives: whoever takes them says of what type each is.
Args = Annotated[dict[str, Any], AfterValidator(_recordable)]
