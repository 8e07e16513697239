"""One explicit source of random numbers for simulators, on one device, with a state that can be saved."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Draw:
    """Random numbers from one generator; scalars come as Python floats.

    Scalars are drawn on the CPU and arrays on `device`, so that simulations stay on the device.
    """

    def __init__(self, seed: int, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self._scalars = torch.Generator().manual_seed(seed)
        self._arrays = torch.Generator(device=self.device).manual_seed(seed + 1)

    def uniform(self, low: float, high: float) -> float:
        """Return a number in [low, high)."""
        return low + (high - low) * float(torch.rand((), generator=self._scalars))

    def log_uniform(self, low: float, high: float) -> float:
        """Return a number in [low, high) whose logarithm is uniform."""
        return math.exp(self.uniform(math.log(low), math.log(high)))

    def gauss(self) -> float:
        """Return a standard normal number."""
        return float(torch.randn((), generator=self._scalars))

    def integer(self, low: int, high: int) -> int:
        """Return an integer in [low, high]."""
        return int(torch.randint(low, high + 1, (), generator=self._scalars))

    def chance(self, probability: float) -> bool:
        """Return True with the given probability."""
        return self.uniform(0, 1) < probability

    def pick(self, weights: list[float]) -> int:
        """Return an index with probability proportional to its weight."""
        return int(torch.multinomial(torch.tensor(weights), 1, generator=self._scalars))

    def normal(self, size: tuple[int, ...]) -> Tensor:
        """Return standard normal noise on the device."""
        return torch.randn(size, generator=self._arrays, device=self.device)

    def state(self) -> dict[str, Tensor]:
        """Return the state of both generators."""
        return {"scalars": self._scalars.get_state(), "arrays": self._arrays.get_state()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Continue exactly where `state` was taken."""
        self._scalars.set_state(state["scalars"])
        self._arrays.set_state(state["arrays"])
