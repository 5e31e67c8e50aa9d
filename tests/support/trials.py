"""The size of a trial: an example, its short form, or its full form.

`make test` runs an example, `make trials` the short form of each within ten minutes on two cores, and
`make trials TRIALS=full` what is worth some hours.
"""

import os
from enum import Enum
from typing import TypeVar

T = TypeVar("T")


class Form(Enum):
    """A form, with the greatest number of examples of a property in it."""

    EXAMPLE = 25
    SHORT = 200
    FULL = 5_000


FORM = Form[os.environ.get("TRIALS", Form.EXAMPLE.name).upper()]


def by_form(example: T, short: T, full: T) -> T:
    """Return what is chosen for the form of this run."""
    return {Form.EXAMPLE: example, Form.SHORT: short, Form.FULL: full}[FORM]
