"""The engine on a GPU that is not there: tensors that claim a device, and may not meet those of another.

Every operation runs on the CPU; what a real GPU would refuse (operands on two devices, numpy on a tensor of
the GPU) is refused here too. Speed, memory and rounding of a real one are not shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

from engine.bundle import BUNDLES, DEFAULT_MODEL, load_bundle
from engine.device import ComputeDevice
from engine.diffusion.diffusion_enhancer import DiffusionEnhancer
from engine.enhancer import EnhanceOptions
from engine.evaluation.cases import noisy_case, parse_levels
from engine.evaluation.probes import uniform_truth
from engine.volume import Volume

GPU = torch.device("cuda", 0)
_Tensor = torch.Tensor
_ACROSS = {_Tensor.copy_, _Tensor.__setitem__, torch._has_compatible_shallow_copy_type}
"""Operations that may take their source from another device."""
_TO_NUMPY = {_Tensor.numpy, _Tensor.__array__}


def on_gpu(value: object) -> bool:
    """Whether a tensor claims to be on the GPU."""
    return getattr(value, "claims_gpu", False)


class PretendGpu(TorchFunctionMode):
    """Keeps what device every tensor claims, and how many operations ran on the GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func == _Tensor.device.__get__:
            return GPU if on_gpu(args[0]) else torch.device("cpu")
        if func == _Tensor.is_cuda.__get__:
            return on_gpu(args[0])
        if func in _TO_NUMPY and on_gpu(args[0]):
            raise TypeError("a tensor of the GPU has no numpy array")
        if func == _Tensor.data.__set__:  # how modules move
            args[0].claims_gpu = on_gpu(args[1])
            return func(*args)
        given = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, _Tensor)]
        asked, args, kwargs = self._asked(func, args, kwargs)
        if asked is None and func not in _ACROSS:
            self._refuse_two_devices(func, given)
        result = func(*args, **kwargs)
        claim = asked == "cuda" if asked is not None else any(map(on_gpu, given))
        if func in _ACROSS:
            claim = on_gpu(args[0])
        self.operations += claim

        def mark(value: Any) -> Any:
            if isinstance(value, _Tensor):
                if value is not args[0] if args else True:
                    value.claims_gpu = claim
                elif asked is not None and on_gpu(value) != claim:  # a copy that the CPU would not make
                    value = value.clone()
                    value.claims_gpu = claim
            return value

        return tree_map(mark, result)

    @staticmethod
    def _asked(func: Any, args: Any, kwargs: Any) -> tuple[str | None, Any, Any]:
        """The device that a call names, and the call with the CPU in its place."""
        if func is _Tensor.cpu:
            return "cpu", args, kwargs
        if kwargs.get("device") is not None:
            return torch.device(kwargs["device"]).type, args, kwargs | {"device": torch.device("cpu")}
        if func is _Tensor.to and len(args) > 1:
            where = args[1]
            if isinstance(where, _Tensor):
                return ("cuda" if on_gpu(where) else "cpu"), args, kwargs
            if isinstance(where, torch.device | str):
                return torch.device(where).type, (args[0], torch.device("cpu"), *args[2:]), kwargs
        return None, args, kwargs

    @staticmethod
    def _refuse_two_devices(func: Any, given: list[torch.Tensor]) -> None:
        """What PyTorch refuses; numbers (no dimensions) of the CPU and indices of the CPU may go anywhere."""
        if not any(map(on_gpu, given)):
            return
        meant = given[:1] if func is _Tensor.__getitem__ else given
        strangers = [t for t in meant if not on_gpu(t) and _Tensor.dim(t) > 0]
        if strangers:
            raise RuntimeError(f"{getattr(func, '__name__', func)}: expected all tensors on the same device")


@pytest.fixture
def pretend() -> Iterator[PretendGpu]:
    """A GPU for the time of a test."""
    with PretendGpu() as mode:
        yield mode


def test_two_devices_do_not_meet(pretend: PretendGpu) -> None:
    here, there = torch.ones(3), torch.ones(3).to("cuda")
    assert (here.device.type, there.device.type) == ("cpu", "cuda")
    assert (there * 2 + torch.tensor(1.0)).device == GPU
    assert (there.cpu() + here).device.type == "cpu"
    with pytest.raises(RuntimeError, match="same device"):
        here + there
    with pytest.raises(RuntimeError, match="same device"):
        here[there > 0]
    with pytest.raises(TypeError, match="numpy"):
        there.numpy()


WHOLE, TILES = 10**12, 10**6
"""Memory for the volume on the GPU, and for tiles alone."""


@pytest.mark.parametrize(
    ("modality", "memory", "extra"),
    [
        ("ct30c", WHOLE, {"mode": "mean"}),
        ("ct30c", TILES, {"mode": "refine", "steps": 2}),
        ("mr5", WHOLE, {"mode": "sample", "steps": 2}),
        ("mr5", TILES, {"mode": "mean"}),
    ],
)
def test_a_volume_is_enhanced_without_mixing_devices(
    pretend: PretendGpu, memory: int, extra: dict[str, str | int], modality: str
) -> None:
    (level,) = parse_levels(modality)
    noisy = noisy_case(uniform_truth(level, (8, 64, 64)), level).noisy
    options = EnhanceOptions(strength=1.0, extra=extra)
    with_gpu = DiffusionEnhancer(
        load_bundle(BUNDLES / DEFAULT_MODEL), ComputeDevice(GPU, torch.float32, memory)
    )
    before = pretend.operations

    found = with_gpu.enhance(noisy, options=options)

    assert pretend.operations - before > 200
    assert found.report.parameters["device"] == "cuda:0 float32"
    assert isinstance(found.volume.array, np.ndarray)
    assert found.report.noise_after < 0.5 * found.report.noise_before


def test_the_gpu_that_is_not_there_gives_what_the_cpu_gives() -> None:
    (level,) = parse_levels("ct30c")
    noisy = noisy_case(uniform_truth(level, (8, 64, 64)), level).noisy
    padded = Volume(noisy.array, noisy.affine, noisy.unit, valid=noisy.array > -2000)
    options = EnhanceOptions(strength=1.0)
    bundle = BUNDLES / DEFAULT_MODEL
    cpu = DiffusionEnhancer(load_bundle(bundle), ComputeDevice(torch.device("cpu"), torch.float32, 10**9))
    expected = cpu.enhance(padded, options=options).volume.array
    with PretendGpu():
        gpu = DiffusionEnhancer(load_bundle(bundle), ComputeDevice(GPU, torch.float32, 10**12))
        np.testing.assert_allclose(gpu.enhance(padded, options=options).volume.array, expected, atol=0.01)
