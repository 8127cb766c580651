"""Class-balanced weights: a class of many images weighs less for each of them."""

from __future__ import annotations

import torch
from torch import Tensor

from mobileface.errors import InputError


def class_balanced(counts: Tensor, beta: float = 0.9999) -> Tensor:
    """Images of each class (C,), integers -> weight of each class (C,) float32, mean 1.

    Equation 9 of the progressive framework: (1 - beta) / (1 - beta^n), to be multiplied with the sample's loss
    (the print lacks the loss's minus sign). The print also leaves out the scaling to mean 1 that the method's
    public code has. (A loop that divides by the sum of the weights, as ours does, is blind to that scale.) The
    mean is over the classes, not over the images. beta 0 weighs all alike; beta near 1 goes to 1 / n. Ours:
    classes without images get 0 and do not count in the mean. InputError for beta outside [0, 1), a count below
    0, no image at all.
    """
    if not 0 <= beta < 1:  # NaN fails as well
        raise InputError(f"class balance's beta is {beta:.17g}; wanted at least 0 and below 1")
    if (counts < 0).any():
        bad = int((counts < 0).nonzero()[0])
        raise InputError(f"class balance: class {bad} has {int(counts[bad])} images; wanted at least 0")
    filled = counts > 0
    if not filled.any():
        raise InputError(f"class balance: all {len(counts)} classes have 0 images; wanted at least one image")
    images = counts[filled].double()
    rate = torch.log1p(images.new_tensor(beta - 1))  # log(beta); beta - 1 is exact near 1
    weights = (beta - 1) / torch.expm1(images * rate)
    balanced = torch.zeros(counts.shape, dtype=torch.float32, device=counts.device)
    balanced[filled] = (weights / weights.mean()).float()
    return balanced
