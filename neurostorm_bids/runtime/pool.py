"""Several runs at a time, each in a process of its own, such that one that dies takes no other with it."""

import contextlib
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

from neurostorm_bids.find.dataset import Dataset
from neurostorm_bids.find.runs import Run
from neurostorm_bids.runtime.outcome import Outcome
from neurostorm_bids.runtime.process import prepare_process
from neurostorm_bids.runtime.signals import Stopped, in_worker, stop_workers
from neurostorm_bids.settings import Settings


def process(runs: "list[Run]", work: Callable, dataset: Dataset, settings: Settings):
    """Process every run, one after the other or ``nprocs`` at a time; yields their outcomes as they come.

    Parameters
    ----------
    work : callable
        Takes a run, its place among the others (such as 2/5), the data set and the settings; returns an `Outcome`.
    """
    places = {run: f"{i}/{len(runs)}" for i, run in enumerate(runs, start=1)}
    if settings.nprocs == 1 or len(runs) == 1:
        for run in runs:
            outcome = work(run, places[run], dataset, settings)
            yield outcome
            if outcome.status == "failed" and settings.stop_on_first_crash:
                return
        return
    # A worker that the kernel kills (memory) takes its whole pool down: the runs that were under way are tried once
    # more, each in a pool of its own, so that only the one at fault fails.
    left = list(runs)
    while left:
        under_way = yield from _in_pool(left, settings.nprocs, work, places, dataset, settings)
        for run in under_way:
            if (yield from _in_pool([run], 1, work, places, dataset, settings)):
                why = "its process was killed, probably for want of memory; give it more, or use a smaller --nprocs"
                yield Outcome(run.name, "failed", problems=(why,))
                if settings.stop_on_first_crash:
                    return
        if not under_way:
            return


@contextlib.contextmanager
def _workers_stopped_with_us():
    """Leaving a pool waits for its workers: tell them when we are to stop."""
    try:
        yield
    except (Stopped, GeneratorExit):  # the latter where the stop came to him who takes the outcomes
        stop_workers()
        raise


def _in_pool(left: "list[Run]", n: int, work: Callable, places: dict, dataset: Dataset, settings: Settings):
    """Process runs in a pool of processes, taking each out of ``left`` when it begins; yields outcomes.

    Returns
    -------
    under_way : list of Run
        Runs that were begun and not done when a process was killed; empty if none was.
    """
    futures, stop = {}, False
    with (
        ProcessPoolExecutor(
            n, mp_context=get_context("spawn"), initializer=prepare_process, initargs=(settings,)
        ) as pool,
        _workers_stopped_with_us(),
    ):
        while futures or (left and not stop):
            while left and not stop and len(futures) < n:
                try:
                    futures[pool.submit(in_worker, work, left[0], places[left[0]], dataset, settings)] = left[0]
                except BrokenProcessPool:  # a worker was killed while an outcome was looked at
                    return list(futures.values())
                left.pop(0)
            for future in wait(futures, return_when=FIRST_COMPLETED).done:
                try:
                    outcome = future.result()
                except BrokenProcessPool:
                    return list(futures.values())
                del futures[future]
                stop = stop or (outcome.status == "failed" and settings.stop_on_first_crash)
                yield outcome
    return []
