"""Files of shapes and of landmarks.

`read_shape` and `write_shape` choose the format by the file's suffix; `read_raw` also returns what a `Shape` would refuse (vertices that are
not numbers), for the preparation to measure and repair.
"""

from shapeflow.io.landmarks import Landmarks, read_landmarks, write_landmarks
from shapeflow.io.raw import Raw
from shapeflow.io.readers import READERS, read_raw, read_shape
from shapeflow.io.writers import write_shape

__all__ = ["READERS", "Landmarks", "Raw", "read_landmarks", "read_raw", "read_shape", "write_landmarks", "write_shape"]
