"""The ordered draw of b of K candidates without replacement (Plackett-Luce), and its greedy limit.

Utilities may change from pick to pick, so the draw is a loop and its probability is the product of b softmaxes,
each over what is still there. Unavailable slots hold MASKED, a finite number: an infinity would turn gradients
into NaN.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

MASKED = -1e30


def draw(
    utilities: Callable[[int, Tensor | None], Tensor],
    valid: Tensor,
    batch_size: int,
    greedy: bool,
    generator: torch.Generator | None = None,
    visit: Callable[[Tensor, Tensor], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """Pick `batch_size` candidates one after another.

    Args:
        utilities: called with the number of the pick and the previous pick [B] (None before the first); gives the
            utilities [B, K] for this pick.
        valid: bool [B, K]; at least `batch_size` True in each row.
        greedy: take the largest utility instead of drawing from the softmax.
        visit: called after each pick with the pick [B] and the probabilities [B, K] that it was drawn with.

    Returns:
        picks [B, b] and the log-probability of the ordered draw [B].

    Raises:
        ValueError: where a row has too few valid candidates.
    """
    fewest = int(valid.sum(1).min())
    if fewest < batch_size:
        raise ValueError(f"a draw of {batch_size} needs as many valid candidates; a row has {fewest}")
    open_ = valid.clone()
    picks: list[Tensor] = []
    previous: Tensor | None = None
    logp = torch.zeros((), device=valid.device)
    for j in range(batch_size):
        u = utilities(j, previous).masked_fill(~open_, MASKED)
        if greedy:
            pick = u.argmax(1)
        else:
            # Gumbel-max: argmax of utility + Gumbel noise is a draw from the softmax.
            noisy = u - _log_exponential(u, generator)
            pick = noisy.masked_fill(~open_, 2 * MASKED).argmax(1)
        total = u.logsumexp(1)
        logp = logp + u.gather(1, pick[:, None])[:, 0] - total
        if visit is not None:
            visit(pick, (u - total[:, None]).exp_())
        open_ = open_.scatter(1, pick[:, None], False)
        picks.append(pick)
        previous = pick
    return torch.stack(picks, 1), logp


def _log_exponential(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Logarithms of standard exponential noise, from uniforms: on a CPU a quarter of the time of `exponential_`."""
    uniform = torch.empty_like(like).uniform_(generator=generator)
    return uniform.neg_().log1p_().neg_().clamp_min_(1e-30).log_()


def log_probability(utilities: Tensor, picks: Tensor, valid: Tensor) -> Tensor:
    """Log-probability of an ordered draw, [B].

    Args:
        utilities: [B, b, K], row j those in force at pick j; or [B, 1, K] where they do not change.
        picks: int64 [B, b].
        valid: bool [B, K].
    """
    count = picks.shape[1]
    chosen = utilities.expand(-1, count, -1).gather(2, picks[..., None])[..., 0]  # [B, b]
    # turn[k]: at which pick candidate k went; candidates never picked stay to the end.
    turn = torch.full(valid.shape, count, device=picks.device)
    turn.scatter_(1, picks, torch.arange(count, device=picks.device).expand_as(picks))
    if utilities.shape[1] == 1:
        # log of the total that is left at pick j = logaddexp(later picks, never picked)
        rest = utilities[:, 0].masked_fill(~valid | (turn < count), MASKED).logsumexp(1, keepdim=True)
        later = chosen.flip(1).logcumsumexp(1).flip(1)
        return (chosen - torch.logaddexp(later, rest)).sum(1)
    gone = turn[:, None] < torch.arange(count, device=picks.device)[:, None]  # [B, b, K]
    left = utilities.masked_fill(gone | ~valid[:, None], MASKED).logsumexp(2)
    return (chosen - left).sum(1)
