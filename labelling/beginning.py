"""What a new project begins with: its classes, the labels that exist already, and the rows that only measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from envs.errors import DataError
from envs.pools import Pool, checks, classes
from envs.pools.copies import copies_in
from envs.randomness import stream
from labelling.project import Settings
from labelling.state import ANNOTATOR, SKIP

Entry = list[str | int | None]  # of an event "told": id, label, annotator, file, row


@dataclass(frozen=True)
class Beginning:
    """What `init` makes of samples.

    Args:
        pool: its split says which rows measure, where it has one.
        labels: existing ones, [N]; "" for none.
        settings: the classes among them, by whatever spelling.
        source: where the samples come from, for messages.
        declared: names that a pool declares as classes; those that have labels become classes of the project.
    """

    pool: Pool
    labels: Sequence[str]
    settings: Settings
    source: str
    declared: Sequence[str] = ()

    @cached_property
    def vocabulary(self) -> classes.Vocabulary:
        """The classes: those of the settings, or those of the labels.

        Raises:
            DataError: where a label is none of them, or is not certain to be one.
        """
        return self._read[0]

    @property
    def fixed(self) -> tuple[str, ...]:
        """The classes of the settings in their one spelling.

        Raises:
            DataError: where two of them are one.
        """
        return classes.declared(self.settings.classes, "--classes")

    @property
    def told(self) -> list[Entry]:
        """Entries of an event "told" for the labels.

        Raises:
            DataError: as `vocabulary`.
        """
        return self._read[1]

    @cached_property
    def _read(self) -> tuple[classes.Vocabulary, list[Entry]]:
        given = [label for label in self.labels if label.lower() != SKIP]
        vocabulary = classes.Vocabulary(
            self.fixed, closed=bool(self.fixed), declare="--classes", counts=classes.spellings(given)
        )
        for name in () if self.fixed else self.declared:
            vocabulary.declare(name)
        told: list[Entry] = []
        for row, (sample, label) in enumerate(zip(self.pool.ids.tolist(), self.labels, strict=True)):
            if not label:
                continue
            found = None
            if label.lower() != SKIP:
                try:
                    found = vocabulary.find(label)
                except DataError as error:
                    raise DataError(f"{self.source}, row {row + 2}: {error}") from None
            told.append([sample, found, ANNOTATOR, 0, row + 2])
        return vocabulary, told

    @cached_property
    def split(self) -> np.ndarray:
        """0, or 1 for rows that only measure, int8 [N]; whole units, at random, unless the pool says which."""
        pool, settings = self.pool, self.settings
        if pool.split is not None:
            return (pool.split != checks.TRAIN).astype(np.int8)
        rng = stream(settings.seed, "labelling: measuring rows")
        units = _units(pool, copies_in(pool))
        sizes = np.bincount(units)
        order = rng.permutation(len(sizes))
        before = np.cumsum(sizes[order]) - sizes[order]
        held = np.zeros(len(sizes), bool)
        held[order] = before + sizes[order] / 2 < settings.validation * pool.num_samples
        return held[units].astype(np.int8)

    def notes(self) -> list[str]:
        """What a person should know of the samples before labelling begins."""
        notes = []
        copies = copies_in(self.pool)
        copied = copies != np.arange(len(copies))
        if copied.any():
            count = f"{int(copied.sum()):,} samples are exact copies of others ({int((~copied).sum()):,} differ)"
            sides = np.zeros((2, len(copies)), bool)
            sides[self.split, copies] = True
            across = int((sides[0] & sides[1])[copies].sum())
            if across:
                count += (
                    f"; the split puts {across:,} of them on both sides, which makes the accuracy look better than it "
                    "is: give copies the same split"
                )
            else:
                count += "; they are never divided between learning and measuring"
            notes.append(f"copies          {count}")
        for label, name in self.vocabulary.read_as.items():
            notes.append(f"read as         {label} as the class {name}")
        for m, modality in enumerate(self.pool.modalities):
            if _is_constant(self.pool, modality, self.pool.present[:, m]):
                notes.append(f"constant        {modality}: the same numbers in every sample; it tells nothing")
        return notes


def _units(pool: Pool, copies: np.ndarray) -> np.ndarray:
    """Numbers from 0 of what is never divided: groups, and samples with the same features, int64 [N]."""
    units = np.arange(pool.num_samples) if pool.group is None else np.unique(pool.group, return_inverse=True)[1]
    copied = np.flatnonzero(copies != np.arange(len(copies)))
    if not len(copied):
        return units
    links = coo_array((np.ones(len(copied)), (units[copied], units[copies[copied]])), shape=(units.max() + 1,) * 2)
    return connected_components(links, directed=False)[1][units]


def _is_constant(pool: Pool, modality: str, present: np.ndarray) -> bool:
    rows = np.flatnonzero(present)
    x = pool.features[modality]
    first = np.asarray(x[rows[:1]])
    return all(
        (block[present[start : start + len(block)]] == first).all() for start, block in checks.blocks(x) if len(first)
    )
