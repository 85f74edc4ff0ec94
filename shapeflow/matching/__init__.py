"""Matching by geodesic shooting: a batch of problems in, a frozen result out."""

from shapeflow.matching.flow import Flow
from shapeflow.matching.match import MatchingResult, match
from shapeflow.matching.spec import MatchingSpec

__all__ = ["Flow", "MatchingResult", "MatchingSpec", "match"]
