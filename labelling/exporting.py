"""`export`: labels, predictions for what has none, and the model, as files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import csv

from envs.files import data_errors, new_folder
from envs.models.frozen.model import FrozenModel
from labelling.model import Classifier, Model, labels_of, prepare_rows
from labelling.model_file import save_model
from labelling.project import Project
from labelling.state import SKIP
from labelling.tables import table_text

MARK = "export.json"  # tells an export, which the next one may replace, from somebody's folder


def export(project: Project, out: Path, classifier: Classifier | None = None) -> list[str]:
    """Write a folder whole or not at all; an earlier export in its place is replaced. Returns the files' names.

    Without the features of `init` it is labels.csv alone.

    labels.csv has id, label (the majority's; empty where skipped or tied), disputed and votes; predictions.csv, once
    two classes have labels, has id, predicted, confidence and a column p_<class> for every sample without a label;
    model/ is read by `labelling.model_file.load_model`.

    Raises:
        DataError: where `out` is a folder that no export wrote.
    """
    taken = f"{out} exists and is no earlier export; choose another --out."
    written = ["labels.csv"]
    with data_errors(out.absolute(), taken), new_folder(out, lambda path: (path / MARK).is_file()) as folder:
        state = project.state()
        labels = labels_of(project, state) if project.sound else None
        rows = [
            {
                "id": sample,
                "label": result.label or "",
                "disputed": "yes" if result.disputed else "",
                "votes": json.dumps(
                    {who: SKIP if vote is None else vote for who, vote in state.votes[sample].items()},
                    ensure_ascii=False,
                ),
            }
            for sample, result in state.verdicts().items()
        ]
        (folder / "labels.csv").write_text(table_text(("id", "label", "disputed", "votes"), rows), "utf-8", newline="")
        if labels is not None and labels.enough:
            known = np.concatenate([labels.rows, labels.held_rows])
            unknown = np.setdiff1d(np.arange(project.pool.num_samples), known)
            data = prepare_rows(project, labels, state.batches_ever, others=unknown)
            model = Model(data, labels, classifier)
            _write_predictions(project, model, unknown, folder / "predictions.csv")
            written.append("predictions.csv")
            if classifier is None and isinstance(model.model, FrozenModel):
                (folder / "model").mkdir()
                save_model(model.model, model.labels.names, folder / "model")
                written.append("model")
        mark = {"project": project.settings.name, "classes": state.classes}
        (folder / MARK).write_text(json.dumps(mark, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return written


def _write_predictions(project: Project, model: Model, rows: np.ndarray, file: Path) -> None:
    p = model.probabilities(rows)[:, : len(model.labels.names)]
    names = np.array(model.labels.names)
    columns = {"id": project.pool.ids[rows], "predicted": names[p.argmax(1)], "confidence": p.max(1).round(4)}
    columns |= {f"p_{name}": p[:, c].round(4) for c, name in enumerate(model.labels.names)}
    csv.write_csv(pa.table(columns), file)
