"""A GPU that is not there: tensors that claim a device, and may not meet those of another.

Every operation runs on the CPU; what a real GPU would refuse (operands on two devices, numpy on a tensor of
the GPU) is refused here too. Speed, memory and rounding of a real one are not shown.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

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
