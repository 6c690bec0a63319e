"""Handwritten digits, 8x8, embedded in scikit-learn: the data set that needs no download."""

from __future__ import annotations

import numpy as np

from .sets import DataSet, Split

SPLIT_SEED = 20240


def load_digits() -> DataSet:
    """The 1797 digits of scikit-learn, split 70/10/20, stratified by class.

    Pixel values 0..16 are scaled to ``[0, 1]``. The split has a fixed seed of its own, so runs
    with different training seeds are tested on the same 360 images.

    Returns:
        1257 training, 180 validation and 360 test images of shape ``(1, 8, 8)``.

    Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine
    Learning Repository, 1998 (the part that scikit-learn ships).
    """
    from sklearn.datasets import load_digits as load_embedded
    from sklearn.model_selection import train_test_split

    embedded = load_embedded()
    images = (embedded.images[:, None] / 16.0).astype(np.float32)
    labels = embedded.target.astype(np.int64)
    rest, test = train_test_split(
        np.arange(len(labels)), test_size=360, stratify=labels, random_state=SPLIT_SEED
    )
    train, val = train_test_split(
        rest, test_size=180, stratify=labels[rest], random_state=SPLIT_SEED
    )
    whole = Split(images, labels)
    return DataSet(
        name="digits",
        classes=tuple(str(digit) for digit in range(10)),
        splits={"train": whole.take(train), "val": whole.take(val), "test": whole.take(test)},
        source="scikit-learn's load_digits",
        remarks=(
            "the file does not name its writers, so the same hand may be in training and test",
        ),
    )
