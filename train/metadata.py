"""Age, sex and view as a network takes them. Without torch, so that evaluating a bundle needs none either."""

import numpy as np
from numpy.typing import NDArray

from cxredge.errors import DataError
from cxredge.train.facts import Facts

# Columns of the input; each pair is zero where the table does not say.
COLUMNS = ("age known", "age / 100 years", "female", "male", "PA", "AP")


def encode(facts: Facts) -> NDArray[np.float32]:
    """Facts of N films as a network takes them, float32 [N, 6], see COLUMNS. Raises DataError when none is known of any film."""
    known = ~np.isnan(facts.age)
    columns = [
        known, np.where(known, facts.age / 100, 0),
        facts.sex == "F", facts.sex == "M",
        facts.view == "PA", facts.view == "AP",
    ]  # fmt: skip
    encoded = np.stack(columns, axis=1).astype(np.float32)
    if not encoded.any():
        raise DataError("the tables say neither age, sex nor view of any film; leave metadata out")
    return encoded
