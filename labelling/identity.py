"""Which sample a row is about: by its key, which nothing changes, or by its id, which a spreadsheet may change."""

from __future__ import annotations

from functools import cached_property
from hashlib import blake2b

from envs.errors import DataError, nearest, shown
from labelling.project import Project
from labelling.spreadsheets import Twins, same_letters, unguarded

KEY = "sample_key"  # column of a batch
_LETTERS = "bcdfghjklmnpqrstvwxz"  # no vowels: no word, month or truth value in any language, hence left alone
_LENGTH = 12
_LARGE = 20_000  # samples from which no similar id is searched for
_SHOWN = 3  # ids that a message names


class Identity:
    """The samples of a project as files name them."""

    def __init__(self, project: Project):
        self._rows = project.rows
        content = "\n".join(f"{modality} {checksum}" for modality, checksum in sorted(project.checksums.items()))
        self._salt = blake2b(content.encode(), digest_size=32).digest()

    def key(self, sample: str) -> str:
        """A word without meaning that stands for a sample of this project, and for no other."""
        number = int.from_bytes(blake2b(sample.encode(), key=self._salt, digest_size=16).digest())
        letters = []
        for _ in range(_LENGTH):
            number, letter = divmod(number, len(_LETTERS))
            letters.append(_LETTERS[letter])
        return "".join(letters)

    def find(self, written: str, key: str, is_cell: bool, place: str) -> str:
        """The id of the sample that a row is about.

        Args:
            written: the id as the row has it.
            key: as the row has it, "" for none.
            is_cell: whether a spreadsheet may have held the row.
            place: of the row, for messages.

        Raises:
            DataError: where it is no sample, may be several, or key and id disagree.
        """
        if not key:
            return self._by_id(written, is_cell, place)
        key = key.casefold()
        known = written in self._rows
        if known and self.key(written) == key:
            return written
        sample = self._by_key.get(key)
        if sample is None:
            raise DataError(
                f"{place}: {KEY} {shown(key)} belongs to no sample of this project; the file is another project's, or "
                "the column was changed. Take the batch's own file, or remove that column. Nothing was recorded."
            )
        # What is no sample's id may be whatever a spreadsheet has made of the right one.
        if known and sample not in self._twins.of(written):
            raise DataError(
                f"{place}: id {shown(written)}, but {KEY} is that of {shown(sample)}; were columns sorted or moved by "
                "themselves? Put them back, or take the batch's own file. Nothing was recorded."
            )
        return sample

    def _by_id(self, written: str, is_cell: bool, place: str) -> str:
        known = written in self._rows
        twins = self._twins.of(written, known) if is_cell or not known else []
        if known and not twins:
            return written
        if twins:
            may = " or ".join(shown(sample) for sample in ([written] if known else []) + twins[:_SHOWN])
            more = f" or {len(twins) - _SHOWN} others" if len(twins) > _SHOWN else ""
            raise DataError(
                f"{place}: id {shown(written)} may mean {may}{more}, for a spreadsheet rewrites such ids. Fill in the "
                f"batch's own file and keep its column {KEY}, or give Parquet. Nothing was recorded."
            )
        for other in (unguarded(written), self._by_letters.get(same_letters(written))):
            if other is not None and other in self._rows:
                return other
        hint = nearest(written, self._rows) if len(self._rows) <= _LARGE else ""
        raise DataError(f"{place}: no sample has the id {shown(written)}.{hint} Nothing was recorded.")

    @cached_property
    def _by_key(self) -> dict[str, str]:
        return {self.key(sample): sample for sample in self._rows}

    @cached_property
    def _by_letters(self) -> dict[str, str | None]:
        """Ids by their `same_letters`; None where several look the same."""
        found: dict[str, str | None] = {}
        for sample in self._rows:
            letters = same_letters(sample)
            found[letters] = None if letters in found else sample
        return found

    @cached_property
    def _twins(self) -> Twins:
        return Twins(self._rows)
