"""What a request may bring: bodies, headers, JSON of every bad kind."""

from __future__ import annotations

import gzip

import pytest

APPLY = "/api/v1/rules/validate"


def test_a_body_beyond_a_mebibyte_is_refused_by_its_length_and_by_its_bytes(operator):
    assert operator.post(APPLY, content=b"x" * (2**20 + 1)).status_code == 413

    def pieces():
        for _ in range(64):
            yield b"x" * 2**16

    assert operator.post(APPLY, content=pieces()).status_code == 413


@pytest.mark.parametrize("length", ["99999999999", "-1", "1e3", "9" * 40])
def test_a_length_that_cannot_be_is_refused(people, length):
    client = people.nobody()
    request = client.build_request("POST", "/api/v1/session", headers={"Content-Length": length})

    assert client.send(request).status_code in (400, 413)


def test_compressed_bodies_are_refused_unopened(operator):
    bomb = gzip.compress(bytes(50 * 2**20))

    answer = operator.post(APPLY, content=bomb, headers={"Content-Encoding": "gzip"})

    assert answer.status_code == 415


def test_too_many_headers_are_refused(operator):
    headers = {f"X-{number}": "v" * 8 for number in range(2_000)}  # 30 kB

    assert operator.get("/api/v1/session", headers=headers).status_code == 431


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"text": NaN}',
        b'{"text": ' + b"9" * 5000 + b"}",
        b'{"text": "\\ud800"}',
        b"\xff\xfe",
        b"null",
        b'{"text": "x", "text": {"a": 1e999}}',
    ],
    ids=["deep", "nan", "huge number", "lone surrogate", "no text", "null", "infinity"],
)
def test_bad_json_is_refused_without_a_server_error(operator, body):
    answer = operator.post(APPLY, content=body, headers={"Content-Type": "application/json"})

    assert answer.status_code in (400, 422)


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/..%2fsite.py",
        "/static/%2e%2e/%2e%2e/node.py",
        "/static//etc/passwd",
        "/api/v1/series/1/images/..%2f..%2fnode.db.png",
    ],
)
def test_no_path_leads_out(viewer, path):
    answer = viewer.get(path)

    assert answer.status_code in (404, 422)
    assert "import" not in answer.text


@pytest.mark.parametrize(
    "query",
    ["state=1' OR '1'='1", "text=' OR 1=1 --", "text=%25", "modality=CT'; DROP TABLE jobs; --", "after=1e9"],
)
def test_no_text_becomes_sql(viewer, line, query):
    line.job()

    answer = viewer.get(f"/api/v1/jobs?{query}")

    assert answer.status_code in (200, 422)
    if answer.status_code == 200:
        assert answer.json()["items"] == []
    assert len(viewer.get("/api/v1/jobs").json()["items"]) == 1
