"""A training that is stopped between two steps, by the clock or by a signal, and can go on from there."""

import logging
import math
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
from pytorch_lightning.callbacks import Callback

from neurostorm_bids.runtime.signals import Stopped, note_signals, stop_on_signals

LOG = logging.getLogger("neurostorm")


class Interruption(Callback):
    """Saves a checkpoint every so many minutes; on a signal and when the time is up, saves one and ends the program.

    All processes decide together, after the same step: a signal may reach one of them alone. In the last step of an epoch
    nothing is saved, since the end of the epoch is.

    Parameters
    ----------
    checkpoint : Path
    minutes : float
        Between checkpoints.
    max_hours : float or None
        After which the program ends.
    clock : callable
        Seconds.
    """

    def __init__(
        self, checkpoint: Path, minutes: float, max_hours: float | None, clock: Callable[[], float] = time.monotonic
    ):
        self.checkpoint, self.interval, self.clock = checkpoint, 60 * minutes, clock
        self.saved = clock()
        self.end = math.inf if max_hours is None else self.saved + 3600 * max_hours
        self.signals: list[int] = []
        self.stop = 0

    def on_train_start(self, _trainer: lightning.Trainer, _module: Any) -> None:
        """Note signals instead of ending at once; Lightning has replaced our handlers with its own."""
        note_signals(self.signals)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, _module: Any, _outputs: Any, _batch: Any, batch_idx: int
    ) -> None:
        """Save, and end, if it is time."""
        is_last = batch_idx + 1 >= trainer.num_training_batches
        if not is_last and (batch_idx + 1) % trainer.accumulate_grad_batches:
            return  # gradients that are being added up are not saved
        self.stop = self.stop or self._agreed(trainer)
        if is_last:
            return
        if self.stop or self._all(trainer, self.clock() >= self.saved + self.interval):
            trainer.save_checkpoint(self.checkpoint)
            self.saved = self.clock()
        if self.stop:
            self._end(trainer)

    def on_train_epoch_start(self, trainer: lightning.Trainer, _module: Any) -> None:
        """End, if it was time in the last step of the epoch before."""
        self.saved = self.clock()
        if self.stop:
            self._end(trainer)

    def on_train_end(self, _trainer: lightning.Trainer, _module: Any) -> None:
        """End at once on signals from now on; if there was one in the last step of all, there is nothing left to stop."""
        stop_on_signals()

    def on_exception(self, _trainer: lightning.Trainer, _module: Any, _exception: BaseException) -> None:
        """End at once on signals from now on."""
        stop_on_signals()

    def _agreed(self, trainer: lightning.Trainer) -> int:
        """Return the number of the signal that some process had; SIGUSR1's if the time is up; 0 if nothing is to be done."""
        mine = self.signals[0] if self.signals else signal.SIGUSR1 if self.clock() >= self.end else 0
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT):
            if self._all(trainer, mine == number):
                return int(number)
        return 0

    def _all(self, trainer: lightning.Trainer, mine: bool) -> bool:
        """Return whether this holds in any process."""
        return bool(trainer.strategy.reduce_boolean_decision(mine, all=False))

    def _end(self, trainer: lightning.Trainer) -> None:
        LOG.warning(
            "stopped after step %d%s; the same command with --resume goes on from there",
            trainer.global_step,
            "" if self.signals else ", since the time is up",
        )
        raise Stopped(self.stop)
