"""Side by side with scikit-activeml: what is picked, and how long it takes, on the same pool and model outputs.

    pip install scikit-activeml
    python -m benchmarks.peers [--repeats 5]

Both get the same embeddings and the same class probabilities of the same unlabelled samples; BADGE and FALCUN get the
same random numbers, CLUE the same k-means, ProbCover the same radius. Seconds are for choosing a batch, the forward
pass excluded for both; each pair is timed in turn, `repeats` times, on one core; the median of the ratios is printed.

Some definitions differ. scikit-activeml's BADGE counts the origin as a centre (a gradient's squared norm caps its
squared distance); the published one does not. Its FALCUN goes on from the distances that it scaled for the pick before;
the authors' code scales them anew. With those rules in our own computation (`badge, origin`; `falcun, scaled once`) the
picks agree. TypiClust clusters by k-means with random starts and scores typicality by 5 neighbours instead of 20,
ProbCover decides ties by other draws, and DropQuery draws other masks, drops the constant units too, does not scale
what is left and clusters what it drops from: their picks need not agree. It has no Uncertainty Herding yet.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from skactiveml.base import SkactivemlClassifier
from skactiveml.pool import (
    Badge,
    Clue,
    CoreSet,
    DropQuery,
    Falcun,
    MaxHerding,
    ProbCover,
    TypiClust,
    UncertaintySampling,
)

from benchmarks.selection import make_round
from envs.kmeanspp import draw_proportional, inner_products, k_means, squared_norms
from envs.models.frozen.trainer import FrozenConfig
from envs.round import Round
from envs.simulation import ProtocolConfig, Simulation
from envs.source import evaluation_starts, evaluation_trainer
from envs.sources import open_dataset
from policies.strategies import get_strategy
from policies.strategies.badge import gradient_factor
from policies.strategies.clustering import LLOYD_ITERATIONS, clusters_of
from policies.strategies.coverage import pure_radius, unit_inputs
from policies.strategies.falcun import GAMMA
from runtime import markdown

MISSING = -1


class Head(SkactivemlClassifier):
    """The task model's multimodal head as a classifier on embeddings [n, M H]."""

    def __init__(
        self,
        weights: np.ndarray,
        classes: np.ndarray | None = None,
        missing_label: int = MISSING,
        cost_matrix: np.ndarray | None = None,
        random_state: int | None = None,
    ):
        super().__init__(classes, missing_label, cost_matrix, random_state)
        self.weights = weights

    def fit(self, X: np.ndarray, y: np.ndarray, sample_weight: np.ndarray | None = None) -> Head:
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        return torch.softmax(torch.from_numpy(X @ self.weights.T), 1).numpy()

    def predict(self, X: np.ndarray) -> np.ndarray:
        return self.predict_proba(X).argmax(1)


class Draws:
    """Takes the place of a random state: draws by numbers given in advance."""

    def __init__(self, uniforms: np.ndarray):
        self.left = list(uniforms)

    def choice(self, a: Any, size: int, replace: bool = True, *, p: np.ndarray) -> np.ndarray:
        cumulative = np.cumsum(p)
        return np.array([np.searchsorted(cumulative, self.left.pop(0) * cumulative[-1], side="right")])


class GivenBadge(Badge):
    """Badge that draws by numbers given in advance, which begin with the second pick."""

    def __init__(self, uniforms: np.ndarray):
        super().__init__(missing_label=MISSING, random_state=0)
        self.uniforms = uniforms

    def _validate_data(self, *args: Any, **kwargs: Any) -> Any:
        checked = super()._validate_data(*args, **kwargs)
        self.random_state_ = Draws(self.uniforms[1:])
        return checked


class GivenFalcun(Falcun):
    """Falcun that draws by numbers given in advance."""

    def __init__(self, uniforms: np.ndarray):
        super().__init__(missing_label=MISSING, random_state=0)
        self.uniforms = uniforms

    def _validate_data(self, *args: Any, **kwargs: Any) -> Any:
        checked = super()._validate_data(*args, **kwargs)
        self.random_state_ = Draws(self.uniforms)
        return checked


class OurKMeans:
    """Our k-means as a clustering algorithm of theirs."""

    def __init__(self, n_clusters: int, uniforms: torch.Tensor):
        self.uniforms = uniforms

    def fit_transform(self, X: np.ndarray, y: None, sample_weight: np.ndarray) -> np.ndarray:
        """Distances of rows [n, H] to the centroids, [n, k]."""
        points, mass = torch.from_numpy(X.T)[None], torch.from_numpy(sample_weight)[None]
        everything = torch.ones(1, len(X), dtype=torch.bool)
        centroids, _, _ = k_means(points, everything, self.uniforms, LLOYD_ITERATIONS, mass)
        return torch.cdist(points.mT, centroids.mT)[0].numpy()


def theirs(name: str, round_: Round, batch: int) -> Callable[[], np.ndarray]:
    """scikit-activeml's query, ready to be called."""
    outputs = round_.outputs
    x = outputs.embedding()[0].T.double().numpy().copy()
    weights = round_.model.head[0].double().numpy()
    y = np.full(len(x), MISSING)
    y[round_.labelled[0].numpy()] = round_.labels[0].numpy()
    head = Head(weights, classes=np.arange(len(weights))).fit(x, y)
    if name == "badge":
        draws = round_.uniforms("badge", batch)[0].numpy()
        return lambda: GivenBadge(draws).query(x, y, head, False, batch_size=batch)
    if name == "falcun":
        draws = round_.uniforms("falcun", batch)[0].numpy()
        return lambda: GivenFalcun(draws).query(x, y, head, False, batch_size=batch)
    if name == "clue":
        given = {"uniforms": round_.uniforms("clue", batch)}
        clue = Clue(cluster_algo=OurKMeans, cluster_algo_dict=given, missing_label=MISSING, random_state=0)
        return lambda: clue.query(x, y, head, False, batch_size=batch)
    if name == "dropquery":
        drop_query = DropQuery(n_dropout_samples=3, missing_label=MISSING, random_state=0)
        return lambda: drop_query.query(x, y, head, False, batch_size=batch)
    if name in ("maxherding", "probcover"):
        points = unit_inputs(round_)
        rows = points[0].T.double().numpy().copy()
        if name == "maxherding":
            herding = MaxHerding(metric_dict={"gamma": 1.0}, missing_label=MISSING, random_state=0)
            return lambda: herding.query(rows, y, batch_size=batch)
        radius = pure_radius(points, clusters_of(points, replace(round_, index=0).uniforms("probcover", len(weights))))
        cover = ProbCover(deltas=radius.tolist(), missing_label=MISSING, random_state=0)
        return lambda: cover.query(rows, y, batch_size=batch, update=True)
    if name == "coreset":
        return lambda: CoreSet(missing_label=MISSING, random_state=0).query(x, y, batch_size=batch)
    if name == "typiclust":
        inputs = round_.model.inputs()[0].T.double().numpy().copy()
        return lambda: TypiClust(missing_label=MISSING, random_state=0).query(inputs, y, batch_size=batch)
    method = {"least_confidence": "least_confident", "margin": "margin_sampling", "entropy": "entropy"}[name]
    strategy = UncertaintySampling(method=method, missing_label=MISSING, random_state=0)
    return lambda: strategy.query(x, y, head, False, batch_size=batch)


def badge_with_origin(round_: Round, batch: int) -> torch.Tensor:
    """BADGE with the origin as a further centre, as scikit-activeml has it; picks [1, b]."""
    factors = [gradient_factor(round_.outputs)]
    norms = squared_norms(factors)
    nearest, available, picks = norms.clone(), round_.available.clone(), []
    uniforms = round_.uniforms("badge", batch)
    for j in range(batch):
        weights = nearest * available
        pick = weights.argmax(1) if j == 0 else draw_proportional(weights, uniforms[:, j])
        picks.append(pick)
        available.scatter_(1, pick[:, None], False)
        distance = norms + norms.gather(1, pick[:, None]) - 2.0 * inner_products(factors, pick)
        nearest = torch.minimum(nearest, distance.clamp_min_(0.0))
    return torch.stack(picks, 1)


def falcun_scaled_once(round_: Round, batch: int) -> torch.Tensor:
    """FALCUN that goes on from scaled distances, as scikit-activeml has it; picks [1, b]."""
    p, free = round_.outputs.probabilities, round_.available.clone()
    top = p.topk(2, dim=1).values
    uncertainty = 1.0 - (top[:, 0] - top[:, 1])
    uniforms, distance = round_.uniforms("falcun", batch), uncertainty
    picks: list[torch.Tensor] = []
    for j in range(batch):
        if j:
            new = (p - torch.take_along_dim(p, picks[-1][:, None, None], 2)).abs().sum(1)
            distance = torch.minimum(distance, new)
            among = distance[round_.available]
            distance = (distance - among.min()) / (among.max() - among.min())
        weights = ((uncertainty + distance) * free).pow(GAMMA)
        picks.append(draw_proportional(weights, uniforms[:, j]))
        free.scatter_(1, picks[-1][:, None], False)
    return torch.stack(picks, 1)


VARIANTS = {"badge, origin": badge_with_origin, "falcun, scaled once": falcun_scaled_once}
COMPARED = (
    *("least_confidence", "margin", "entropy", "badge", "badge, origin", "coreset", "typiclust"),
    *("probcover", "maxherding", "dropquery", "clue", "falcun", "falcun, scaled once"),
)


def digits_round() -> Round:
    """The second round on `digits`, with trained models."""
    pool, protocol = open_dataset("digits"), ProtocolConfig()
    simulation = Simulation(evaluation_trainer(pool, FrozenConfig()), protocol)
    round_ = simulation.reset(evaluation_starts(pool, protocol, [1]))
    return simulation.label(get_strategy("random")(round_, protocol.batch_size))


def compare(name: str, round_: Round, batch: int, repeats: int) -> tuple[float, list[float], list[float]]:
    """Share of picks in common, our seconds and theirs."""
    query = theirs(name.partition(",")[0], round_, batch)
    select = VARIANTS.get(name) or get_strategy(name)
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(repeats):
        began = time.perf_counter()
        mine = set(select(round_, batch)[0].tolist())
        between = time.perf_counter()
        other = set(np.asarray(query()).tolist())
        seconds["ours"].append(between - began)
        seconds["theirs"].append(time.perf_counter() - between)
    return len(mine & other) / batch, seconds["ours"], seconds["theirs"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    rounds = {
        "digits (n = {n}, C = 10, D = 144, b = 10)": (digits_round(), 10),
        "drawn (n = {n}, C = 51, D = 512, b = 100)": (make_round(2_000, classes=51, hidden=256), 100),
    }
    for title, (round_, batch) in rounds.items():
        _ = round_.outputs
        print(f"\n{title.format(n=f'{int(round_.available.sum()):,}')}\n")
        print(markdown.head(["strategy", "picks in common", "ours (ms)", "scikit-activeml (ms)", "ratio"]))
        for name in COMPARED:
            common, ours, other = compare(name, round_, batch, args.repeats)
            ratio = statistics.median(b / a for a, b in zip(ours, other, strict=True))
            times = [f"{1000 * statistics.median(t):,.1f}" for t in (ours, other)]
            print(markdown.row([name, f"{100 * common:.0f} %", *times, f"{ratio:,.1f}"]), flush=True)


if __name__ == "__main__":
    main()
