"""Rounds to try strategies on, and rounds changed in one respect."""

from __future__ import annotations

import dataclasses

import torch

from envs.round import Round

# With copies; with missing modalities; with one modality alone; a round later.
CASES = ("plain", "missing", "single", "later")


def with_head(round_: Round, favoured: int, bias: float) -> Round:
    """The same round, its multimodal head all zero but for the bias of one class."""
    fitted = round_.model.fitted
    head = torch.zeros_like(fitted.parameters.multimodal_head)
    head[:, favoured, fitted.parameters.encoder.shape[2] - 1] = bias  # the constant unit
    parameters = dataclasses.replace(fitted.parameters, multimodal_head=head)
    model = dataclasses.replace(round_.model, fitted=dataclasses.replace(fitted, parameters=parameters))
    return dataclasses.replace(round_, model=model)
