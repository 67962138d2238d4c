"""The Python interface: `ask` and `tell` from a script or a notebook, with any classifier.

from labelling.api import LabellingProject

project = LabellingProject("my_project", classifier=LogisticRegression())
while True:
    batch = project.ask(20)
    told = project.tell({row["id"]: look_at(row) for row in batch})
    print(told.progress.accuracy)
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from envs.errors import ConfigError, DataError
from envs.pools.classes import spelling
from labelling.answers import Answer
from labelling.asking import ask, shown_rows
from labelling.exporting import export
from labelling.model import Classifier
from labelling.progress import Progress, measure
from labelling.project import Project
from labelling.state import ANNOTATOR, SKIP, summary_of
from labelling.telling import Told, tell_answers

__all__ = ["SKIP", "LabellingProject", "undo"]


class LabellingProject:
    """A project folder that `run.py init` or `labelling.creating.create_project` made.

    Args:
        path: of the folder.
        classifier: anything with `fit` and `predict_proba`; copied and trained anew for every command, on the features
            of all modalities side by side. None: the multimodal model of this package.

    Raises:
        DataError: where the folder is no project.
    """

    def __init__(self, path: str | os.PathLike[str], classifier: Classifier | None = None):
        for method in ("fit", "predict_proba"):
            if classifier is not None and not callable(getattr(classifier, method, None)):
                raise ConfigError(
                    f"The classifier {classifier!r} has no method {method}; it needs fit and predict_proba."
                )
        self.project = Project(path)
        self.classifier = classifier

    def ask(self, batch_size: int = 50) -> list[dict[str, Any]]:
        """The next samples to label: id, text, picture and audio where there are any, predicted, confidence, why.

        The same batch comes again until one of its samples is answered.
        """
        return shown_rows(self.project, ask(self.project, batch_size, self.classifier))

    def tell(
        self,
        answers: Mapping[str, Any] | Iterable[Answer],
        annotator: str = ANNOTATOR,
        new_classes: Iterable[str] = (),
    ) -> Told:
        """Record labels by id, retrain, measure.

        Labels are texts or numbers, whole ones like 3 and 3.0 alike. Samples with None or NaN wait, as rows without a
        label do in a file; `SKIP` means "cannot tell".

        Raises:
            DataError: on an unknown id or class; nothing is recorded then. What goes wrong later, as in a classifier
                of your own, leaves the labels recorded.
        """
        if isinstance(answers, Mapping):
            answers = [
                Answer(str(sample), label, annotator or ANNOTATOR)
                for sample, given in answers.items()
                if (label := _label(str(sample), given))
            ]
        answers = list(answers)
        if not all(isinstance(answer, Answer) for answer in answers):
            raise ConfigError("Give answers as a mapping of ids to labels, or as labelling.answers.Answer.")
        return tell_answers(self.project, answers, list(new_classes), self.classifier)

    def status(self) -> Progress:
        """Figures of the model on the labels as they stand."""
        return measure(self.project, self.project.state(), None, self.classifier)

    def export(self, out: str | os.PathLike[str]) -> list[str]:
        """Write labels, predictions and the model into a folder; see `labelling.exporting`."""
        return export(self.project, Path(out), self.classifier)

    def undo(self) -> str:
        """Undo the last `ask` or `tell`; returns in words what that was."""
        return undo(self.project)


def _label(sample: str, given: object) -> str:
    """A label as a file would have it; "" for none."""
    try:
        if not isinstance(given, str):
            return spelling(given)
        return given if given.strip() else ""
    except DataError as error:
        raise DataError(f"Python ({sample!r}): {error} Nothing was recorded.") from None


def undo(project: Project) -> str:
    """Undo the last `ask` or `tell` that stands; returns in words what that was.

    Raises:
        ConfigError: where there is none.
    """
    with project.lock():
        event = project.state().undoable
        if event is None:
            raise ConfigError(f"{project.path}: there is nothing to undo.")
        project.journal.append("undo", undoes=event.n)
    return summary_of(event)
