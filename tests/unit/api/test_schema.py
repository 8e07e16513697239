"""The API against its own description: whatever fits or does not fit the schema, no server error.

`pytest -m drill tests/unit/api/test_schema.py` tries much longer.
"""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error

from dicom_node.desk.roles import Role, Scope

_QUIET = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much]


@pytest.fixture
def key(people) -> str:
    people.desk.access.add_user("bot", Role.ADMIN, people.password, actor="test")
    return people.desk.access.create_token(
        "bot", "fuzz", [Scope.ADMIN, Scope.METRICS], lifetime=None, actor="test"
    )[1]


def _hammer(people, scans, key: str, *, examples: int) -> None:
    scans.enhanced(slices=4)
    schema = schemathesis.openapi.from_asgi("/api/v1/openapi.json", people.app)
    # Two operations reach out to other machines or unfold for seconds; they have tests of their own.
    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.path.endswith(("/echo", "/health/ready", "/alerts/test")):
            continue

        @settings(max_examples=examples, deadline=None, suppress_health_check=_QUIET, database=None)
        def attempt(case) -> None:
            case.headers = {**(case.headers or {}), "Authorization": f"Bearer {key}"}
            case.call_and_validate(checks=(not_a_server_error,))

        given(case=operation.as_strategy())(attempt)()


def test_no_request_that_fits_the_schema_makes_a_server_error(people, scans, key):
    _hammer(people, scans, key, examples=1)


@pytest.mark.drill
def test_no_request_makes_a_server_error_for_a_long_time(people, scans, key):
    _hammer(people, scans, key, examples=100)
