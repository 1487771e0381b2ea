"""All settings of a call: the options of ``neurostorm``, grouped by what they decide.

A new option is a new field of one of the groups: the command line, its help, the configuration file, job scripts and
logs are made from the fields. ``changes`` says what depends on an option:

- ``run``: which runs and models have results in the end
- ``gridded``: the run in the model's grid
- ``numbers``: what is computed from it
- ``nothing``: none of these
"""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from neurostorm_bids.runtime.options import as_toml, as_words, options_of
from neurostorm_bids.settings.explaining import Attribution
from neurostorm_bids.settings.group import GroupAnalysis, Training
from neurostorm_bids.settings.participant import (
    FRAME,
    TOKEN,
    Censoring,
    Conditions,
    Conduct,
    Encoding,
    Parcellation,
    Resampling,
    Resources,
    Selection,
)
from neurostorm_bids.settings.pretraining import Pretraining

WORK = "work"  # folder in the output folder


@dataclass(frozen=True)
class Settings:
    """The settings of one call; `of` makes them from options by name."""

    bids_dir: Path
    out_dir: Path
    analysis_level: str = "participant"
    selection: Selection = Selection()
    encoding: Encoding = Encoding()
    resampling: Resampling = Resampling()
    censoring: Censoring = Censoring()
    conditions: Conditions = Conditions()
    parcellation: Parcellation = Parcellation()
    explaining: Attribution = Attribution()
    resources: Resources = Resources()
    group: GroupAnalysis = GroupAnalysis()
    training: Training = Training()
    pretraining: Pretraining = Pretraining()
    conduct: Conduct = Conduct()

    @classmethod
    def of(cls, bids_dir: Path, out_dir: Path, analysis_level: str = "participant", **values: Any) -> "Settings":
        """Return settings from options by their names; the others have their defaults."""
        return cls(bids_dir, out_dir, analysis_level).replacing(**values)

    def replacing(self, **values: Any) -> "Settings":
        """Return these settings with other values for options, given by their names.

        Raises
        ------
        TypeError
            If there is no option of a name.
        """
        changed = {}
        for name, group in self.groups():
            ours = {each.name: values.pop(each.name) for each, _ in options_of(type(group)) if each.name in values}
            changed[name] = replace(group, **ours)
        if values:
            raise TypeError(f"there is no option {next(iter(values))}")
        return replace(self, **changed)

    def adopting(self, values: dict[str, Any]) -> "Settings":
        """Return these settings with what a fine-tuned model brings with it."""
        changed = self.replacing(**values)
        return replace(changed, resampling=replace(changed.resampling, adopted=frozenset(values)))

    @property
    def as_given(self) -> "Settings":
        """These settings without what was adopted from a model."""
        ours = self.replacing(**{name: getattr(Resampling, name) for name in self.resampling.adopted})
        return replace(ours, resampling=replace(ours.resampling, adopted=frozenset()))

    def groups(self) -> Iterator[tuple[str, Any]]:
        """Yield the name and the options of each group."""
        return ((each.name, getattr(self, each.name)) for each in fields(self)[3:])

    def changing(self, *what: str) -> dict[str, Any]:
        """Return the options that change any of this, such as "numbers", by their names."""
        found = {
            each.name: getattr(group, each.name)
            for _, group in self.groups()
            for each, details in options_of(type(group))
            if details.changes in what
        }
        if "gridded" in what and self.resampling.register is not None:  # nothing else in a run depends on chance
            found["random_seed"] = self.conduct.random_seed
        return found

    def without_effect(self) -> list[str]:
        """Return the options that were given and mean nothing at this level, such as --fd-threshold of the group's."""
        task = self.group.group_task if self.analysis_level == "group" else ""
        trains = task in ("finetune", "pretrain")
        idle: list[Any] = [] if trains else [self.training]
        idle += [] if task == "pretrain" else [self.pretraining]
        if self.analysis_level == "participant":
            idle.append(self.group)
        else:
            idle += [] if trains else [self.censoring, self.resampling]
            idle += [self.parcellation, *([] if task == "attribution" else [self.explaining])]
        if not self.conditions.conditions or self.analysis_level == "group":
            idle.append(self.conditions)
        alone = (
            []
            if {FRAME, TOKEN} & set(self.encoding.embedding_level) or self.encoding.stage is None or task == "probe"
            else ["--stage"]
        )
        given = alone + [word for group in idle for word in as_words(group) if word.startswith("--")]
        if self.analysis_level == "group":
            defaults = GroupAnalysis()
            given += [
                f"--{each.name.replace('_', '-')}"
                for each, details in options_of(GroupAnalysis)
                if details.tasks and task not in details.tasks
                if getattr(self.group, each.name) != getattr(defaults, each.name)
            ]
            if task == "probe":  # which can be kept as a model too
                given = [word for word in given if word != "--save-as"]
        return [word for word in given if word != "--grid"]  # which says in what space results are looked for

    @property
    def numbers(self) -> dict[str, Any]:
        """The options that embeddings and predictions depend on, beside grid and weights."""
        return self.changing("gridded", "numbers")

    def in_words(self, names: dict[str, Any]) -> dict[str, Any]:
        """Return options as one would type them: `None` becomes its word, such as native."""
        words = {each.name: details.word_for_none for _, g in self.groups() for each, details in options_of(type(g))}
        return {name: words.get(name) if value is None else value for name, value in names.items()}

    def as_words(self) -> list[str]:
        """Return the call: the command, its arguments, and the options that differ from their defaults."""
        words = ["neurostorm", str(self.bids_dir), str(self.out_dir), self.analysis_level]
        return words + [word for _, group in self.groups() for word in as_words(group)]

    def as_command(self) -> str:
        """Return the call as one types it."""
        return shlex.join(self.as_words())

    def as_toml(self) -> str:
        """Return all options as a file for --config-file; folders and level, which are arguments, as a comment."""
        lines = [f"# {shlex.join(self.as_words()[:4])}"]
        return "\n".join([*lines, *(line for _, group in self.groups() for line in as_toml(group))]) + "\n"

    @property
    def work(self) -> Path:
        """The work folder: the one given, or one in the output folder."""
        return self.resources.work_dir or self.out_dir / WORK
