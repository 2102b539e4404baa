"""One errand at a time, for tests of what a courier does with it."""

import threading

from rotator.core.policy import Sink
from rotator.errors import DeliveryError, SinkHungError
from rotator.ports import Courier, Ending, Errand, Parcel
from tests.patience import wait_until


def deliver(courier: Courier, sink: Sink, parcel: Parcel) -> None:
    """Deliver one parcel; raise :class:`DeliveryError` where it did not get there."""
    brought: dict[int, Ending] = {}
    (domain,) = courier.domains([sink])
    courier.deliver(domain, [Errand(sink, parcel)], brought.__setitem__)
    if brought[0].problem:
        raise (SinkHungError if brought[0].hung else DeliveryError)(brought[0].problem)


def holds(courier: Courier, sink: Sink, parcel: Parcel) -> bool:
    """Tell whether a sink holds a parcel."""
    brought: dict[int, Ending] = {}
    (domain,) = courier.domains([sink])
    courier.compare(domain, [Errand(sink, parcel)], brought.__setitem__)
    return not brought[0].problem


def helpers_are_gone() -> None:
    """Wait until the processes that touched files have ended, and were reaped."""
    wait_until(lambda: all(each.name != "rotator-reaper" for each in threading.enumerate()), "helpers are gone")
