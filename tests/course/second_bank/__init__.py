"""Wrong answers to every exercise, written from what a student is shown.

One module a lab; those of Labs 1 to 3 were written from titles, stubs and docstrings,
without the banks of mistakes that the checks hold. They measure how much of what
students do the checks can name: see `test_second_bank`. The words that a right
diagnosis says were completed by hand once the diagnoses could be read; the answers
stayed as they were.
"""

from .answers import Wrong
from .lab1 import ANSWERS as LAB1
from .lab2 import ANSWERS as LAB2
from .lab3 import ANSWERS as LAB3
from .lab4 import ANSWERS as LAB4

SECOND_BANK: dict[str, tuple[Wrong, ...]] = {**LAB1, **LAB2, **LAB3, **LAB4}

__all__ = ["SECOND_BANK", "Wrong"]
