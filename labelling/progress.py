"""Where a project stands: accuracy on the measuring rows, balance, and whether labelling on still pays."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.stats import binomtest

from labelling.learning import Classifier, Labels, Model, labels_of, prepare_rows
from labelling.project import Project
from labelling.state import State

STABLE = 0.99  # agreement of successive models from which predictions count as stable, and
WINDOW = 3  # over how many tells: Bloodgood and Vijay-Shanker (CoNLL 2009)
CONFIDENT = 0.9  # mean confidence from which little is left to ask; cf. Zhu et al. (ACM TSLP 2010)
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
    agreement: float | None = None  # Cohen's kappa of this model's and the last one's predictions on the stop set
    confidence: float | None = None  # mean confidence on the stop set

    @property
    def accuracy(self) -> float | None:
        return None if self.correct is None else self.correct / self.measuring_labels

    @property
    def interval(self) -> tuple[float, float] | None:
        """Of the accuracy, 95 % (Wilson)."""
        if self.correct is None:
            return None
        found = binomtest(self.correct, self.measuring_labels).proportion_ci(method="wilson")
        return found.low, found.high


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
    data = prepare_rows(project, labels, state.batches_ever)
    model = Model(data, labels, classifier)
    p = model.probabilities(data.stop_set)
    figures["confidence"] = float(p.max(1).mean())
    if model.measured:
        right = model.probabilities(labels.held_rows).argmax(1) == labels.held_classes
        figures["correct"] = int(right.sum())
        figures["class_accuracy"] = {
            name: [int(right[labels.held_classes == c].sum()), int((labels.held_classes == c).sum())]
            for c, name in enumerate(labels.names)
        }
        figures["modality_accuracy"] = dict(zip(project.pool.modalities, model.modality_accuracy, strict=True))
        figures["modality_weight"] = dict(zip(project.pool.modalities, model.round.weights[0].tolist(), strict=True))
    if before is not None and before.enough and set(before.rows) <= set(data.working):
        earlier = Model(data, before, classifier)
        figures["agreement"] = kappa(p.argmax(1), earlier.probabilities(data.stop_set).argmax(1))
        if model.measured:
            known = earlier.probabilities(labels.held_rows).argmax(1) == labels.held_classes
            figures["correct_before"] = int(known.sum())
    return Progress(**figures)


def kappa(a: np.ndarray, b: np.ndarray) -> float:
    """Cohen's kappa of two labellings [n]; 1 where both are one and the same class throughout."""
    observed = float((a == b).mean())
    values = np.union1d(a, b)
    chance = float(sum((a == v).mean() * (b == v).mean() for v in values))
    return 1.0 if chance >= 1 else (observed - chance) / (1 - chance)


def history(state: State) -> list[Progress]:
    """Progress after each tell that was not undone."""
    return [Progress(**event["progress"]) for event in state.trainings]


def advice(past: list[Progress]) -> str:
    """Whether labelling on still pays, and what says so."""
    if not past or past[-1].confidence is None:
        return "Too early to tell: the model needs labels of two classes."
    now = past[-1]
    said = [p.agreement for p in past[-WINDOW:] if p.agreement is not None]
    if len(said) < WINDOW:
        return "Too early to tell: predictions are compared over three tells."
    mean = float(np.mean(said))
    stable, confident = mean >= STABLE, now.confidence >= CONFIDENT
    words = f"successive models agree at kappa {mean:.3f} (stable from {STABLE}), mean confidence {now.confidence:.2f}"
    if stable and confident:
        return f"Further labels will probably change little: {words}."
    if stable:
        return f"Predictions have settled, though not confidently; new kinds of samples may still help: {words}."
    return f"Labelling on still pays: {words}."


def in_lines(progress: Progress, past: list[Progress]) -> list[str]:
    """The figures as lines of text."""
    p = progress
    lines = [
        f"labels          {p.training_labels} to learn from, {p.measuring_labels} to measure by, {p.skipped} without a "
        f"label (skipped or tied), {p.unanswered} samples unanswered"
    ]
    if p.classes:
        lines.append("classes         " + ", ".join(f"{name} {count}" for name, count in p.classes.items()))
    if p.confidence is None:
        return [*lines, "accuracy        not yet: labels of two classes are needed"]
    if p.correct is None:
        lines.append("accuracy        not known: no measuring sample has a label yet")
        return [*lines, f"advice          {advice(past)}"]
    low, high = p.interval
    change = "" if p.correct_before is None else f", {(p.correct - p.correct_before) / p.measuring_labels:+.1%} by this"
    few = f" (only {p.measuring_labels} measuring labels)" if p.measuring_labels < FEW else ""
    lines.append(f"accuracy        {p.accuracy:.1%} [{low:.1%}, {high:.1%}]{change}{few}")
    by_class = [f"{name} {right}/{n}" for name, (right, n) in p.class_accuracy.items() if n]
    lines.append("  per class     " + ", ".join(by_class))
    heads = [f"{m} {value:.1%} (weight {p.modality_weight[m]:.2f})" for m, value in p.modality_accuracy.items()]
    lines.append("  per modality  " + ", ".join(heads))
    return [*lines, f"advice          {advice(past)}"]
