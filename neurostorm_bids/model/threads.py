"""Threads that share the work of a clip, and the memory that they leave behind."""

import ctypes
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import torch

Piece = Callable[[int], None]


@lru_cache(maxsize=1)
def thread_pool(n: int) -> ThreadPoolExecutor:
    """Return threads that stay: new ones for every clip would each bring memory of their own."""
    return ThreadPoolExecutor(n, thread_name_prefix="encode")


@dataclass(frozen=True)
class Share:
    """Shares numbered pieces of work among threads.

    Attributes
    ----------
    threads : int
    """

    threads: int

    def __call__(self, function: Piece, n_pieces: int) -> None:
        """Call ``function`` with every number below ``n_pieces``."""
        pieces = list(reversed(range(n_pieces)))
        if self.threads == 1 or n_pieces == 1:
            _work(function, pieces)
            return
        for done in [thread_pool(self.threads).submit(_work, function, pieces) for _ in range(self.threads)]:
            done.result()


@torch.inference_mode()
def _work(function: Piece, pieces: list[int]) -> None:
    while pieces:
        try:
            piece = pieces.pop()
        except IndexError:  # another thread took the last one
            return
        function(piece)


@contextmanager
def shared_among_threads() -> Iterator[Share]:
    """Give a function that shares pieces of work among as many threads as PyTorch has.

    Meanwhile PyTorch's own operations stay in the thread that calls them: threads that meet once a block, not in every
    operation, do not wait for each other when the machine is busy with something else.
    """
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield Share(n)
    finally:
        torch.set_num_threads(n)


def give_back_memory() -> None:
    """Return freed memory to the system: glibc keeps a share for every thread, which adds up over a long run."""
    if sys.platform == "linux" and hasattr(_libc(), "malloc_trim"):
        _libc().malloc_trim(0)


@lru_cache(maxsize=1)
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)
