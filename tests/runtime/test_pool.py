"""A pool whose workers die."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from neurostorm_bids.runtime.outcome import Outcome
from neurostorm_bids.runtime.pool import Workers, process


@dataclass(frozen=True)
class Item:
    """Something to work on."""

    name: str
    subject: str = "01"


ITEMS = [Item(name) for name in "abcd"]


def nothing() -> None:
    """Prepare nothing."""


def die_during_b(item, _position):
    if item.name == "b":
        time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGKILL)
    return Outcome(item.name, item.subject, "done", 1)


def die_after_a(item, _position):
    """The worker that did the first item dies when it has nothing to do, as when the kernel kills an idle process."""
    if item.name == "a":
        if os.fork() == 0:
            time.sleep(0.7)
            os.kill(os.getppid(), signal.SIGKILL)
            os._exit(0)
    else:
        time.sleep(0.3)
    return Outcome(item.name, item.subject, "done", 1)


def die_at_once():
    os.kill(os.getpid(), signal.SIGKILL)


def states(work, pause=0.0, prepare=nothing):
    found = {}
    for outcome in process(ITEMS, work, Workers(2, prepare)):
        assert outcome.run not in found
        found[outcome.run] = outcome.status
        time.sleep(pause if len(found) == 1 else 0)
    return found


def test_a_worker_that_dies_while_the_caller_looks_at_an_outcome_takes_no_other_along():
    assert states(die_during_b, pause=2.0) == {"a": "done", "b": "failed", "c": "done", "d": "done"}


def test_an_idle_worker_that_dies_loses_no_item():
    """While the caller looks at the first outcome, nothing is under way: the pool breaks with no item begun."""
    assert states(die_after_a, pause=2.0) == dict.fromkeys("abcd", "done")


def test_workers_that_die_before_they_begin_fail_every_item():
    assert states(die_during_b, prepare=die_at_once) == dict.fromkeys("abcd", "failed")


def test_no_item_is_begun_after_a_failure_that_is_to_stop_all(tmp_path):
    items = [Item(str(tmp_path / name)) for name in "abcdefgh"]
    outcomes = list(process(items, fail_and_die, Workers(2, nothing, stop_on_failure=True)))
    assert [Path(outcome.run).name for outcome in outcomes] == ["a"]
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}


def fail_and_die(item, _position):
    """The first item fails; the worker of the second is killed meanwhile, and would do it in a second attempt."""
    again = os.path.exists(item.name)
    open(item.name, "w").close()
    if item.name.endswith("a"):
        return Outcome(item.name, item.subject, "failed", problems=("it failed",))
    time.sleep(0.3)
    if item.name.endswith("b") and not again:
        os.kill(os.getpid(), signal.SIGKILL)
    return Outcome(item.name, item.subject, "done", 1)
