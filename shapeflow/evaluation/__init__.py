"""How good a matching is, measured on the shapes themselves and not by the functional that was minimised."""

from __future__ import annotations

from shapeflow.evaluation.criteria import knn_accuracy, silhouette
from shapeflow.evaluation.surface import directed_distances, landmark_error, surface_distance

__all__ = ["directed_distances", "knn_accuracy", "landmark_error", "silhouette", "surface_distance"]
