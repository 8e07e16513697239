"""Metrics, each moved by a test; alerts, told to a real mail server and a real web server."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import ip_network

import pytest
from aiosmtpd.controller import Controller

from config.alerts import AlertsSection, MailSection, WebhookSection
from dicom_node.desk.alerts import AlertWatch
from dicom_node.desk.channels import NotToldError, call_webhook
from dicom_node.desk.metrics import Metrics, render
from dicom_node.desk.roles import Role, Scope
from storage.delivery_records import NewAnswer
from storage.pauses import Part
from storage.states import DeliveryState, JobKind

LEASE = timedelta(seconds=60)
LOOPBACK = (ip_network("127.0.0.0/8"),)


def figures(desk) -> dict[str, float]:
    desk.figures.forget()
    text = render(Metrics(desk, kept_s=0).families())
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name.removeprefix("dicom_node_"): float(value) for name, _, value in lines}


def _associate(desk, line):
    desk.store.index.open_association("A", "ENHANCE", "192.0.2.1", "run")


def _release(desk, line):
    number = desk.store.index.open_association("A", "ENHANCE", "192.0.2.1", "run")
    desk.store.index.close_association(number, "released")


def _reject(desk, line):
    desk.store.trail.append("association.rejected", data={})


def _receive(desk, line):
    line.series()


def _enqueue(desk, line):
    line.job()


def _enhance(desk, line):
    line.derived()


def _wait(desk, line):
    line.job()
    desk.now.move(minutes=5)


def _pause(desk, line):
    desk.store.pauses.set(Part.SENDING, paused=True, actor="test")


def _fail_peer(desk, line):
    _down(desk.store)


def _down(store) -> None:
    store.destinations.failed("pacs", "no", wait=lambda _: timedelta(hours=1), opens_at=3)


def _deliver(desk, line):
    line.derived()
    job = desk.store.jobs.claim(JobKind.DELIVER, "s", LEASE, destination="pacs")
    rows = desk.store.deliveries.for_job(job.id)
    answers = [NewAnswer(delivery.id, DeliveryState.DELIVERED, 0) for delivery, _ in rows]
    desk.store.deliveries.record(job, answers)


def _hold(desk, line):
    line.close(line.series(), "hold", reason="MISSING_SLICE", message="A slice is missing.")
    desk.watch.sweep()


@pytest.mark.parametrize(
    ("act", "name", "by"),
    [
        (_associate, "associations_open", 1),
        (_release, 'associations_total{ending="released"}', 1),
        (_reject, "associations_rejected_total", 1),
        (_receive, "instances_stored", 1),
        (_receive, "instances_stored_bytes", 3),
        (_receive, 'series{modality="CT",state="RECEIVING"}', 1),
        (_enqueue, 'jobs{kind="ENHANCE",state="PENDING"}', 1),
        (_wait, 'queue_age_seconds{kind="ENHANCE"}', 300),
        (_enhance, 'stage_seconds{stage="ENHANCE"}', 5),
        (_enhance, 'deliveries{destination="pacs",state="PENDING"}', 2),
        (_deliver, 'deliveries{destination="pacs",state="DELIVERED"}', 2),
        (_fail_peer, 'destination_failures{destination="pacs"}', 1),
        (_pause, 'paused{part="sending"}', 1),
        (_hold, 'alerts{kind="held"}', 1),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_metric_moves_with_what_it_measures(desk, line, act, name, by):
    before = figures(desk).get(name, 0.0)

    act(desk, line)

    assert figures(desk)[name] - before == by


def test_the_disk_and_the_machine_are_measured(desk, settings):
    before = figures(desk)
    (settings.storage.directory / "ballast").write_bytes(bytes(64 * 1024**2))

    after = figures(desk)

    assert after['disk_bytes{kind="used"}'] > before['disk_bytes{kind="used"}']
    assert after['disk_bytes{kind="free"}'] <= after['disk_bytes{kind="total"}']
    assert after["load"] >= 0
    assert any(name.startswith("info{version=") for name in after)


def test_a_gpu_is_measured_by_its_own_tool(desk, viewer, tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho '0, 37, 1024, 81920'\n")
    tool.chmod(0o755)
    assert 'gpu_utilization_percent{gpu="0"}' not in figures(desk)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    seen = figures(desk)

    assert seen['gpu_utilization_percent{gpu="0"}'] == 37
    assert seen['gpu_memory_bytes{gpu="0",kind="used"}'] == 1024 * 1024**2
    assert seen['gpu_memory_bytes{gpu="0",kind="total"}'] == 81920 * 1024**2
    assert "37 % in use" in viewer.get("/overview").text
    assert viewer.get("/api/v1/overview").json()["machine"]["gpus"][0]["use"] == 37


def test_every_metric_that_exists_is_moved_by_a_test(desk, line):
    line.derived()
    named = {family.name.removeprefix("dicom_node_") for family in Metrics(desk).families()}
    moved = {re.split(r"[{ ]", case[1])[0] for case in _cases()}

    assert named == moved | {"disk_bytes", "load", "gpu_utilization_percent", "gpu_memory_bytes", "info"}


def _cases():
    return test_each_metric_moves_with_what_it_measures.pytestmark[0].args[1]


def test_metrics_need_a_key_for_metrics(people):
    people.desk.access.add_user("bot", Role.VIEWER, people.password, actor="test")

    def status(*scopes: Scope) -> int:
        _, key = people.desk.access.create_token("bot", "x", scopes, lifetime=None, actor="test")
        client = people.nobody()
        client.headers["Authorization"] = f"Bearer {key}"
        return client.get("/api/v1/metrics").status_code

    assert people.nobody().get("/api/v1/metrics").status_code == 401
    assert (status(Scope.METRICS), status(Scope.READ)) == (200, 403)


class Mailbox:
    """Keeps what a mail server was handed."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []

    async def handle_DATA(self, server, session, envelope) -> str:  # noqa: N802 (the library's name)
        self.messages.append(envelope.content)
        return "250 OK"


@pytest.fixture
def mailbox() -> Iterator[tuple[Mailbox, int]]:
    box = Mailbox()
    controller = Controller(box, hostname="127.0.0.1", port=_free_port())
    controller.start()
    yield box, controller.port
    controller.stop()


def _free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class Hook(BaseHTTPRequestHandler):
    """Keeps what it is told; answers as it is asked to."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.told.append((dict(self.headers), json.loads(body)))
        self.send_response(self.server.status)
        if self.server.status == 302:
            self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Stay quiet."""


@pytest.fixture
def hook() -> Iterator[HTTPServer]:
    server = HTTPServer(("127.0.0.1", 0), Hook)
    server.told, server.status = [], 200
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def section(mail_port: int | None = None, hook: HTTPServer | None = None, **more) -> AlertsSection:
    mail = None
    if mail_port is not None:
        mail = MailSection(
            host="127.0.0.1",
            port=mail_port,
            security="none",
            sender="node@hospital.example",
            recipients=("team@hospital.example",),
        )
    url = f"http://127.0.0.1:{hook.server_port}/alerts" if hook else ""
    hooks = (WebhookSection(url=url),) if hook else ()
    return AlertsSection(mail=mail, webhooks=hooks, allow_private=LOOPBACK, **more)


def watch(desk, settings, alerts: AlertsSection) -> AlertWatch:
    return AlertWatch(desk.store, settings.model_copy(update={"alerts": alerts}), now=desk.now)


def test_what_is_wrong_is_told_once_to_mail_and_webhook(desk, settings, scans, mailbox, hook):
    box, port = mailbox
    series = scans.series()
    revision = desk.store.index.get_series(series).revision
    desk.store.index.close_series(
        series, revision, event="hold", reason="MISSING_SLICE", message="A slice is missing."
    )
    watching = watch(desk, settings, section(port, hook))

    watching.sweep()
    watching.sweep()

    (mail,) = box.messages
    ((_, told),) = hook.told
    assert f"Series {series} is held for a person: MISSING_SLICE.".encode() in mail
    assert [alert["kind"] for alert in told["alerts"]] == ["held"]
    assert b"PHANTOM" not in mail
    assert "PHANTOM" not in json.dumps(told)


def test_each_kind_of_trouble_is_noticed_and_over_when_it_is_over(desk, settings, line, clock):
    job = line.job()
    claimed = desk.store.jobs.claim(JobKind.ENHANCE, "w", LEASE)
    desk.store.jobs.fail(claimed, reason="UNSAFE_OUTPUT", message="no")
    line.job()
    for _ in range(3):
        _down(desk.store)
    clock.move(hours=2)
    marks = settings.storage.watermarks.model_copy(update={"soft": 0.001})
    full = settings.model_copy(update={"storage": settings.storage.model_copy(update={"watermarks": marks})})
    watching = AlertWatch(desk.store, full, now=clock)

    desk.store.alarms.raise_("damaged_file", "instance 7")

    watching.sweep()
    kinds = {alert.kind for alert in desk.store.alerts.lasting()}
    assert kinds == {"failed", "stuck", "peer", "disk", "alarm"}

    desk.store.jobs.resubmit(job, "test")
    desk.store.destinations.works("pacs")
    AlertWatch(desk.store, settings, now=clock).sweep()
    assert not {"failed", "peer"} & {alert.kind for alert in desk.store.alerts.lasting()}


def test_messages_are_held_apart_and_repeated_while_it_lasts(desk, settings, line, clock, hook):
    watching = watch(desk, settings, section(hook=hook))

    def hold() -> None:
        line.close(line.series(), "hold", reason="MISSING_SLICE", message="A slice is missing.")
        watching.sweep()

    hold()
    hold()
    hold()
    assert [told["count"] for _, told in hook.told] == [1]
    clock.move(minutes=6)
    watching.sweep()
    assert [told["count"] for _, told in hook.told] == [1, 2]
    clock.move(hours=13)
    watching.sweep()
    assert [told["count"] for _, told in hook.told] == [1, 2, 3]


def test_what_could_not_be_told_is_told_later(desk, settings, line, clock, hook):
    watching = watch(desk, settings, section(hook=hook))
    hook.status = 500
    line.close(line.series(), "hold", reason="MISSING_SLICE", message="A slice is missing.")

    assert watching.sweep() == []
    hook.status = 200
    clock.move(minutes=6)
    assert len(watching.sweep()) == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9/x",
        "http://localhost:9/x",
        "http://10.0.0.1/x",
        "http://169.254.169.254/latest/meta-data",
        "http://[::1]:9/x",
        "http://[::ffff:127.0.0.1]:9/x",
        "http://0.0.0.0:9/x",
    ],
)
def test_a_webhook_reaches_no_private_network_by_itself(url):
    with pytest.raises(NotToldError, match="private"):
        call_webhook(WebhookSection(url=url), {}, allowed=())


def test_a_redirect_is_not_followed(hook):
    hook.status = 302

    with pytest.raises(NotToldError, match="302"):
        call_webhook(WebhookSection(url=f"http://127.0.0.1:{hook.server_port}/"), {}, allowed=LOOPBACK)
    assert len(hook.told) == 1


def test_a_signed_webhook_can_be_checked(hook, tmp_path):
    import hashlib
    import hmac

    (tmp_path / "secret").write_bytes(b"key\n")
    hooked = WebhookSection(url=f"http://127.0.0.1:{hook.server_port}/", secret_file=tmp_path / "secret")

    call_webhook(hooked, {"event": "test"}, allowed=LOOPBACK)

    ((headers, body),) = hook.told
    expected = hmac.new(b"key", json.dumps(body).encode(), hashlib.sha256).hexdigest()
    assert headers["X-Signature-SHA256"] == expected


def test_the_test_button_tells_what_each_channel_said(admin, desk, settings, hook):
    object.__setattr__(desk, "watch", watch(desk, settings, section(_free_port(), hook)))

    seen = admin.post("/api/v1/alerts/test").json()

    assert [told["channel"] for told in seen] == ["mail", "webhook 1"]
    assert "did not take" in seen[0]["error"]
    assert seen[1]["error"] is None
    assert hook.told[0][1]["event"] == "test"


def test_the_page_lists_what_is_wrong(viewer, desk, line):
    line.close(line.series(), "hold", reason="MISSING_SLICE", message="A slice is missing.")
    desk.watch.sweep()

    (alert,) = viewer.get("/api/v1/alerts").json()

    assert alert["text"] == "Series 1 is held for a person: MISSING_SLICE."
