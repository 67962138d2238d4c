"""Where a project stands: accuracy on the measuring rows, balance, and whether labelling on still pays."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError
from scipy.stats import binomtest

from envs.errors import DataError
from labelling.events import Trained
from labelling.model import Classifier, Labels, Model, labels_of, prepare_rows
from labelling.project import Project
from labelling.state import State

STABLE = 0.99  # agreement of successive models from which predictions count as stable, and
WINDOW = 3  # over how many tells: Bloodgood and Vijay-Shanker (CoNLL 2009)
CONFIDENT = 0.9  # mean confidence from which little is left to ask; cf. Zhu et al. (ACM TSLP 2010)
SMALL = 5  # labels that a tell must bring to count: after fewer, models agree because they are nearly the same
FEW = 30  # measuring labels below which an accuracy is a guess


@dataclass(frozen=True)
class Progress:
    """Figures after a `tell`. Accuracies are fractions of 1; None where they are not known."""

    training_labels: int
    measuring_labels: int
    skipped: int  # answered "cannot tell", or tied
    unanswered: int
    classes: dict[str, int]  # labels by class, those that measure included
    correct: int | None = None  # of the measuring labels
    correct_before: int | None = None  # of the same ones, by the model before this tell
    class_accuracy: dict[str, list[int]] = field(default_factory=dict)  # class -> correct, measured
    modality_accuracy: dict[str, float] = field(default_factory=dict)  # of each modality's own head
    modality_weight: dict[str, float] = field(default_factory=dict)  # AMCB (RL-MBA, section 3)
    class_correct_before: dict[str, int] = field(default_factory=dict)  # by the model before this tell
    modality_accuracy_before: dict[str, float] = field(default_factory=dict)
    agreement: float | None = None  # Cohen's kappa of this model's and the last one's predictions on the stop set
    confidence: float | None = None  # mean confidence on the stop set
    measured: int | None = None  # measuring labels that the accuracies rest on; None: all of them
    at_random: bool = True  # whether those were drawn at random, and not just there

    @property
    def labels(self) -> int:
        return self.training_labels + self.measuring_labels

    @property
    def accuracy(self) -> float | None:
        return None if self.correct is None else self.correct / self.measured_labels

    @property
    def measured_labels(self) -> int:
        return self.measuring_labels if self.measured is None else self.measured

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % confidence interval of the accuracy (Wilson): low, high. None where no row was drawn at random."""
        if self.correct is None or not self.at_random:
            return None
        found = binomtest(self.correct, self.measured_labels).proportion_ci(method="wilson")
        return float(found.low), float(found.high)


_PROGRESS = TypeAdapter(Progress)


def measure(
    project: Project, state: State, before: Labels | None = None, classifier: Classifier | None = None
) -> Progress:
    """Train on the labels as they stand and measure.

    Args:
        before: the labels before this tell, whose model is compared; None leaves the comparison out.
        classifier: in place of the project's own model.
    """
    labels = labels_of(project, state)
    counts = Counter(labels.names[c] for c in np.concatenate([labels.classes, labels.held_classes]))
    figures: dict[str, Any] = {
        "training_labels": len(labels.rows),
        "measuring_labels": len(labels.held_rows),
        "skipped": len(labels.closed),
        "unanswered": project.pool.num_samples - len(state.votes),
        "classes": {name: counts[name] for name in labels.names},
    }
    if not labels.enough:
        return Progress(**figures)
    data = prepare_rows(project, labels, state.batches_ever, others=None if before is None else before.rows)
    labels, figures["at_random"] = _drawn(project, state, labels)
    if len(labels.held_rows) < figures["measuring_labels"]:
        figures["measured"] = len(labels.held_rows)
    model = Model(data, labels, classifier)
    p = model.probabilities(data.stop_set)
    figures["confidence"] = float(p.max(1).mean())
    if model.measured:
        correct = _correct_by_class(model)
        counts = np.bincount(labels.held_classes, minlength=len(labels.names)).tolist()
        figures["correct"] = sum(correct)
        figures["class_accuracy"] = {n: list(pair) for n, *pair in zip(labels.names, correct, counts, strict=True)}
        figures["modality_accuracy"] = _measured_heads(model)
        weights = model.weights[0].tolist()
        figures["modality_weight"] = dict(zip(project.pool.modalities, weights, strict=True))
    if before is not None and before.enough:
        # Measured on what measures now, so that a difference is the model's.
        earlier = Model(data, replace(before, held_rows=labels.held_rows, held_classes=labels.held_classes), classifier)
        figures["agreement"] = kappa(p.argmax(1), earlier.probabilities(data.stop_set).argmax(1))
        if model.measured:
            correct = _correct_by_class(earlier)
            figures["correct_before"] = sum(correct)
            figures["class_correct_before"] = dict(zip(labels.names, correct, strict=True))
            figures["modality_accuracy_before"] = _measured_heads(earlier)
    return Progress(**figures)


def _drawn(project: Project, state: State, labels: Labels) -> tuple[Labels, bool]:
    """The labels with those measuring ones that were drawn at random, and True; where there are none, all, and False.

    `ask` draws what measures. Labels that somebody happened to have say how the model does on what somebody happened to
    label, unless every measuring sample has an answer.
    """
    held = set(np.flatnonzero(project.held_out).tolist())
    if held <= {*labels.held_rows.tolist(), *labels.closed.tolist()}:
        return labels, True
    asked = state.asked()
    drawn = np.array([sample in asked for sample in project.pool.ids[labels.held_rows].tolist()], bool)
    if not drawn.any():
        return labels, not len(drawn)
    return replace(labels, held_rows=labels.held_rows[drawn], held_classes=labels.held_classes[drawn]), True


def _correct_by_class(model: Model) -> list[int]:
    """How many measuring samples of each class the model gets right."""
    rows, classes = model.labels.held_rows, model.labels.held_classes
    right = model.probabilities(rows).argmax(1) == classes
    return np.bincount(classes[right], minlength=model.data.num_classes).tolist()


def _measured_heads(model: Model) -> dict[str, float]:
    """Accuracy by modality, without those that no measuring sample has."""
    if model.modality_accuracy is None:
        return {}
    pool = model.data.pool
    there = pool.present[model.labels.held_rows].any(0)
    return {m: a for m, a, any_ in zip(pool.modalities, model.modality_accuracy, there, strict=True) if any_}


def kappa(a: np.ndarray, b: np.ndarray) -> float:
    """Cohen's kappa of two labellings [n]; 1 where both are one and the same class throughout."""
    observed = float((a == b).mean())
    values = np.union1d(a, b)
    chance = float(sum((a == v).mean() * (b == v).mean() for v in values))
    return 1.0 if chance >= 1 else (observed - chance) / (1 - chance)


def history(state: State) -> list[Progress]:
    """Progress after each tell that was not undone.

    Raises:
        DataError: where the journal's figures are none, or hold some that this release does not know.
    """
    return [_read(event) for event in state.trainings]


def _read(event: Trained) -> Progress:
    unknown = [name for name in event.progress if name not in {field.name for field in fields(Progress)}]
    if unknown:
        raise DataError(
            f"Event {event.n} of the journal has the figure {unknown[0][:60]!r}, which is unknown to this release; "
            "use the one that wrote it, or a newer one. The labels themselves can be read: export gives them."
        )
    try:
        return _PROGRESS.validate_python(event.progress)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise DataError(
            f"Event {event.n} of the journal holds no figures ({where}: {problem['msg']}); restore the journal from a "
            "copy. The labels themselves can be read: export gives them."
        ) from None


def advice(past: list[Progress], progress: Progress) -> str:
    """Whether labelling on still pays, and what says so.

    Args:
        past: after each tell.
        progress: now.
    """
    if progress.confidence is None:
        return "Too early to tell: the model needs labels of two classes."
    steps = [now for now, brought in zip(past, _brought(past), strict=True) if brought >= SMALL]
    said = [p.agreement for p in steps[-WINDOW:] if p.agreement is not None]
    if len(said) < WINDOW:
        return f"Too early to tell: predictions are compared over {WINDOW} tells that bring {SMALL} labels or more."
    mean, confidence = float(np.mean(said)), progress.confidence
    words = f"successive models agree at kappa {mean:.3f} (stable from {STABLE}), mean confidence {confidence:.2f}"
    if mean >= STABLE and confidence >= CONFIDENT:
        return f"Further labels will probably change little: {words}."
    if mean >= STABLE:
        return f"Predictions have settled, though not confidently; new kinds of samples may still help: {words}."
    return f"Labelling on still pays: {words}."


def _brought(past: list[Progress]) -> list[int]:
    """How many labels came with each tell; before the first one there may have been some."""
    return [SMALL, *(now.labels - last.labels for last, now in pairwise(past))] if past else []


def in_lines(progress: Progress, past: list[Progress]) -> list[str]:
    """The figures as lines of text."""
    p = progress
    lines = [
        f"labels          {p.training_labels} to learn from, {p.measuring_labels} to measure by, {p.skipped} without a "
        f"label (skipped or tied), {p.unanswered} samples unanswered"
    ]
    if p.classes:
        lines.append("classes         " + ", ".join(f"{name}: {count}" for name, count in p.classes.items()))
    if p.confidence is None:
        return [*lines, "accuracy        not yet: labels of two classes are needed"]
    if p.correct is None:
        lines.append("accuracy        not known: no measuring sample has a label yet")
        return [*lines, f"advice          {advice(past, p)}"]
    lines.append(f"accuracy        {_accuracy(p)}")
    lines.append("  per class     " + ", ".join(_class_line(p, name) for name, (_, n) in p.class_accuracy.items() if n))
    lines.append("  per modality  " + ", ".join(_modality_line(p, name) for name in p.modality_accuracy))
    if len(p.modality_accuracy) > 1:
        lines.append(f"  balance       {_balance(p)}")
    return [*lines, f"advice          {advice(past, p)}"]


def _accuracy(p: Progress) -> str:
    n, change = p.measured_labels, (p.correct or 0) - (p.correct_before or 0)
    gain = "" if p.correct_before is None else f", {_points(change, n)} by this"
    if p.interval is None:
        return (
            f"{p.accuracy:.1%}{gain}, but of these {n} measuring labels none was drawn at random: the figure says "
            "nothing of other samples; answer what `ask` draws to measure"
        )
    low, high = p.interval
    few = f" (only {n} measuring labels)" if n < FEW else ""
    if n < p.measuring_labels:
        few = f" (on the {n} measuring labels that were drawn at random)"
    return f"{p.accuracy:.1%} [{low:.1%}, {high:.1%}]{gain}{few}"


def _points(difference: float, of: float = 1) -> str:
    return f"{100 * difference / of:+.1f} points"


def _class_line(p: Progress, name: str) -> str:
    right, n = p.class_accuracy[name]
    change = right - p.class_correct_before.get(name, right)
    return f"{name}: {right}/{n}" + (f" ({change:+d})" if change else "")


def _modality_line(p: Progress, name: str) -> str:
    now, before = p.modality_accuracy[name], p.modality_accuracy_before.get(name)
    change = "" if before is None else f"{_points(now - before)}, "
    return f"{name} {now:.1%} ({change}weight {p.modality_weight[name]:.2f})"


def _balance(p: Progress) -> str:
    """How far the weakest modality is behind the strongest."""
    weak, strong = (of(p.modality_accuracy, key=p.modality_accuracy.__getitem__) for of in (min, max))
    gap = p.modality_accuracy[strong] - p.modality_accuracy[weak]
    words = f"{weak} is {100 * gap:.1f} points behind {strong}" if gap else "the modalities are level"
    if not p.modality_accuracy_before:
        return words
    before = p.modality_accuracy_before.values()
    return f"{words}; before this the gap was {100 * (max(before) - min(before)):.1f}"
