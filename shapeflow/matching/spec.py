"""What a matching is: the metric, the attachment, how geodesics are integrated and when the search stops."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real

import torch

from shapeflow.attachment import ATTACHMENTS, check_gaussian
from shapeflow.errors import ConfigError
from shapeflow.integrators import scheme
from shapeflow.normalization import Normalization
from shapeflow.ops import Radial, Term, resolve

DTYPES = {"float32": torch.float32, "float64": torch.float64}
CONTROLS = ("vertices", "grid", "subsample")


@dataclass(frozen=True)
class MatchingSpec:
    """Minimise γ·H(q₀, p₀) + A(q(1), target) over p₀. Lengths are in mesh units.

    With `units="relative"` both terms are dimensionless: H is divided by the target's mean squared radius and A by
    ‖T‖², so one γ suits meshes of any size; with `units="mesh"` nothing is divided and `attachment_weight` multiplies
    A.
    """

    sigma: float
    kernel: str = "gaussian"
    normalization: str = "sinkhorn"
    normalization_iterations: int = 5
    attachment: str = "varifold"
    attachment_kernel: str = "gaussian"
    attachment_widths: tuple[float, ...] = ()  # from coarse to fine, one number is the only width; σ unless said
    attachment_kappa: float = 1.0  # oriented_varifold: width of the kernel of unit normals, without unit
    attachment_reach: float | None = None  # sinkhorn: mesh units; none is balanced transport
    attachment_normal_length: float | None = None  # sinkhorn: mesh units; none compares positions only
    attachment_weight: float = 1.0
    gamma: float = 0.01
    units: str = "relative"
    control_points: str = "vertices"  # grid: a regular grid over the source; subsample: some of its vertices
    control_spacing: float | None = None  # grid, mesh units; σ unless said
    control_count: int | None = None  # subsample
    integrator: str = "ralston"
    steps: int = 10
    max_iter: int = 100
    tolerance: float = 1e-5
    memory: int = 10
    dtype: str = "float64"
    device: str = "auto"
    backend: str = "auto"

    def __post_init__(self) -> None:
        widths = self.attachment_widths
        widths = (widths,) if isinstance(widths, Real) else tuple(widths)
        object.__setattr__(self, "attachment_widths", widths or (self.sigma,))
        positive = {
            "sigma": self.sigma,
            "gamma": self.gamma,
            "attachment_weight": self.attachment_weight,
            "attachment_kappa": self.attachment_kappa,
            "attachment_reach": 1.0 if self.attachment_reach is None else self.attachment_reach,
            "attachment_normal_length": 1.0 if self.attachment_normal_length is None else self.attachment_normal_length,
            "steps": self.steps,
        }
        for name, value in positive.items():
            if not isinstance(value, Real) or not float(value) > 0:
                raise ConfigError(f"{name} must be a positive number; received {value!r}")
        if not all(isinstance(w, Real) and w > 0 for w in self.attachment_widths):
            raise ConfigError(f"attachment widths must be positive lengths; received {self.attachment_widths}")
        choices = {
            "attachment": (self.attachment, ATTACHMENTS),
            "units": (self.units, ("relative", "mesh")),
            "control_points": (self.control_points, CONTROLS),
            "dtype": (self.dtype, tuple(DTYPES)),
            "device": (self.device, ("auto", "cpu", "cuda")),
        }
        for name, (value, allowed) in choices.items():
            if value not in allowed:
                raise ConfigError(f"unknown {name} {value!r}: write one of {', '.join(allowed)}")
        scheme(self.integrator)
        Radial.parse(self.kernel)
        check_gaussian(self.attachment, self.attachment_kernel)
        self.scaling()

    def scaling(self) -> Normalization:
        if self.normalization != "sinkhorn_unrolled":
            return Normalization(self.normalization)
        return Normalization(self.normalization, iterations=self.normalization_iterations)

    def attachment_radial(self) -> Radial:
        """The attachment's kernel over all its widths, relative to the first; weights sum to one."""
        base, widths = Radial.parse(self.attachment_kernel), self.attachment_widths
        terms = [
            Term(t.name, t.weight / len(widths), t.ratio * width / widths[0]) for width in widths for t in base.terms
        ]
        return Radial(tuple(terms), base.epsilon)

    def torch_dtype(self) -> torch.dtype:
        return DTYPES[self.dtype]

    def torch_device(self) -> torch.device:
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ConfigError(
                "device=cuda, but torch sees no CUDA GPU: install a CUDA build of torch, or write device=auto"
            )
        return torch.device("cuda" if self.device != "cpu" and torch.cuda.is_available() else "cpu")

    def resolved_backend(self) -> str:
        return resolve(None if self.backend == "auto" else self.backend, self.torch_device())
