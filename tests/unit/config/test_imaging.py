"""Assembly and derivation: sound defaults, and a route states only what it changes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from config.errors import ConfigError
from config.imaging import AssemblySection, DerivationSection, RouteAssembly, RouteDerivation
from config.settings import Settings

Load = Callable[[str], Settings]


def test_the_defaults_enhance_what_can_be_measured_and_name_the_rest() -> None:
    section = AssemblySection()

    assert (section.odd_slices, section.several_volumes, section.irregular) == (
        "leave_out",
        "enhance",
        "enhance",
    )
    assert (section.diffusion, section.monoenergetic) == ("if_measurable", "leave_alone")


def test_a_route_changes_only_what_it_states() -> None:
    general = DerivationSection(series_number_offset=500, comment=False)

    own = RouteDerivation(description_suffix="[QUIET]", image_type_term=False).over(general)

    assert own == general.model_copy(update={"description_suffix": "[QUIET]", "image_type_term": False})
    assert RouteDerivation().over(general) == general
    assert RouteAssembly(most_slices=9000).over(AssemblySection()).most_slices == 9000
    assert RouteAssembly(diffusion="leave_alone").over(AssemblySection()).diffusion == "leave_alone"


def test_both_are_written_under_the_route(load: Load) -> None:
    settings = load(
        "peers: [{name: pacs, ae_title: PACS, host: h, port: 104}]\n"
        "routes:\n"
        "  - name: heads\n"
        "    when: always\n"
        "    send_to: [pacs]\n"
        "    assembly: {irregular: refuse}\n"
        "    derivation: {equipment_policy: inherit, series_number_offset: 100}\n"
    )

    (route,) = settings.routes
    assert route.assembly.over(settings.assembly).irregular == "refuse"
    assert route.derivation.over(settings.derivation).equipment_policy == "inherit"
    assert route.derivation.over(settings.derivation).manufacturer == "DICOM Enhancement Node"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("assembly: {odd_slices: keep}", "assembly.odd_slices"),
        ("assembly: {difusion: leave_alone}", "assembly.difusion"),
        ("routes: [{name: a, when: always, action: ignore, derivation: {comment: 3}}]", "derivation.comment"),
    ],
)
def test_a_slip_is_refused_with_its_key(load: Load, text: str, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert key in str(caught.value.problems)
