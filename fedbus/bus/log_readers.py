"""Who may read a model log, as its name says it: with kits the broker lets each site read the names that have its bit.

See `topology.models_stream` for the whole name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from fedbus.trust.subjects import MAX_NUMBER

ALL_READERS = "all"
MOST_SITES = MAX_NUMBER + 1
"""Numbers of sites are below this: each is a bit at the end of a model log's name, which has at most 255 characters."""
READERS = re.compile(r"all|[0-9a-f]{1,160}")
_DIGITS = "0123456789abcdef"


def readers_of(numbers: Iterable[int] | None) -> str:
    """Who may read a model log, as its name says it: the sites with these numbers, `all` for None.

    Hex digits, the lowest four sites first: 0 and 5 are "12". ValueError for a number that no site has.
    """
    if numbers is None:
        return ALL_READERS
    mask = 0
    for number in numbers:
        mask |= 1 << _checked(number)
    return f"{mask:x}"[::-1]


def may_read(stream: str, number: int) -> bool:
    """Whether the broker lets the site of this number read a model log; the same as `models_read_pattern`."""
    return re.fullmatch(models_read_pattern(number), stream) is not None


def models_read_pattern(number: int) -> str:
    """The model logs that the site of this number may read, as a regular expression without its anchors.

    For Erlang's `re` and Python's alike. ValueError for a number that no site may have.
    """
    place, bit = divmod(_checked(number), 4)
    having = "".join(digit for digit in _DIGITS if int(digit, 16) >> bit & 1)
    before = f"[0-9a-f]{{{place}}}" if place else ""
    return rf"fedbus\.models\.[a-z0-9-]+\.[0-9a-f]{{32}}\.({ALL_READERS}|{before}[{having}][0-9a-f]*)"


def _checked(number: int) -> int:
    if not 0 <= number < MOST_SITES:
        raise ValueError(
            f"site number {number}: a federation has at most {MOST_SITES} sites, the revoked ones counted; their"
            " numbers are bits in the names of model logs, which a broker limits to 255 characters"
        )
    return number
