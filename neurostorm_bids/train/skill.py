"""Whether a masked autoencoder has learnt anything: its error beside those of two who know nothing, and of its embeddings.

Shapes: patches (B, D, H, W, T, V), V voxels of a patch; hidden and brain (B, D, H, W, T) bool.
"""

from dataclasses import dataclass, fields

import numpy as np
import torch
from sklearn.linear_model import RidgeClassifierCV, RidgeCV
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

FEWEST, RESAMPLED, FOLDS = 10, 2000, 5  # people for an interval; draws of them; folds of the probe


@dataclass(frozen=True)
class Errors:
    """Sums of squared errors per patch, and the number of patches; those of several batches are added.

    Attributes
    ----------
    model : (2,) tensor
        Of the reconstruction: over all hidden patches, and over those that are compared.
    mean_image, in_time : (2,) tensors
        Of the baselines.
    n : (2,) tensor
        Hidden patches.
    total : (D, H, W, V) tensor
        Sum of the patches that are compared at each place: from it, the mean of everybody.
    squares, count : (D, H, W) tensors
        Sum of their mean squares, and how many they are.
    """

    model: Tensor
    mean_image: Tensor
    in_time: Tensor
    n: Tensor
    total: Tensor
    squares: Tensor
    count: Tensor

    @classmethod
    def of(cls, patches: Tensor, found: Tensor, hidden: Tensor, brain: Tensor) -> "Errors":
        """Return the errors of one batch.

        Compared are hidden patches of brain whose place is seen in another frame: of the others, the baselines know nothing
        at all, and whoever knows where brain is would be better. Where all places are hidden in all frames (tubes, regions),
        they are compared all the same.

        Parameters
        ----------
        patches, found : (B, D, H, W, T, V) tensors
            Of the clips, and as reconstructed.
        """
        elsewhen = (~hidden).any(dim=4, keepdim=True).expand_as(hidden)
        compared = hidden & brain & elsewhen
        which = torch.stack([hidden, compared if compared.any() else hidden & brain])
        errors = [
            (((guess - patches) ** 2).mean(dim=-1) * which).sum(dim=(1, 2, 3, 4, 5))
            for guess in (found, mean_of_seen(patches, hidden), between_seen(patches, hidden))
        ]
        model, mean_image, in_time = errors
        weights = which[1].to(patches.dtype)
        return cls(
            model,
            mean_image,
            in_time,
            which.sum(dim=(1, 2, 3, 4, 5)).float(),
            (patches * weights[..., None]).sum(dim=(0, 4)),
            (patches.square().mean(dim=-1) * weights).sum(dim=(0, 4)),
            weights.sum(dim=(0, 4)),
        )

    def cpu(self) -> "Errors":
        """Return the same, off the device."""
        return Errors(*(getattr(self, each.name).cpu() for each in fields(self)))

    def __add__(self, other: "Errors") -> "Errors":
        return Errors(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))

    def record(self) -> dict[str, float]:
        """Return mean errors and skills, by name; a skill is 1 - error / error of the baseline.

        Everybody: at each place, the mean of all patches that are compared there, of all people.
        """
        n = self.n.clamp(min=1)
        error, image, time = (float(each[1] / n[1]) for each in (self.model, self.mean_image, self.in_time))
        around_mean = self.squares - self.total.square().mean(dim=-1) / self.count.clamp(min=1)
        everybody = float(around_mean.sum() / n[1])
        return {
            "error": float(self.model[0] / n[0]),
            "brain_error": error,
            "brain_error_of_mean_image": image,
            "brain_error_in_time": time,
            "brain_error_of_everybody": everybody,
            "skill_over_everybody": 1 - error / everybody if everybody > 0 else float("nan"),
            "skill_over_mean_image": 1 - error / image if image > 0 else float("nan"),
            "skill_over_time": 1 - error / time if time > 0 else float("nan"),
        }


def mean_of_seen(patches: Tensor, hidden: Tensor) -> Tensor:
    """Return, for each place, the mean over the frames in which it is seen; where it never is, over all that is seen of the clip."""
    seen = (~hidden)[..., None].to(patches.dtype)
    counts = seen.sum(dim=4, keepdim=True)
    mean = (patches * seen).sum(dim=4, keepdim=True) / counts.clamp(min=1)
    everywhere = (patches * seen).sum(dim=(1, 2, 3, 4), keepdim=True) / seen.sum(dim=(1, 2, 3, 4), keepdim=True).clamp(
        min=1
    )
    return torch.where(counts > 0, mean, everywhere).expand_as(patches)


def between_seen(patches: Tensor, hidden: Tensor) -> Tensor:
    """Return, for each place, a line in time between the nearest frames in which it is seen; beyond these, the nearest one.

    Where a place is never seen, as `mean_of_seen`.
    """
    n_frames = patches.shape[4]
    frames = torch.arange(n_frames, device=patches.device).expand(hidden.shape)
    seen = ~hidden
    before = torch.where(seen, frames, -1).cummax(dim=4).values
    after = torch.where(seen, frames, n_frames).flip(4).cummin(dim=4).values.flip(4)
    never = (before < 0) & (after == n_frames)
    earlier = torch.where(before < 0, after, before).clamp(0, n_frames - 1)
    later = torch.where(after == n_frames, before, after).clamp(0, n_frames - 1)
    share = (frames - earlier).float() / (later - earlier).clamp(min=1)

    def at(where: Tensor) -> Tensor:
        return patches.gather(4, where[..., None].expand_as(patches))

    line = at(earlier) * (1 - share)[..., None] + at(later) * share[..., None]
    return torch.where(never[..., None], mean_of_seen(patches, hidden), line)


def effective_rank(embeddings: Tensor) -> float:
    """Return how many directions embeddings (n, channels) spread over: the exponential of the entropy of their variances; NaN of NaN."""
    if not embeddings.isfinite().all():
        return float("nan")
    centred = embeddings.double() - embeddings.double().mean(dim=0)
    variances = torch.linalg.svdvals(centred) ** 2
    total = variances.sum()
    if not total > 0:
        return 0.0
    shares = variances[variances > 0] / total
    return float(torch.exp(-(shares * shares.log()).sum()))


def spread(embeddings: Tensor) -> float:
    """Return how far embeddings (n, channels) are from their mean, over how large they are."""
    apart = embeddings.double() - embeddings.double().mean(dim=0)
    return float(apart.square().mean().sqrt() / embeddings.double().square().mean().sqrt().clamp(min=1e-30))


def rank_one(embeddings: Tensor, people: Tensor) -> tuple[float, float, float]:
    """Return how often the window nearest to a window (cosine) is of the same person; NaN if nobody has two.

    With a 95 % interval by resampling people; NaN of fewer than 10.

    Parameters
    ----------
    embeddings : (windows, channels) tensor
    people : (windows,) int tensor
    """
    standard = (embeddings - embeddings.mean(dim=0)) / embeddings.std(dim=0).clamp(min=1e-12)
    unit = torch.nn.functional.normalize(standard, dim=1)
    alike = unit @ unit.T
    alike.fill_diagonal_(-2)
    same = people[:, None] == people[None]
    several = same.sum(dim=1) > 1
    if not several.any() or not embeddings.isfinite().all():
        return (float("nan"),) * 3
    hits = (people[alike.argmax(dim=1)] == people)[several].double().numpy()
    _, who = np.unique(people[several].numpy(), return_inverse=True)
    counts, right = np.bincount(who), np.bincount(who, weights=hits)
    if len(counts) < FEWEST:
        return float(hits.mean()), float("nan"), float("nan")
    drawn = np.random.default_rng(0).integers(len(counts), size=(RESAMPLED, len(counts)))
    low, high = np.percentile(right[drawn].sum(axis=1) / counts[drawn].sum(axis=1), [2.5, 97.5])
    return float(hits.mean()), float(low), float(high)


def probe(embeddings: Tensor, people: Tensor, y: np.ndarray, has_classes: bool) -> float:
    """Return how well a line through people's mean embeddings predicts a target of others: r, or the balanced accuracy.

    In five folds; a quick look while a training runs, no test. NaN if it is known of fewer than 20 people.

    Parameters
    ----------
    y : array
        By number of a person; NaN where it is not known.
    """
    who, number = np.unique(people.numpy(), return_inverse=True)
    sums = np.zeros((len(who), embeddings.shape[1]))
    np.add.at(sums, number, embeddings.double().numpy())
    means, known = sums / np.bincount(number)[:, None], ~np.isnan(y[who])
    means, target = means[known], y[who][known]
    if known.sum() < 2 * FEWEST or len(np.unique(target)) < 2 or not np.isfinite(means).all():
        return float("nan")
    penalties = np.logspace(-2, 4, 13)
    model = RidgeClassifierCV(penalties, class_weight="balanced") if has_classes else RidgeCV(penalties)
    folds = (StratifiedKFold if has_classes else KFold)(FOLDS, shuffle=True, random_state=0)
    if has_classes and np.unique(target, return_counts=True)[1].min() < FOLDS:
        return float("nan")
    found = cross_val_predict(make_pipeline(StandardScaler(), model), means, target, cv=folds)
    return float(balanced_accuracy_score(target, found) if has_classes else np.corrcoef(target, found)[0, 1])
