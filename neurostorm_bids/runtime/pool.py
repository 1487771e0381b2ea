"""Work on several items at a time, each in a process of its own, so that one that dies takes no other with it."""

import contextlib
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Protocol, TypeVar

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.runtime.outcome import Outcome
from neurostorm_bids.runtime.signals import Stopped, in_worker, stop_workers

KILLED = "its process was killed, probably because memory ran out; give it more, or use a smaller --nprocs"
ATTEMPTS = 3  # pools in a row that may break before any item was begun


class Item(Protocol):
    """Something to work on."""

    @property
    def name(self) -> str:
        """Its name, for messages."""

    @property
    def subject(self) -> str:
        """Label of the subject it belongs to."""


AnyItem = TypeVar("AnyItem", bound=Item)
Work = Callable[[AnyItem, str], Outcome]


@dataclass(frozen=True)
class Workers:
    """The processes that share the work.

    Attributes
    ----------
    n : int
        Items to work on at a time; with 1, all is done in this process.
    prepare : callable
        Called once in each process.
    stop_on_failure : bool
        Begin nothing new once an item has failed.
    """

    n: int
    prepare: Callable[[], None]
    stop_on_failure: bool = False


class _Broken(Exception):
    """A process of the pool was killed, which takes the whole pool down."""


def process(items: Sequence[AnyItem], work: "Work[AnyItem]", workers: Workers) -> Iterator[Outcome]:
    """Work on every item; yields outcomes as they come.

    Parameters
    ----------
    work : callable
        Takes an item and its position among the others (such as 2/5); returns an `Outcome`.

    Raises
    ------
    NeurostormError
        If processes die before they begin with anything.
    """
    positions = {item.name: f"{i}/{len(items)}" for i, item in enumerate(items, start=1)}
    if workers.n == 1 or len(items) == 1:
        for item in items:
            outcome = work(item, positions[item.name])
            yield outcome
            if outcome.failed and workers.stop_on_failure:
                return
        return
    # A worker that the kernel kills (memory) takes its pool down. The items under way are tried once more, each in a
    # pool of its own, so that only the one at fault fails; the items left go on in a new pool.
    left, begun, failed = list(items), 0, False
    while left:
        under_way: list[AnyItem] = []
        n_left = len(left)
        try:
            with contextlib.closing(_in_pool(left, under_way, workers.n, work, positions, workers)) as outcomes:
                for outcome in outcomes:
                    failed = failed or outcome.failed
                    yield outcome
            return
        except _Broken:
            begun = 0 if under_way or len(left) < n_left else begun + 1
        if begun == ATTEMPTS:
            raise NeurostormError(f"worker processes are killed as soon as they start ({KILLED.partition('; ')[2]})")
        for item in under_way:
            if failed and workers.stop_on_failure:
                return
            try:
                (outcome,) = list(_in_pool([item], [], 1, work, positions, workers))
            except _Broken:
                outcome = Outcome(item.name, item.subject, "failed", problems=(KILLED,))
            failed = failed or outcome.failed
            yield outcome
        if failed and workers.stop_on_failure:
            return


@contextlib.contextmanager
def _workers_stopped_with_us() -> Iterator[None]:
    """Leaving a pool waits for its workers: terminate them when we are to stop."""
    try:
        yield
    except (Stopped, GeneratorExit):  # the latter where the signal reached whoever consumes the outcomes
        stop_workers()
        raise


def _in_pool(
    left: list[AnyItem],
    under_way: list[AnyItem],
    n: int,
    work: "Work[AnyItem]",
    positions: dict[str, str],
    workers: Workers,
) -> Generator[Outcome, None, None]:
    """Work on items in a pool, taking each out of ``left`` when it begins; yields outcomes.

    Raises
    ------
    _Broken
        If a process was killed; ``under_way`` then holds the items that were begun and not done.
    """
    futures: dict[Future[Outcome], AnyItem] = {}
    stop = False
    with (
        ProcessPoolExecutor(n, mp_context=get_context("spawn"), initializer=workers.prepare) as pool,
        _workers_stopped_with_us(),
    ):
        try:
            while futures or (left and not stop):
                while left and not stop and len(futures) < n:
                    item = left[0]
                    futures[pool.submit(in_worker, work, item, positions[item.name])] = item
                    left.pop(0)
                for future in wait(futures, return_when=FIRST_COMPLETED).done:
                    outcome = future.result()
                    del futures[future]
                    stop = stop or (outcome.failed and workers.stop_on_failure)
                    yield outcome
        except BrokenProcessPool:
            under_way += futures.values()
            raise _Broken from None
