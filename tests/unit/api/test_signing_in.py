"""Coming in: passwords, cookies, keys, guesses, requests from other pages."""

from __future__ import annotations

from datetime import timedelta

import pytest

from dicom_node.api.security import COOKIE, CSRF_HEADER
from dicom_node.desk.roles import Role, Scope

SESSION = "/api/v1/session"


def test_a_session_cookie_is_for_this_host_and_no_script(people):
    people.desk.access.add_user("ann", Role.VIEWER, people.password, actor="test")

    answer = people.nobody().post(SESSION, json={"name": "ann", "password": people.password})

    (cookie,) = answer.headers.get_list("set-cookie")
    assert cookie.startswith("__Host-session=")
    assert {"HttpOnly", "Secure", "SameSite=strict", "Path=/"} <= {part.strip() for part in cookie.split(";")}
    assert "Domain" not in cookie
    assert answer.headers["cache-control"] == "no-store"


def test_no_password_and_no_secret_is_kept_in_the_clear(people, tmp_path):
    client = people.sign_in(Role.ADMIN, "ann")
    token = people.desk.access.create_token("ann", "ci", [Scope.READ], lifetime=None, actor="test")[1]

    kept = b"".join(path.read_bytes() for path in (tmp_path / "data").rglob("node.db*"))

    assert b"$argon2id$" in kept
    for secret in (people.password, client.cookies[COOKIE], token):
        assert secret.encode() not in kept


def test_every_response_carries_the_security_headers(people):
    for path in ("/", "/static/node.css", "/api/v1/session", "/nothing"):
        headers = people.nobody().get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-frame-options"] == "DENY"


def test_signing_out_ends_the_session_whatever_happens_to_the_cookie(people):
    client = people.sign_in(Role.VIEWER)
    stolen = client.cookies[COOKIE]

    assert client.delete(SESSION).status_code == 204

    thief = people.nobody()
    thief.cookies.set(COOKIE, stolen)
    assert thief.get(SESSION).status_code == 401


def test_signing_in_again_makes_a_new_session_and_ends_the_old_one(people):
    client = people.sign_in(Role.VIEWER, "ann")
    old = client.cookies[COOKIE]

    client.post(SESSION, json={"name": "ann", "password": people.password})

    fixed = people.nobody()
    fixed.cookies.set(COOKIE, old)
    assert client.cookies[COOKIE] != old
    assert fixed.get(SESSION).status_code == 401


def test_a_session_ends_when_it_is_idle_and_when_it_is_old(people, clock):
    client = people.sign_in(Role.VIEWER)

    clock.move(minutes=14)
    assert client.get(SESSION).status_code == 200
    clock.move(minutes=16)
    assert client.get(SESSION).status_code == 401

    client = people.sign_in(Role.VIEWER)
    for _ in range(60):
        clock.move(minutes=13)
        last = client.get(SESSION).status_code
    assert last == 401


def test_a_changed_password_or_role_ends_every_session(people):
    client = people.sign_in(Role.VIEWER, "ann")

    people.desk.store.access.change_user("ann", "test", role="operator")

    assert client.get(SESSION).status_code == 401


def test_guessing_is_slowed_down_by_account_and_by_real_address(people, clock):
    people.desk.access.add_user("ann", Role.VIEWER, people.password, actor="test")
    client = people.nobody()

    def guess(name: str, password: str, number: int = 0) -> int:
        headers = {"X-Forwarded-For": f"192.0.2.{number}"}
        return client.post(SESSION, json={"name": name, "password": password}, headers=headers).status_code

    assert [guess("ann", "wrong wrong wrong", n) for n in range(5)] == [401] * 5
    assert guess("ann", people.password, 77) == 429  # the account, from anywhere
    assert guess("bob", "wrong wrong wrong", 78) == 429  # the address, whatever it forwards
    clock.move(seconds=3)
    assert guess("ann", people.password, 79) == 200


def test_the_wait_grows_with_every_failure(people, clock):
    client = people.nobody()
    waits = []
    for _ in range(9):
        answer = client.post(SESSION, json={"name": "nobody", "password": "wrong wrong wrong"})
        if answer.status_code == 429:
            waits.append(int(answer.headers["retry-after"]))
            clock.move(seconds=waits[-1] + 1)
    assert waits == sorted(waits)
    assert waits[-1] > waits[0]


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": ""},
        {"Origin": "null"},
        {CSRF_HEADER: "wrong"},
        {CSRF_HEADER: ""},
    ],
)
def test_a_write_from_another_page_is_refused(people, headers):
    client = people.sign_in(Role.VIEWER)

    answer = client.delete(SESSION, headers=headers)

    assert (answer.status_code, answer.json()["type"]) == (403, "urn:dicom-node:problem:cross-site")
    assert client.get(SESSION).status_code == 200


def test_no_method_is_overridden(people):
    client = people.sign_in(Role.VIEWER)

    client.get(SESSION, headers={"X-HTTP-Method-Override": "DELETE"})

    assert client.get(SESSION).status_code == 200


def test_a_key_acts_within_its_scopes_and_its_owner(people, clock):
    people.desk.access.add_user("bot", Role.OPERATOR, people.password, actor="test")
    record, key = people.desk.access.create_token(
        "bot", "ci", [Scope.ADMIN], lifetime=timedelta(days=1), actor="test"
    )
    client = people.nobody()
    client.headers["Authorization"] = f"Bearer {key}"

    assert client.get(SESSION).json()["role"] == "operator"  # never more than its owner
    clock.move(days=2)
    assert client.get(SESSION).status_code == 401
    assert record.expires_at < clock()


def test_a_revoked_key_and_one_of_a_disabled_user_open_nothing(people):
    people.desk.access.add_user("bot", Role.OPERATOR, people.password, actor="test")
    access, clients = people.desk.access, []
    for name in ("one", "two"):
        record, key = access.create_token("bot", name, [Scope.READ], lifetime=None, actor="test")
        client = people.nobody()
        client.headers["Authorization"] = f"Bearer {key}"
        clients.append((record, client))
    assert [client.get(SESSION).status_code for _, client in clients] == [200, 200]

    people.desk.store.access.revoke_token(clients[0][0].id, "test")
    assert [client.get(SESSION).status_code for _, client in clients] == [401, 200]
    people.desk.store.access.change_user("bot", "test", disabled=True)
    assert clients[1][1].get(SESSION).status_code == 401


def test_the_first_run_makes_one_administrator_with_a_secret_that_works_once(people, tmp_path):
    path = people.desk.access.prepare_first_run(tmp_path)
    client = people.nobody()
    asked = {"secret": path.read_text().strip(), "name": "root", "password": people.password}

    assert path.stat().st_mode & 0o777 == 0o600
    assert client.get(f"{SESSION}/first-run").json() == {"waiting": True}
    assert client.post(f"{SESSION}/first-run", json={**asked, "secret": "guess"}).status_code == 401
    assert client.post(f"{SESSION}/first-run", json=asked).json()["role"] == "admin"
    assert client.post(f"{SESSION}/first-run", json={**asked, "name": "mallory"}).status_code == 401
    assert client.get(f"{SESSION}/first-run").json() == {"waiting": False}
    assert people.desk.access.prepare_first_run(tmp_path) is None
    assert not path.exists()


@pytest.mark.parametrize("password", ["short", "administrator", "x" * 2000])
def test_a_weak_password_is_refused(people, tmp_path, password):
    secret = people.desk.access.prepare_first_run(tmp_path).read_text().strip()
    asked = {"secret": secret, "name": "administrator", "password": password}

    answer = people.nobody().post(f"{SESSION}/first-run", json=asked)

    assert answer.status_code == 422
    assert not people.desk.store.access.any_user()
