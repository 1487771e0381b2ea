"""How a fine-tuned model's runs were resampled, and what of it a call takes over.

Noise regression, interpolation and repetition time belong to the model, as its grid does: it has seen nothing else. What
belongs to the data (their own repetition time, dummy scans, registrations, masks) is not compared.
"""

from collections.abc import Sequence
from typing import Any

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.model.model import Model
from neurostorm_bids.resample.grid import get_grid
from neurostorm_bids.runtime.options import Option, options_of
from neurostorm_bids.settings import Settings
from neurostorm_bids.settings.participant import OF_MODEL, Resampling

DETAILS = {each.name: details for each, details in options_of(Resampling)}


def adopt(models: Sequence[Model], settings: Settings) -> Settings:
    """Return the settings with the resampling that the models were trained with, where no other was given.

    Raises
    ------
    NeurostormError
        If a fine-tuned model is to be fed in another grid than its own, the models need different settings, or a model's
        file holds none that can be used.
    """
    wanted: dict[str, dict[str, Any]] = {}
    for model in models:
        _check_grid(model, settings)
        trained = trained_with(model)
        wanted[model.name] = {
            name: getattr(settings.resampling, name)
            if name not in trained or settings.resampling.is_given(name)
            else trained[name]
            for name in OF_MODEL
        }
    for name in OF_MODEL:
        values = {model: settings.in_words({name: of_model[name]})[name] for model, of_model in wanted.items()}
        if len(set(values.values())) > 1:
            each = ", ".join(f"{model} {value}" for model, value in values.items())
            raise NeurostormError(
                f"the models need runs that are resampled differently (--{_typed(name)}: {each}); run them one by one"
            )
    common = next(iter(wanted.values()), {})
    return settings.adopting(
        {name: value for name, value in common.items() if value != getattr(settings.resampling, name)}
    )


def departures(model: Model, settings: Settings) -> dict[str, tuple[Any, Any]]:
    """Return where this call resamples otherwise than in a model's training: option -> (in training, here), as typed."""
    ours, theirs = settings.in_words(settings.changing("gridded")), settings.in_words(trained_with(model))
    return {name: (value, ours[name]) for name, value in theirs.items() if value != ours[name]}


def notes_of(models: Sequence[Model], settings: Settings) -> list[str]:
    """Say where this call resamples otherwise than in the training of its models."""
    return [
        f"model {model.name} was trained on runs resampled with --{_typed(name)} {theirs}, this call has {ours}"
        for model in models
        for name, (theirs, ours) in departures(model, settings).items()
    ]


def adopted_in_words(settings: Settings) -> str:
    """Return what was taken over from models, as one would type it; empty if nothing was."""
    values = settings.in_words(
        {name: getattr(settings.resampling, name) for name in sorted(settings.resampling.adopted)}
    )
    return " ".join(f"--{_typed(name)} {value}" for name, value in values.items())


def adoption_entry(model: Model, settings: Settings) -> dict[str, Any] | None:
    """Return how a run's resampling relates to that of the model's training, for sidecars; `None` if it is not known."""
    if not trained_with(model):
        return None
    ours = settings.in_words({name: getattr(settings.resampling, name) for name in OF_MODEL})
    return {
        "Adopted": {name: ours[name] for name in sorted(settings.resampling.adopted)},
        "Departures": {
            name: {"Training": theirs, "Here": here} for name, (theirs, here) in departures(model, settings).items()
        },
    }


def trained_with(model: Model) -> dict[str, Any]:
    """Return the options of `OF_MODEL` that a model's runs were resampled with; empty if its file does not say."""
    said = model.hyper_parameters.get("gridding", model.hyper_parameters.get("placing"))  # as 0.1 called it
    trained = {name: said[name] for name in OF_MODEL if name in said} if isinstance(said, dict) else {}
    for name, value in trained.items():
        if not _is_possible(value, DETAILS[name]):
            raise NeurostormError(f"model {model.name}: its hyper-parameter gridding holds {name} {value!r}")
    return trained


def _check_grid(model: Model, settings: Settings) -> None:
    asked = settings.resampling.grid
    if "tuning" in model.hyper_parameters and asked != "auto" and get_grid(asked) != model.grid:
        raise NeurostormError(
            f"model {model.name} was tuned in the grid {model.grid.name} and cannot be fed in {asked}; leave out --grid"
        )


def _is_possible(value: Any, details: Option) -> bool:
    if value is None:
        return details.word_for_none is not None
    if details.choices:
        return value in details.list_choices()
    limits = details.least, details.most
    return type(value) in (int, float) and (limits[0] or 0) <= value <= (limits[1] or 0)


def _typed(name: str) -> str:
    return name.replace("_", "-")
