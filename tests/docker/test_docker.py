"""The container files as far as they can be proven without a container engine."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.settings import load_settings
from dicom_node.demo.bench import free_port
from dicom_node.network import scu
from dicom_node.operations import check_enhancers

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile as pairs of instruction and arguments, continued lines joined, comments gone."""
    lines = [line for line in (DOCKER / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    return [
        (word, rest.strip())
        for line in joined.splitlines()
        if line.strip()
        for word, _, rest in [line.partition(" ")]
    ]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load((DOCKER / "compose.yaml").read_text())


@pytest.fixture(scope="module")
def orthanc_json() -> dict[str, Any]:
    return json.loads((DOCKER / "orthanc.json").read_text())


def ignored_except() -> set[str]:
    lines = (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()
    return {line[1:] for line in lines if line.startswith("!")}


# --- the image


def test_everything_the_image_copies_exists_and_is_not_ignored() -> None:
    sources = [
        source
        for word, rest in instructions()
        if word == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    ]

    assert set(sources) == {
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "config",
        "engine",
        "storage",
        "dicom_node",
    }
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert set(sources) == ignored_except()


def test_the_image_runs_as_a_user_without_rights_and_says_how_it_is() -> None:
    last_stage = instructions()[[word for word, _ in instructions()].index("FROM", 2) :]
    words = dict(last_stage)

    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", words["USER"])
    assert json.loads(words["HEALTHCHECK"].partition("CMD ")[2]) == ["dicom-node", "health"]
    assert json.loads(words["ENTRYPOINT"]) + json.loads(words["CMD"]) == ["dicom-node", "serve"]
    assert words["STOPSIGNAL"] == "SIGTERM"


def test_the_image_can_be_built_for_cpu_and_for_cuda() -> None:
    arguments = [rest for word, rest in instructions() if word == "ARG"]
    installs = next(rest for word, rest in instructions() if word == "RUN" and "torch" in rest)

    assert "DEVICE=cpu" in arguments
    assert "cpu)" in installs
    assert "cuda)" in installs


def test_no_image_is_taken_by_a_tag_that_moves(compose: dict[str, Any]) -> None:
    images = [service["image"] for service in compose["services"].values() if "build" not in service]

    assert [image for image in images if not re.search(r":[v\d][\w.-]+$", image)] == []


def test_the_wheel_holds_weights_migrations_and_the_template(tmp_path: Path) -> None:
    built = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])",
            tmp_path,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if "No module named 'hatchling'" in built.stderr:
        pytest.skip("hatchling, which builds the wheel, is not installed")
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())

    wanted = {
        str(path.relative_to(ROOT))
        for pattern in ("engine/bundles/*/*", "storage/migrations/**/*.py", "config/node.yaml", "*/py.typed")
        for path in ROOT.glob(pattern)
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"engine/bundles/ddpm3d-ctmr-1/weights.safetensors", "storage/migrations/env.py"} <= wanted
    assert wanted <= names


# --- the services


def test_every_mounted_file_exists(compose: dict[str, Any]) -> None:
    mounts = [m.split(":")[0] for service in compose["services"].values() for m in service.get("volumes", ())]

    assert [mount for mount in mounts if mount.startswith(".") and not (DOCKER / mount).is_file()] == []
    assert {mount for mount in mounts if not mount.startswith(".")} == set(compose["volumes"])


def test_the_password_variables_are_required_and_explained(compose: dict[str, Any]) -> None:
    text = (DOCKER / "compose.yaml").read_text()
    example = (DOCKER / "env.example").read_text()

    for name in ("NODE_DB_PASSWORD", "ARCHIVE_PASSWORD"):
        assert set(re.findall(rf"\$\{{{name}[^}}]*\}}", text)) == {f"${{{name}:?set it in docker/.env}}"}
        assert re.search(rf"^{name}=$", example, re.MULTILINE)


def test_only_the_dicom_ports_may_leave_the_machine(compose: dict[str, Any]) -> None:
    ports = {port for service in compose["services"].values() for port in service.get("ports", ())}

    assert {port for port in ports if not port.startswith("127.0.0.1:")} == {
        "${BIND:-127.0.0.1}:11112:11112",
        "${BIND:-127.0.0.1}:4242:4242",
    }
    assert compose["networks"]["database"] == {"internal": True}


def test_services_that_talk_share_a_network(compose: dict[str, Any]) -> None:
    networks = {name: set(service["networks"]) for name, service in compose["services"].items()}

    for one, other in (("node", "postgres"), ("node", "orthanc"), ("ohif", "orthanc")):
        assert networks[one] & networks[other], (one, other)


def test_the_node_accepts_its_configuration(compose: dict[str, Any]) -> None:
    settings = load_settings(DOCKER / "node.yaml")
    check_enhancers(settings)

    section = compose["services"]["postgres"]["environment"]
    assert settings.storage.resolved_database_url == (
        f"postgresql+psycopg://{section['POSTGRES_USER']}@postgres/{section['POSTGRES_DB']}"
    )
    assert f"node-data:{settings.storage.directory}" in compose["services"]["node"]["volumes"]


def test_node_and_archive_know_each_other(orthanc_json: dict[str, Any], compose: dict[str, Any]) -> None:
    settings = load_settings(DOCKER / "node.yaml")
    (archive,) = settings.peers

    assert (archive.ae_title, archive.port) == (orthanc_json["DicomAet"], orthanc_json["DicomPort"])
    assert archive.host in compose["services"]
    assert orthanc_json["DicomModalities"]["enhance"] == [
        settings.node.ae_titles[0],
        "node",
        settings.node.port,
    ]
    assert archive.ae_title in [caller.ae_title for caller in settings.node.accept_from]


def test_the_viewer_asks_the_archive_where_it_answers(orthanc_json: dict[str, Any]) -> None:
    script = (DOCKER / "ohif" / "app-config.js").read_text()
    server = (DOCKER / "ohif" / "nginx.conf").read_text()
    section = orthanc_json["DicomWeb"]

    assert set(re.findall(r"(?:qidoRoot|wadoRoot): '([^']+)'", script)) == {section["Root"].rstrip("/")}
    assert re.findall(r"wadoUriRoot: '([^']+)'", script) == [section["WadoRoot"]]
    assert f"proxy_pass http://orthanc:{orthanc_json['HttpPort']};" in server
    assert "location ~ ^/(dicom-web|wado)(/|$)" in server
    assert server.count("{") == server.count("}")


def test_the_page_is_reached_through_a_proxy_that_the_node_believes(compose: dict[str, Any]) -> None:
    page = load_settings(DOCKER / "node.yaml").api
    server = (DOCKER / "ohif" / "nginx.conf").read_text()
    (subnet,) = compose["networks"]["web"]["ipam"]["config"]

    assert [str(network) for network in page.proxies] == [subnet["subnet"]]
    assert f"set $page http://node:{page.port};" in server
    assert "127.0.0.1:8080:8080" in compose["services"]["ohif"]["ports"]
    assert {"node", "ohif"} <= {n for n, s in compose["services"].items() if "web" in s["networks"]}


def test_a_real_orthanc_takes_the_configuration_and_answers(
    orthanc_json: dict[str, Any], tmp_path: Path
) -> None:
    program = shutil.which("Orthanc")
    if program is None:
        pytest.skip("Orthanc is not installed (apt-get install orthanc)")
    http, dicom = free_port(), free_port()
    here = {
        "StorageDirectory": str(tmp_path),
        "IndexDirectory": str(tmp_path),
        "HttpPort": http,
        "DicomPort": dicom,
    }
    users = {"RegisteredUsers": {"archive": "secret"}}
    (tmp_path / "orthanc.json").write_text(json.dumps(orthanc_json | here | users))

    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([program, str(tmp_path / "orthanc.json")], stdout=log, stderr=log)
    try:
        assert ask_orthanc(http, process, "/modalities") == ["enhance"]
        settings = load_settings(DOCKER / "node.yaml")
        (archive,) = settings.peers
        there = archive.model_copy(update={"host": "127.0.0.1", "port": dicom, "calling_ae_title": "ENHANCE"})
        assert scu.echo(there).status == 0
    finally:
        process.terminate()
        process.wait(30)


def ask_orthanc(port: int, process: subprocess.Popen[bytes], path: str) -> Any:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}")
    request.add_header("Authorization", "Basic YXJjaGl2ZTpzZWNyZXQ=")  # archive:secret
    for _ in range(300):
        assert process.poll() is None, "Orthanc ended before it answered"
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return json.loads(answer.read())
        except OSError:
            time.sleep(0.2)
    pytest.fail("Orthanc did not answer within 60 s")
