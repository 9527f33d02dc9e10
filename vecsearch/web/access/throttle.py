"""How many wrong tokens may be sent, in a memory that does not grow."""

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

# Wrong tokens that an address may send at once, and seconds until it may send one more.
BURST, INTERVAL_S = 10, 6.0
# The same for all addresses together, but for those that have sent the right one.
BURST_OF_ALL, INTERVAL_OF_ALL_S = 200, 1.0
# The addresses to remember: those that sent a wrong token last, and those that sent the right one.
REMEMBERED = 1_024

T = TypeVar("T")


class Throttle:
    """Tells how long an address must wait before its next token is compared.

    An address that must wait is not told whether a token is right, or guesses would go on.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # Each failure adds an interval to the time until which its address is in debt.
        self._debts: OrderedDict[str, float] = OrderedDict()
        self._trusted: OrderedDict[str, None] = OrderedDict()
        self._of_all = 0.0

    def wait(self, address: str) -> int:
        """Return the seconds that an address must wait; 0: its token may be compared."""
        place, now = _place(address), self._clock()
        wait = self._debts.get(place, 0.0) - now - (BURST - 1) * INTERVAL_S
        if place not in self._trusted:
            wait = max(wait, self._of_all - now - (BURST_OF_ALL - 1) * INTERVAL_OF_ALL_S)
        return max(0, math.ceil(wait))

    def failed(self, address: str) -> None:
        """Record a wrong token."""
        place, now = _place(address), self._clock()
        _remember(self._debts, place, max(self._debts.pop(place, 0.0), now) + INTERVAL_S)
        self._of_all = max(self._of_all, now) + INTERVAL_OF_ALL_S

    def succeeded(self, address: str) -> None:
        """Record the right token."""
        place = _place(address)
        self._trusted.pop(place, None)
        _remember(self._trusted, place, None)


def _remember(places: OrderedDict[str, T], place: str, value: T) -> None:
    places[place] = value
    if len(places) > REMEMBERED:
        places.popitem(last=False)


def _place(address: str) -> str:
    """Return what one caller cannot easily change of an address: of IPv6, the network."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if found.version == 4:  # noqa: PLR2004 - IPv4
        return str(found)
    mapped = found.ipv4_mapped
    return str(mapped or ipaddress.ip_network((found, 64), strict=False))
