"""The selection network: utilities for candidates, and the ordered draw of a batch from them.

Plain torch without ray: training, comparison and labelling run this same module on the same features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from envs.candidates import DEFAULT_FEATURES, OBSERVATION, ON_DEMAND, STATE, check_features
from envs.errors import ConfigError, nearest
from envs.fields import OneOf, Section
from policies.batch_features import BATCH_FEATURES, DEFAULT_BATCH_FEATURES, BatchAware
from policies.ordered_draw import draw, log_probability

SHORTLIST = 16  # candidates a pick, best before the first, among which greedy batches are picked
CPU_ROWS = 32  # whose log-probability a processor computes together: their features should stay in its cache
STARTS = ("pretrained", "badge", "hand_tuned", "zero")  # where training may start; `policies.start` knows the weights


@dataclass(frozen=True)
class SelectorConfig(Section, prefix="policy."):
    """Shape of the selection network."""

    features: tuple[str, ...] = DEFAULT_FEATURES  # of each candidate, names that envs.candidates.FEATURES finds
    batch_features: tuple[str, ...] = DEFAULT_BATCH_FEATURES  # recomputed at every pick
    linear: bool = True  # weights on features x (1, state)
    state: tuple[str, ...] = ("progress",)  # entries of the state by which linear weights change
    initial: Annotated[str, OneOf(STARTS)] = "pretrained"  # where training starts: by default, from the one that ships
    mlp: tuple[int, ...] = ()  # hidden units of an MLP over candidate features and state; none without any

    def __post_init__(self) -> None:
        super().__post_init__()
        check_features(self.features)
        for name in self.batch_features:
            BATCH_FEATURES.find(name)
        for name in self.state:
            if name not in STATE:
                raise ConfigError(f"policy.state names {name!r}.{nearest(name, STATE)} It may hold {', '.join(STATE)}.")
        if any(units < 1 for units in self.mlp):
            raise ConfigError(f"policy.mlp is {list(self.mlp)}; every layer needs at least 1 unit.")
        if not self.linear and not self.mlp:
            raise ConfigError("policy.linear is false and policy.mlp is empty: the policy has no weights.")
        if not self.linear and self.batch_features:
            raise ConfigError("policy.batch_features need policy.linear: the MLP sees the round's features only.")

    @property
    def only_linear(self) -> bool:
        """Whether linear weights are all that the policy has."""
        return self.linear and not self.mlp


class Selector(nn.Module):
    """Utilities u = (A + B s) . features, plus an MLP's residual over static features and state.

    s are the entries of the state that the configuration names: the progress t/T, by default. All linear weights are 0
    until a file or `policies.start` fills them.

    Args:
        config: which features, which parts.
    """

    def __init__(self, config: SelectorConfig):
        super().__init__()
        self.config = config
        self.names = config.features + config.batch_features
        if config.linear:
            self.weights = nn.Parameter(torch.zeros(len(self.names), 1 + len(config.state)))
        self.mlp: nn.Sequential | None = None
        if config.mlp:
            layers: list[nn.Module] = []
            width = len(config.features) + len(STATE)
            for units in config.mlp:
                layers += [nn.Linear(width, units), nn.Tanh()]
                width = units
            last = nn.Linear(width, 1)
            if config.linear:  # a residual starts at nothing
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)
            self.mlp = nn.Sequential(*layers, last)
        self._state = [list(STATE).index(name) for name in config.state]

    @property
    def entries(self) -> tuple[str, ...]:
        """The entries of an observation that this policy reads."""
        read = {entry for name in self.config.batch_features for entry in BATCH_FEATURES.find(name).reads}
        return tuple(name for name in OBSERVATION if name not in ON_DEMAND or name in read)

    def factors(self, state: Tensor) -> Tensor:
        """What the linear weights are multiplied by: 1 and the named entries of the state, [B, 1 + S]."""
        return torch.cat([torch.ones_like(state[:, :1]), state[:, self._state]], 1)

    def _static(self, observation: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """Utility from the static features [B, K], and the weights of the batch features [B, F']."""
        features = observation["features"].float()
        state = observation["state"].float()
        utility, batch_weights = torch.zeros_like(features[..., 0]), None
        if self.config.linear:
            weights = (self.weights * self.factors(state)[:, None]).sum(2)  # [B, F]
            split = len(self.config.features)
            utility = torch.bmm(features, weights[:, :split, None])[..., 0]
            batch_weights = weights[:, split:]
        residual = self.residual(observation)
        if residual is not None:
            utility = utility + residual
        return utility, batch_weights if self.config.batch_features else None

    def residual(self, observation: dict[str, Tensor]) -> Tensor | None:
        """What the MLP says of each candidate, [B, K]; None without one."""
        if self.mlp is None:
            return None
        features = observation["features"].float()
        state = observation["state"].float()[:, None].expand(-1, features.shape[1], -1)
        return self.mlp(torch.cat([features, _squash(state)], 2))[..., 0]

    def select(self, observation: dict[str, Tensor], batch_size: int) -> Tensor:
        """Choose a batch per row, greedily: the largest utility at each pick, as in deployment.

        The picks are among the SHORTLIST * b candidates of the largest utility before the first pick.

        Args:
            observation: `envs.candidates.offer.Candidates.observation()`, batched over B rows.

        Returns:
            candidate slots [B, b] in the order of picking.
        """
        with torch.no_grad():
            utilities, valid = _Utilities(self, observation), observation["valid"] > 0
            few = SHORTLIST * batch_size
            if valid.shape[1] <= few:
                return draw(utilities.next, valid, batch_size, greedy=True)[0]
            first = utilities.next(0, None).masked_fill(~valid, -torch.inf)
            index = first.topk(few, dim=1).indices.sort(1).values
            utilities.narrow(index)
            return index.gather(1, draw(utilities.next, valid.gather(1, index), batch_size, greedy=True)[0])

    def sample(
        self, observation: dict[str, Tensor], batch_size: int, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draw a batch per row, as in exploration.

        Returns:
            slots [B, b] in the order of picking, and the log-probability of the draw [B].
        """
        with torch.no_grad():
            utilities = _Utilities(self, observation)
            return draw(utilities.next, observation["valid"] > 0, batch_size, False, generator)

    def sample_with_gradient(
        self, observation: dict[str, Tensor], batch_size: int, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `sample`, and differentiate on the way: what a policy gradient needs of an observation.

        Returns:
            slots [B, b] and log-probability [B] as from `sample`, and its gradient [B, F, 1 + S] in the linear weights.

        Raises:
            ValueError: where the policy has an MLP.
        """
        if not self.config.only_linear:
            raise ValueError("gradients come with the draw of linear policies only")
        with torch.no_grad():
            utilities = _Utilities(self, observation)
            valid = observation["valid"] > 0
            picks, logp = draw(utilities.next, valid, batch_size, False, generator, utilities.visit)
            return picks, logp, utilities.gradient()

    def first_order(self, gradient: Tensor) -> Tensor:
        """Log-probabilities [B] up to constants, near the weights at which their gradient [B, F, 1 + S] was taken."""
        return (self.weights * gradient).sum((1, 2))

    def log_probability(self, observation: dict[str, Tensor], picks: Tensor) -> Tensor:
        """Log-probability [B] of picks [B, b], replayed pick by pick; differentiable in the weights."""
        size = CPU_ROWS if picks.device.type == "cpu" else len(picks)
        blocks = [slice(low, low + size) for low in range(0, len(picks), size)]
        rows = ({name: values[at] for name, values in observation.items()} for at in blocks)
        return torch.cat([self._block_log_probability(r, picks[at]) for r, at in zip(rows, blocks, strict=True)])

    def _block_log_probability(self, observation: dict[str, Tensor], picks: Tensor) -> Tensor:
        static, batch_weights = self._static(observation)
        utilities = static[:, None]
        if batch_weights is not None:
            with torch.no_grad():
                replayed = BatchAware(observation, self.config.batch_features).replay(picks)
            utilities = utilities + torch.einsum("bjkf,bf->bjk", replayed, batch_weights)
        return log_probability(utilities, picks, observation["valid"] > 0)

    def with_row_weights(self, weights: Tensor) -> Selector:
        """Many policies in one pass: this one with weights of their own for each row, [B, F, 1 + S], for `select`."""
        many = Selector(self.config)
        many.weights = nn.Parameter(weights, requires_grad=False)
        return many

    def named_weights(self) -> dict[str, float]:
        """Linear weights by feature name, their change with the state as `name*progress`."""
        if not self.config.linear:
            return {}
        named: dict[str, float] = {}
        for name, row in zip(self.names, self.weights.detach().tolist(), strict=True):
            named |= dict(zip((name, *(f"{name}*{s}" for s in self.config.state)), row, strict=True))
        return named


class _Utilities:
    """Utilities of B rows from pick to pick, and the gradient of their log-probability in the linear weights.

    A pick of probability p_k has the gradient sum_k (picked_k - p_k) features_k.

    Args:
        selector: the policy.
        observation: as for `Selector.select`.
    """

    def __init__(self, selector: Selector, observation: dict[str, Tensor]):
        self._selector, self._observation = selector, observation
        self._static, self._batch_weights = selector._static(observation)
        self._aware = BatchAware(observation, selector.config.batch_features)
        self._pulls = torch.zeros_like(self._static)  # sum of picked - p, [B, K]
        self._batch_gradient: list[Tensor] = []  # by pick, [B, F']

    def next(self, _: int, previous: Tensor | None) -> Tensor:
        """Utilities [B, K] after one more pick [B]."""
        if self._batch_weights is None:
            return self._static
        if previous is not None:
            self._aware.add(previous)
        self._current = self._aware.current()
        return self._static + torch.bmm(self._current, self._batch_weights[..., None])[..., 0]

    def narrow(self, index: Tensor) -> None:
        """Go on with the candidates at index [B, k] alone; before the first pick."""
        self._static = self._static.gather(1, index)
        self._aware.narrow(index)

    def visit(self, pick: Tensor, probabilities: Tensor) -> None:
        """Take note of a pick [B] and the probabilities [B, K] that it was drawn with, which are overwritten."""
        pull = probabilities.neg_().scatter_add_(1, pick[:, None], torch.ones_like(probabilities[:, :1]))
        self._pulls = self._pulls + pull
        if self._batch_weights is not None:
            self._batch_gradient.append(torch.bmm(pull[:, None], self._current)[:, 0])

    def gradient(self) -> Tensor:
        """The gradient of the log-probability of all picks so far, [B, F, 1 + S]."""
        parts = [torch.bmm(self._pulls[:, None], self._observation["features"].float())[:, 0]]
        if self._batch_gradient:
            parts.append(torch.stack(self._batch_gradient).sum(0))
        return torch.cat(parts, 1)[..., None] * self._selector.factors(self._observation["state"])[:, None]


def _squash(state: Tensor) -> Tensor:
    """State entries with sizes brought together: their scales differ, and a gradient norm may be large."""
    return state.sign() * torch.log1p(state.abs())
