"""How to train: what is tuned, for how long, on what."""

import math
from dataclasses import dataclass

import torch

# What is tuned -> learning rate of what is tuned beside the head, at its largest, for the batch below; chosen on the tests'
# small cohorts
LEARNING_RATES = {
    "linear": 1e-2,
    "prompt": 1e-2,
    "layernorm": 1e-3,
    "prompt-layernorm": 1e-3,
    "lora": 1e-3,
    "full": 1e-4,
}
BATCH, BATCH_OF_EMBEDDINGS = 4, 256  # windows in a step, unless others are asked for
HEAD_RATE = 1e-2  # learning rate of the head beside what else is tuned: it sees standardised embeddings
MAX_WINDOWS = 8  # of a sample in an epoch, unless more are asked for


@dataclass(frozen=True)
class Plan:
    """How to train.

    Attributes
    ----------
    tuning : str
        One of `LEARNING_RATES`.
    epochs : int
        At most.
    patience : int
        Epochs without a smaller loss on the validation subjects, after which training stops; they count from half of
        `epochs` on.
    batch_size : int
        Windows that one process takes at a time.
    accumulate : int
        Such batches in a step.
    device : torch.device
    windows_per_sample : int or None
        Windows of each sample in an epoch; `None` takes what the median sample has, at most `MAX_WINDOWS`.
    learning_rate : float
        Of what is tuned beside the head, at its largest; 0 takes what suits the tuning and the windows in a step.
    precision : {"fp32", "bf16", "fp16"}
    prompt_length : int
        Tokens before every window.
    lora_rank : int
        Of the low-rank additions.
    lora_alpha : float
        They are scaled by this over their rank; 0 is the rank, for a scale of 1.
    augmentation : str
        How training windows are disturbed, one of `augment.AUGMENTATIONS`.
    steps : int
        Of an epoch, where it is not a pass over all windows: as in pretraining, whose loss on held-out people is known more often.
    averaging : float
        Share of the average of the weights that a step leaves as it is, such as 0.999; the average is what is kept. 0: none.
    less_memory : bool
        Blocks are computed again for their gradients instead of being kept.
    devices, nodes : int
        Processes on a node, and nodes.
    workers : int
        Processes that prepare clips, for each process that trains.
    seed : int
    """

    tuning: str
    epochs: int
    patience: int
    batch_size: int
    device: torch.device
    windows_per_sample: int | None = None
    learning_rate: float = 0.0
    accumulate: int = 1
    precision: str = "fp32"
    prompt_length: int = 50
    lora_rank: int = 8
    lora_alpha: float = 0.0
    augmentation: str = "published"
    steps: int = 0
    averaging: float = 0.0
    less_memory: bool = False
    devices: int = 1
    nodes: int = 1
    workers: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        rate = self.learning_rate or LEARNING_RATES[self.tuning] * self.rate_factor
        object.__setattr__(self, "learning_rate", rate)

    @property
    def lora_scale(self) -> float:
        """What low-rank additions are multiplied with."""
        return self.lora_alpha / self.lora_rank if self.lora_alpha else 1.0

    @property
    def n_processes(self) -> int:
        """Processes that train together."""
        return self.devices * self.nodes

    @property
    def windows_in_step(self) -> int:
        """Windows that a step of all processes is made from."""
        return self.batch_size * self.accumulate * self.n_processes

    @property
    def rate_factor(self) -> float:
        """How much larger learning rates are than with the default batch: by the square root, as suits Adam's steps."""
        return math.sqrt(self.windows_in_step / (BATCH_OF_EMBEDDINGS if self.tuning == "linear" else BATCH))

    @property
    def head_rate(self) -> float:
        """Largest learning rate of the head."""
        return self.learning_rate if self.tuning == "linear" else HEAD_RATE * self.rate_factor
