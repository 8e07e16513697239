from __future__ import annotations

import numpy as np
import pytest

from engine.enhancer import CancelToken, EnhanceOptions
from engine.errors import EngineInputError, EnhancementCancelledError
from engine.registry import build_enhancer, enhancer_names
from engine.volume import Volume


@pytest.mark.parametrize("name", ["classical", "identity"])
def test_every_listed_enhancer_can_be_built_and_says_who_it_is(name: str) -> None:
    identity = build_enhancer(name, {}).identity

    assert name in enhancer_names()
    assert len(identity.digest) == 64
    assert identity.title.isascii()


def test_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(EngineInputError, match=r"'clasical'.*classical, ddpm3d-ctmr-1, identity"):
        build_enhancer("clasical")


def test_misspelt_option_is_refused_and_not_ignored() -> None:
    with pytest.raises(EngineInputError, match="'stength'"):
        build_enhancer("classical", {"stength": 0.5})


def test_identity_returns_the_same_bits_and_reports_the_noise(noisy_head: Volume) -> None:
    told: list[float] = []

    result = build_enhancer("identity").enhance(
        noisy_head, options=EnhanceOptions(), progress=lambda share, _step: told.append(share)
    )

    assert result.volume.array.tobytes() == noisy_head.array.tobytes()
    assert result.report.noise_before == result.report.noise_after > 15
    assert told == [0.0, 1.0]


def test_identity_stops_when_asked(make_volume) -> None:
    token = CancelToken()
    token.cancel()

    with pytest.raises(EnhancementCancelledError):
        build_enhancer("identity").enhance(
            make_volume(np.zeros((8, 16, 16))), options=EnhanceOptions(), cancel=token
        )
