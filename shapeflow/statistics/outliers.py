"""Subjects unlike the others: a mislabelled mesh, a failed registration, or a rare shape. A list to look at, not to delete by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shapeflow.statistics.vectors import centred


def outlier_table(gram: NDArray, names: Sequence[str], threshold: float = 3.5) -> pd.DataFrame:
    """Distance of every subject to the mean in the kernel metric and its modified z-score (Iglewicz and Hoaglin), farthest first."""
    distance = np.sqrt(np.clip(np.diag(centred(gram)), 0.0, None))
    spread = np.median(np.abs(distance - np.median(distance)))
    z = 0.6745 * (distance - np.median(distance)) / spread if spread > 0 else np.zeros_like(distance)
    frame = pd.DataFrame({"subject": list(names), "distance_to_mean": distance, "z": z, "outlier": z > threshold})
    return frame.sort_values(["distance_to_mean", "subject"], ascending=[False, True], kind="stable").reset_index(
        drop=True
    )
