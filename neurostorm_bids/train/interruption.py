"""A training that is stopped between two steps, by the clock or by a signal, and can go on from there."""

import logging
import math
import signal
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
import torch
from pytorch_lightning.callbacks import Callback

from neurostorm_bids.runtime.signals import Stopped, note_signals, stop_on_signals

LOG = logging.getLogger("neurostorm")
SAVE = 1


class Interruption(Callback):
    """Saves a checkpoint every so many minutes; on a signal and when the time is up, saves one and ends the program.

    All processes decide together, after the same step: a signal may reach one of them alone. In the last step of an epoch
    nothing is saved, since the end of the epoch is.

    Parameters
    ----------
    checkpoint : Path
    minutes : float
        Between checkpoints.
    deadline : float or None
        On the monotonic clock, s, after which the program ends.
    """

    def __init__(self, checkpoint: Path, minutes: float, deadline: float | None):
        self.checkpoint, self.interval = checkpoint, 60 * minutes
        self.saved = time.monotonic()
        self.deadline = math.inf if deadline is None else deadline
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
        wish = self._agreed(trainer)
        self.stop = self.stop or (wish if wish != SAVE else 0)
        if is_last:
            return
        if self.stop or wish == SAVE:
            trainer.save_checkpoint(self.checkpoint)
            self.saved = time.monotonic()
        if self.stop:
            self._end(trainer)

    def on_train_epoch_start(self, trainer: lightning.Trainer, _module: Any) -> None:
        """End, if it was time in the last step of the epoch before."""
        self.saved = time.monotonic()
        if self.stop:
            self._end(trainer)

    def on_train_end(self, _trainer: lightning.Trainer, _module: Any) -> None:
        """End at once on signals from now on; if there was one in the last step of all, there is nothing left to stop."""
        stop_on_signals()

    def on_exception(self, _trainer: lightning.Trainer, _module: Any, _exception: BaseException) -> None:
        """End at once on signals from now on."""
        stop_on_signals()

    def _agreed(self, trainer: lightning.Trainer) -> int:
        """Return what some process wants: to save; or to end, as the number of a signal, SIGUSR1 if the time is up."""
        now = time.monotonic()
        mine = SAVE if now >= self.saved + self.interval else 0
        if self.signals or now >= self.deadline:
            mine = self.signals[0] if self.signals else int(signal.SIGUSR1)
        if trainer.world_size == 1:
            return mine
        wishes = torch.tensor(mine, device=trainer.strategy.root_device)
        return int(trainer.strategy.reduce(wishes, reduce_op="max"))  # signals' numbers are larger than that of saving

    def _end(self, trainer: lightning.Trainer) -> None:
        LOG.warning(
            "stopped after step %d%s; the same command with --resume goes on from there",
            trainer.global_step,
            ", since the time is up" if time.monotonic() >= self.deadline else "",
        )
        raise Stopped(self.stop)
