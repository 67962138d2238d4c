"""`ask`: which samples to label next."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch

from envs.candidates import offer
from envs.errors import ConfigError
from envs.files import write_text
from envs.pools.copies import first_copies
from envs.randomness import round_stream, stream
from labelling.events import Asked
from labelling.explanations import COVERS, MEASURES, in_words
from labelling.identity import KEY, Identity
from labelling.model import Classifier, Data, Labels, Model, labels_of, prepare_rows
from labelling.project import Project
from labelling.spreadsheets import guarded
from labelling.state import State
from labelling.tables import for_spreadsheets, table_text
from policies.policy_file import load_policy, pretrained_policy
from policies.strategies.clustering import cluster_count, clusters_of, typical_of_clusters

# Columns of a batch beside what it shows. A key behind the labels keeps spreadsheets from cutting off empty ones.
ANSWERS = ("predicted", "confidence", "why", "label", KEY)


def ask(project: Project, batch_size: int, classifier: Classifier | None = None) -> Asked:
    """The next batch as the event that records it; written for people to fill in as `Project.batch_file` names it.

    While no sample of the last batch has an answer, that batch is the next one, whatever its size. A file that is
    there already is left alone: somebody may be filling it in.

    Raises:
        ConfigError: on a batch size below 1, or where nothing is left.
    """
    if batch_size < 1:
        raise ConfigError(f"The batch is {batch_size} samples; it must be at least 1.")
    with project.lock():
        state = project.state()
        event = state.waiting()
        if event is None:
            rows = choose(project, state, batch_size, classifier)
            number = state.batches_ever + 1
            event = cast(Asked, project.journal.append("asked", batch=number, rows=rows))
        file = project.batch_file(event.batch)
        if not file.exists():
            write_text(file, _batch_text(project, event))
    return event


def _batch_text(project: Project, event: Asked) -> str:
    """A batch's file: what a person looks at, for a spreadsheet that runs nothing, and each sample's key."""
    identity = Identity(project)
    rows = []
    for row in shown_rows(project, event):
        cells = {name: guarded(value) if isinstance(value, str) else value for name, value in row.items()}
        rows.append(cells | {KEY: identity.key(row["id"])})
    return for_spreadsheets(table_text(("id", *project.shown_columns, *ANSWERS), rows))


def shown_rows(project: Project, event: Asked) -> list[dict[str, Any]]:
    """Rows of a batch with what a person may look at."""
    return [{"id": row["id"]} | project.show(project.row(row["id"])) | row for row in event.rows]


def choose(
    project: Project, state: State, batch_size: int, classifier: Classifier | None = None
) -> list[dict[str, Any]]:
    """The next batch, one entry per sample: id, predicted, confidence, why. Shorter where the samples run out.

    A share of the samples is drawn at random among the rows that only measure; the policy picks the others. Until two
    classes have labels there is nothing that a policy could go by: the picks then cover the pool.

    Raises:
        ConfigError: where nothing is left.
    """
    labels = labels_of(project, state)
    closed = np.concatenate([labels.rows, labels.held_rows, labels.closed])
    free = np.setdiff1d(np.arange(project.pool.num_samples), closed)
    if not len(free):
        raise ConfigError("Nothing is left to ask: every sample has an answer.")
    measuring = _measuring(project, labels, free[project.held_out[free]], batch_size)
    count = min(batch_size - len(measuring), int((~project.held_out[free]).sum()))
    data = prepare_rows(project, labels, state.batches_ever, batch_size, measuring)
    available = np.intersect1d(free, data.working)
    count = min(count, len(available))
    if not labels.enough:
        picked = _cover(data, labels, available, count)
        rows = np.concatenate([picked, measuring]).astype(np.int64)
        predicted = [""] * len(rows)
        confidence: list[Any] = [""] * len(rows)
        why = [COVERS] * len(picked)
    else:
        model = Model(data, labels, classifier, available)
        picked, why = _pick(project, model, count, batch_size)
        rows = np.concatenate([picked, measuring]).astype(np.int64)
        p = model.probabilities(rows)
        predicted = [labels.names[c] for c in p.argmax(1)]
        confidence = [round(float(value), 3) for value in p.max(1)]
    why = [*why, *[MEASURES] * len(measuring)]
    ids = project.pool.ids[rows].tolist()
    return [
        {"id": i, "predicted": c, "confidence": s, "why": w}
        for i, c, s, w in zip(ids, predicted, confidence, why, strict=True)
    ]


def _measuring(project: Project, labels: Labels, free: np.ndarray, batch_size: int) -> np.ndarray:
    """Rows that only measure for this batch: together with the earlier ones, their share of all the labels."""
    total = len(labels.rows) + len(labels.held_rows) + batch_size
    wanted = int(project.settings.validation * total + 1e-9) - len(labels.held_rows)
    order = stream(project.settings.seed, "labelling: measuring order").permutation(project.pool.num_samples)
    return free[np.argsort(order[free])][: min(max(wanted, 0), batch_size)]


def _pick(project: Project, model: Model, count: int, batch_size: int) -> tuple[np.ndarray, list[str]]:
    """The policy's picks and why."""
    if not count:
        return np.empty(0, np.int64), []
    selector, card = load_policy(project.policy or pretrained_policy())
    used = len(model.labels.rows) + len(model.labels.held_rows)
    round_ = model.round(used, project.settings.budget, batch_size)
    offered = offer(round_, count, card.candidates, selector.config.features)
    observation = offered.observation(entries=selector.entries)
    slots = selector.select(observation, count)
    positions = torch.take_along_dim(offered.positions, slots, 1)[0].numpy()
    return model.rows[positions], in_words(selector, observation, slots)


def _cover(data: Data, labels: Labels, available: np.ndarray, count: int) -> np.ndarray:
    """The most typical samples of the largest parts of the pool without a label (TypiClust, on the input features)."""
    if not count:
        return np.empty(0, np.int64)
    rows = np.union1d(available, labels.rows)
    labelled = torch.from_numpy(np.searchsorted(rows, np.sort(labels.rows)))[None]
    points = data.trainer.inputs(rows)[None]
    clusters = cluster_count(labelled.shape[1], count, len(rows))
    uniforms = torch.from_numpy(round_stream(data.seed, 0, "typiclust").random(clusters))[None]
    divided = clusters_of(points, uniforms)
    copies = first_copies(data.pool, rows)
    is_open = np.isin(rows, available)
    seen = set(copies[labelled[0].numpy()].tolist())
    picks = np.empty(0, np.int64)
    while len(picks) < count:  # no copy of a pick, or of what has a label, before everything else was picked
        free = np.flatnonzero(is_open)
        free = free[np.unique(copies[free], return_index=True)[1]]
        fresh = free[[copy not in seen for copy in copies[free].tolist()]]
        free = fresh if len(fresh) else free
        mask = torch.zeros(1, len(rows), dtype=torch.bool)
        mask[0, torch.from_numpy(free)] = True
        covered = torch.cat([labelled, torch.from_numpy(picks)[None]], 1)
        some = typical_of_clusters(points, divided, covered, mask, min(count - len(picks), len(free)))[0].numpy()
        picks = np.concatenate([picks, some])
        is_open[some] = False
        seen |= set(copies[some].tolist())
    return rows[picks]
