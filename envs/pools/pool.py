"""The pool: every sample of a data set with its features, labels and presence of modalities."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from envs.errors import DataError
from envs.names import is_storable
from envs.pools import checks, classes


@dataclass(frozen=True, eq=False)
class Pool:
    """All samples of one data set. Validated on construction; the arrays are read-only.

    Attributes:
        name: what tables and run folders call the data set.
        features: modality -> [N, D_m], floating or integer, may be memory-mapped. Rows whose
            modality is absent may hold anything; `take` returns zeros for them.
        present: bool [N, M], columns in the order of `features`.
        labels: int64 [N], index into `class_names`, -1 where unknown.
        class_names: one name per class.
        ids: str [N], unique and stable; labels and journals refer to samples by id.
        split: int8 [N] (0 train, 1 validation, 2 test) or None where the data set fixes none.
        group: str [N] or None; samples of one group (a subject, say) never serve in two roles.
        text: str [N] or None; a form of the sample that a person can read.
        picture: str [N] or None; path of a small picture of the sample, "" where there is none.
            The files are optional: they may be missing, which is noticed when one is opened.
        licence, source, notes: where the data comes from and on which terms.

    Raises:
        DataError: naming the modality, the row and its id, the value, and what to do.
    """

    name: str
    features: dict[str, np.ndarray]
    present: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    ids: np.ndarray
    split: np.ndarray | None = None
    group: np.ndarray | None = None
    text: np.ndarray | None = None
    picture: np.ndarray | None = None
    licence: str = ""
    source: str = ""
    notes: str = ""

    def __post_init__(self) -> None:
        features, columns = self._checked_features(), self._columns()
        checks.check_lengths(features, columns)
        ids, names = columns["ids"], classes.declared(self.class_names)
        checks.check_ids(ids)
        checks.check_presence(columns["present"], len(features), ids)
        columns["labels"] = checks.checked_labels(columns["labels"], names, ids)
        for field in ("name", "licence", "source", "notes"):
            if not is_storable(str(getattr(self, field))):
                raise DataError(f"The pool's {field} holds half a character; write it anew.")
        if "split" in columns:
            columns["split"] = checks.checked_split(columns["split"], ids)
        if "group" in columns:
            checks.check_groups(columns["group"], ids)
        for m, (modality, x) in enumerate(features.items()):
            checks.check_finite(modality, x, columns["present"][:, m], ids)

        object.__setattr__(self, "features", features)  # the dataclass is frozen
        object.__setattr__(self, "class_names", names)
        for field, values in columns.items():
            object.__setattr__(self, field, _read_only(values))

    def _checked_features(self) -> dict[str, np.ndarray]:
        if not self.features:
            raise DataError(f"Pool '{self.name}' has no modality; give at least one [N, D] array.")
        features = {str(m): _read_only(np.asanyarray(x)) for m, x in self.features.items()}
        for modality, x in features.items():
            checks.check_matrix(modality, x)
        first, x = next(iter(features.items()))
        if len(x) == 0:
            raise DataError(f"Pool '{self.name}' has no samples; modality '{first}' is empty.")
        return features

    def _columns(self) -> dict[str, np.ndarray]:
        """All other arrays that were given, unchecked."""
        columns = {
            "present": np.asarray(self.present),
            "labels": np.asarray(self.labels),
            "ids": checks.strings("id", self.ids),
        }
        if self.split is not None:
            columns["split"] = np.asarray(self.split)
        for field in ("group", "text", "picture"):
            if getattr(self, field) is not None:
                columns[field] = checks.strings(field, getattr(self, field))
        return columns

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities, in the order of the columns of `present`."""
        return tuple(self.features)

    @property
    def num_samples(self) -> int:
        """N, the number of rows."""
        return len(self.ids)

    @property
    def num_classes(self) -> int:
        """C, the number of class names (a class may have no labelled sample yet)."""
        return len(self.class_names)

    def take(self, modality: str, rows: np.ndarray) -> np.ndarray:
        """Features of `rows` as a fresh float64 [len(rows), D_m]; zeros where absent."""
        x = self.features[modality][rows].astype(np.float64)
        x[~self.present[rows, self.modalities.index(modality)]] = 0
        return x

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of all that can change a result: features, presence, labels, class
        names, ids, split and groups. Independent of the file format, the name, `text` and `picture`."""
        digest = hashlib.sha256(json.dumps(self.class_names).encode())
        for field in ("present", "labels", "ids", "split", "group"):
            values = getattr(self, field)
            if values is None:
                continue
            # Strings go in as JSON: how wide numpy stores them depends on the other rows.
            text = values.dtype.kind == "U"
            digest.update(json.dumps([field, list(values.shape)]).encode())
            digest.update(json.dumps(values.tolist()).encode() if text else _bytes(values))
        for m, (modality, x) in enumerate(self.features.items()):
            kind = x.dtype.newbyteorder("<").str
            digest.update(json.dumps(["feature", modality, list(x.shape), kind]).encode())
            for start, block in checks.blocks(x):
                absent = ~self.present[start : start + len(block), m]
                # Whatever stands in an absent row is no content.
                digest.update(_bytes(np.where(absent[:, None], x.dtype.type(0), block)))
        return digest.hexdigest()


def _bytes(array: np.ndarray) -> memoryview:
    """The values in C order and one byte order on all platforms."""
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).data.cast("B")


def _read_only(array: np.ndarray) -> np.ndarray:
    view = array.view()
    view.flags.writeable = False
    return view
