"""A project's model as two files: weights as safetensors, the rest as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from envs.errors import DataError, shorten
from envs.models.frozen.fitting import Parameters
from envs.models.frozen.model import FrozenModel, predict
from envs.models.frozen.preparation import Transform
from envs.reading import parse_json, reading, typed

FORMAT = 1
WEIGHTS, CARD = "model.safetensors", "model.json"


@dataclass(frozen=True)
class LabelModel:
    """Classes of new samples from their raw features, by the model of a project."""

    classes: tuple[str, ...]
    modalities: tuple[str, ...]
    transforms: tuple[Transform, ...]
    parameters: Parameters  # of one model

    def predict_proba(self, features: Mapping[str, np.ndarray]) -> np.ndarray:
        """Probabilities [R, C].

        Args:
            features: modality -> [R, D] as at `init`; a modality that is left out counts as absent.

        Raises:
            DataError: on an unknown modality, or another number of features.
        """
        for name in features:
            if name not in self.modalities:
                raise DataError(f"The model knows no modality {name!r}; it has {', '.join(self.modalities)}.")
        counts = {len(x) for x in features.values()}
        if len(counts) != 1:
            raise DataError("Give features [R, D] of at least one modality, and of all for the same samples.")
        rows = counts.pop()
        width = self.parameters.encoder.shape[3] - 1
        x = np.zeros((1, len(self.modalities), width + 1, rows), np.float32)
        x[:, :, -1] = 1.0
        present = np.zeros((1, len(self.modalities), rows), bool)
        for m, (name, transform) in enumerate(zip(self.modalities, self.transforms, strict=True)):
            if name not in features:
                continue
            raw = np.asarray(features[name], np.float64)
            if raw.ndim != 2 or raw.shape[1] != len(transform.mean):
                raise DataError(
                    f"Modality {name!r} has shape {list(raw.shape)}; the model takes [R, {len(transform.mean)}]."
                )
            mapped = transform(raw)
            x[0, m, : mapped.shape[1]] = mapped.T
            present[0, m] = True
        outputs = predict(self.parameters, torch.from_numpy(x), torch.from_numpy(present))
        return outputs.probabilities[0].T.double().numpy()


def save_model(model: FrozenModel, classes: Sequence[str], folder: Path) -> None:
    """Write a project's own model, one of frozen features, into an existing folder.

    Raises:
        OSError: where it does not fit.
    """
    parameters, data = model.parameters, model.rows.data
    tensors = {name: getattr(parameters, name).contiguous() for name in Parameters.__dataclass_fields__}
    for modality, transform in zip(data.modalities, data.transforms, strict=True):
        for name in ("mean", "deviation", "basis"):
            if getattr(transform, name) is not None:
                tensors[f"{modality}/{name}"] = torch.from_numpy(np.ascontiguousarray(getattr(transform, name)))
        tensors[f"{modality}/scale"] = torch.tensor(transform.scale, dtype=torch.float64)
    try:
        save_file(tensors, folder / WEIGHTS)
    except SafetensorError as error:
        raise OSError(str(error)) from None
    card = {"format": FORMAT, "classes": classes, "modalities": data.modalities}
    (folder / CARD).write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def load_model(folder: str | Path) -> LabelModel:
    """Read a model that `export` wrote.

    Raises:
        DataError: where the files are missing or broken.
    """
    folder = Path(folder)
    with reading(folder, "holds no readable model ({reason})"):
        card = parse_json((folder / CARD).read_text(encoding="utf-8"))
        if card["format"] != FORMAT:
            raise DataError(f"{folder / CARD} has format {shorten(card['format'])}; this release reads {FORMAT}.")
        tensors = load_file(folder / WEIGHTS)
        parameters = Parameters(*(tensors[name] for name in Parameters.__dataclass_fields__))
        classes, modalities = (typed(tuple[str, ...], card[name]) for name in ("classes", "modalities"))
        transforms = tuple(_transform(tensors, modality) for modality in modalities)
        model = LabelModel(classes, modalities, transforms, parameters)
        _check(model, tensors)
        return model


def _check(model: LabelModel, tensors: Mapping[str, torch.Tensor]) -> None:
    """Refuse parts that do not fit together, which only a prediction would show."""
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise ValueError(f"{shorten(name)} holds {tensor.dtype}")
        if tensor.isnan().any():  # the deviation of a constant feature is infinite
            raise ValueError(f"{shorten(name)} holds NaN")
    encoder, head, joint = (getattr(model.parameters, name) for name in Parameters.__dataclass_fields__)
    if any(p.dtype != torch.float32 or not p.isfinite().all() for p in (encoder, head, joint)):
        raise ValueError("its weights are no finite numbers of 32 bits")
    if (encoder.ndim, head.ndim, joint.ndim) != (4, 4, 3):
        raise ValueError("its weights are of another shape")
    _, m, hidden, width = encoder.shape
    classes = len(model.classes)
    expected = ((1, len(model.modalities), hidden, width), (1, m, classes, head.shape[3]), (1, classes, joint.shape[2]))
    if (encoder.shape, head.shape, joint.shape) != expected or joint.shape[2] != m * head.shape[3]:
        raise ValueError(f"its weights do not fit {len(model.modalities)} modalities and {classes} classes")
    for name, transform in zip(model.modalities, model.transforms, strict=True):
        if transform.mean.ndim != 1:
            raise ValueError(f"the mean of {shorten(name)} is no list of numbers")
        made = transform(np.zeros((1, len(transform.mean))))
        if transform.deviation.shape != transform.mean.shape or made.ndim != 2 or made.shape[1] >= width:
            raise ValueError(f"the features of {shorten(name)} do not fit its weights")
    model.predict_proba({name: t.mean[None] for name, t in zip(model.modalities, model.transforms, strict=True)})


def _transform(tensors: Mapping[str, torch.Tensor], modality: str) -> Transform:
    parts: Sequence[str] = ("mean", "deviation")
    mean, deviation = (tensors[f"{modality}/{name}"].numpy() for name in parts)
    basis = tensors.get(f"{modality}/basis")
    return Transform(mean, deviation, None if basis is None else basis.numpy(), float(tensors[f"{modality}/scale"]))
