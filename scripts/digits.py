"""scikit-learn's bundled digits (1,797 images of 8 x 8, 17 grey levels), split once and for all."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits
from training import Array

TRAINING = 1_400


def read_digits() -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """((images, one-hot targets) to train on, (images, labels) to test on); images are (n, 1, 8, 8) in [0, 1]."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    images = digits.images[order].reshape(-1, 1, 8, 8) / 16
    labels = digits.target[order]
    targets = np.eye(10)[labels]
    return (images[:TRAINING], targets[:TRAINING]), (images[TRAINING:], labels[TRAINING:])
