"""Users and keys over the API."""

from __future__ import annotations

from dicom_node.desk.roles import Role


def test_an_administrator_adds_changes_and_removes_a_user(admin, people):
    asked = {"name": "ann", "role": "viewer", "password": people.password}

    assert admin.post("/api/v1/users", json=asked).status_code == 201
    assert admin.post("/api/v1/users", json=asked).json()["type"] == "urn:dicom-node:problem:taken"
    ann = people.sign_in(Role.VIEWER, "ann")
    assert admin.patch("/api/v1/users/ann", json={"role": "operator"}).json()["role"] == "operator"
    assert ann.get("/api/v1/session").status_code == 401
    assert admin.delete("/api/v1/users/ann").status_code == 204
    assert "password" not in admin.get("/api/v1/users").text.replace("password_changed_at", "")


def test_the_last_administrator_stays(admin):
    assert admin.delete("/api/v1/users/admin-1").status_code == 409
    assert admin.patch("/api/v1/users/admin-1", json={"role": "viewer"}).status_code == 409
    assert admin.patch("/api/v1/users/admin-1", json={"disabled": True}).status_code == 409


def test_a_password_is_changed_by_one_who_knows_the_old_one(viewer, people):
    wrong = {"old": "not the password", "new": "another long password"}
    assert viewer.post("/api/v1/session/password", json=wrong).status_code == 401
    right = {"old": people.password, "new": "another long password"}
    assert viewer.post("/api/v1/session/password", json=right).status_code == 204
    assert viewer.get("/api/v1/session").status_code == 401


def test_a_key_is_shown_once_and_revoked(viewer, people):
    made = viewer.post("/api/v1/tokens", json={"name": "ci", "scopes": ["read"]}).json()
    client = people.nobody()
    client.headers["Authorization"] = f"Bearer {made['secret']}"

    assert client.get("/api/v1/overview").status_code == 200
    assert client.post("/api/v1/tokens", json={"name": "x", "scopes": ["read"]}).status_code == 403
    (listed,) = viewer.get("/api/v1/tokens").json()
    assert listed["secret"] is None
    assert viewer.delete(f"/api/v1/tokens/{made['id']}").status_code == 204
    assert client.get("/api/v1/overview").status_code == 401


def test_nobody_revokes_the_key_of_another(viewer, operator):
    made = operator.post("/api/v1/tokens", json={"name": "ci", "scopes": ["read"]}).json()

    assert viewer.get("/api/v1/tokens").json() == []
    assert viewer.delete(f"/api/v1/tokens/{made['id']}").status_code == 403
