"""Types of values in the files of runs, sweeps and evaluations."""

from typing import Annotated

from pydantic import AfterValidator, Field

LARGEST = 2**53
"""Largest whole number that every reader of JSON keeps exactly."""

Whole = Annotated[int, Field(ge=-LARGEST, le=LARGEST)]
Count = Annotated[int, Field(ge=0, le=LARGEST)]
Positive = Annotated[int, Field(ge=1, le=LARGEST)]
Number = Annotated[float, Field(ge=-1e300, le=1e300)]
Amount = Annotated[float, Field(ge=0, le=1e300)]
Fraction = Annotated[float, Field(ge=0, le=1)]


def _in_order(ends: list[float]) -> list[float]:
    if ends[0] > ends[1]:
        raise ValueError("its ends are in the wrong order")
    return ends


Bounds = Annotated[list[Number], Field(min_length=2, max_length=2), AfterValidator(_in_order)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]*$")]
