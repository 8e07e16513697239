"""Settings load strictly: every mistake at once, with its key path, its line and what to write instead."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path

import pytest
from pydantic import ValidationError

from config.errors import ConfigError, Problem
from config.sections import NodeSection, Peer, Route, Watermarks
from config.settings import Settings, load_settings

Load = Callable[[str], Settings]
Refuse = Callable[[str], dict[str, Problem]]

PACS = "{name: pacs, ae_title: PACS, host: 10.0.0.5, port: 104}"


def test_small_file_is_filled_with_defaults(load: Load) -> None:
    settings = load("node: {port: 0}")

    assert settings == Settings(node=NodeSection(port=0), storage=settings.storage)
    assert settings.node.host == "127.0.0.1"
    assert settings.completion.quiet_period_by_modality == {
        "CT": timedelta(seconds=30),
        "MR": timedelta(seconds=90),
    }


def test_values_are_read_with_their_units(load: Load) -> None:
    settings = load(
        """
        node: {max_pdu: 64 KiB, timeouts: {dimse: 2 min}}
        storage: {watermarks: {soft: 70 %, hard: 95 %, reserve: 10 GB}}
        completion: {quiet_period: 45 s, quiet_period_by_ae: {MR_2: 5 min}, interrupted_factor: 4}
        delivery: {give_up_after: 7 d}
        """
    )

    assert settings.node.max_pdu == 65536
    assert settings.node.timeouts.dimse == timedelta(minutes=2)
    assert settings.storage.watermarks == Watermarks(soft=70.0, hard=95.0, reserve=10**10)
    assert settings.completion.quiet_period_by_ae == {"MR_2": timedelta(minutes=5)}
    assert settings.delivery.give_up_after == timedelta(days=7)


def test_one_value_may_stand_for_a_list_of_one(load: Load) -> None:
    settings = load(
        f"""
        node: {{ae_titles: ENHANCE2, accept_from: SCANNER}}
        peers: [{PACS}]
        routes: [{{name: all, send_to: pacs}}]
        """
    )

    assert settings.node.ae_titles == ("ENHANCE2",)
    assert settings.node.accept_from[0].ae_title == "SCANNER"
    assert settings.routes[0].send_to == ("pacs",)


def test_callers_are_a_title_alone_or_with_a_network(load: Load) -> None:
    settings = load(
        """
        node:
          host: 0.0.0.0
          accept_from: [CT_1, {ae_title: PACS, network: 10.1.0.0/16}, {ae_title: MR, network: 10.2.0.7}]
        """
    )

    networks = [caller.network for caller in settings.node.accept_from]
    assert networks == [None, ip_network("10.1.0.0/16"), ip_network("10.2.0.7/32")]


def test_relative_storage_starts_from_the_folder_of_the_file(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")

    storage = load("storage: {directory: data/node}").storage

    assert storage.directory == tmp_path / "data" / "node"
    assert storage.resolved_database_url == f"sqlite:///{tmp_path}/data/node/node.db"


@pytest.mark.parametrize("text", ["node: {}", "storage: {watermarks: {soft: 70 %}}"])
def test_default_storage_starts_from_the_folder_of_the_file_too(
    load: Load, tmp_path: Path, text: str
) -> None:
    assert load(text).storage.directory == tmp_path / "node-data"


def test_absolute_storage_stays_where_it_is(load: Load) -> None:
    assert load("storage: {directory: /var/lib/node}").storage.directory == Path("/var/lib/node")


def test_configured_database_is_used_and_stays_out_of_reprs(load: Load) -> None:
    settings = load("storage: {database_url: 'postgresql+psycopg://node:secret@db/node'}")

    assert settings.storage.resolved_database_url == "postgresql+psycopg://node:secret@db/node"
    assert "secret" not in repr(settings)


@pytest.mark.parametrize("url", ["mysql://u:secret@h/d", "sqlite:///node.db", "sqlite://", "secret", "7"])
def test_refused_database_url_is_not_repeated(refuse: Refuse, url: str) -> None:
    problem = refuse(f"storage: {{database_url: {url}}}")["storage.database_url"]

    assert "secret" not in str(problem)


def test_every_problem_is_listed_at_once_in_file_order(load: Load) -> None:
    with pytest.raises(ConfigError) as refused:
        load(
            """\
            node:
              host: 0.0.0.0
              prot: 104
              max_pdu: 131072
            peers:
              - {name: pacs, ae_title: PACS, host: h, port: 0}
              - {name: pacs, ae_title: ARCHIVE, host: h, port: 105}
            completion:
              quiet_period: 60
              quiet_period: 30 s
            routes:
              - name: ct
                when: {modality: CT, kernal: B30}
                send_to: [pasc]
            """
        )

    assert [str(problem) for problem in refused.value.problems] == [
        "line 1: node.accept_from: the node would listen on '0.0.0.0' and take images from anyone; "
        "list the AE titles that may call, or set host to 127.0.0.1",
        "line 3: node.prot: unknown key; did you mean port?",
        "line 4: node.max_pdu: 131072 is a bare number; write 131072 B",
        "line 6: peers[0].port: 0 is too little; at least 1",
        "line 7: peers[1].name: the name 'pacs' is taken by peers[0] (line 6)",
        "line 9: completion.quiet_period: 60 is a bare number; write 60 s",
        "line 10: completion.quiet_period: the key is given twice, first on line 9",
        "line 13: routes[0].when.kernal: unknown key; did you mean kernel?",
        "line 14: routes[0].send_to[0]: no peer is named 'pasc'; did you mean pacs?",
    ]
    assert str(refused.value).startswith("node.yaml: 9 problems\n")


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        ("nodes: {}", "nodes", "unknown key; did you mean node?"),
        ("quiet_period: 5 s", "quiet_period", "unknown key; quiet_period belongs in completion"),
        (
            "routes: [{name: a, send_to: return-to-sender, strength: 0.5}]",
            "routes[0].strength",
            "unknown key; strength belongs in routes[0].enhancement",
        ),
        ("delivery: {backoff_first: 5 m}", "delivery.backoff_first", "the unit 'm' is not known here"),
        ("storage: {watermarks: {soft: 80}}", "storage.watermarks.soft", "80 is a bare number; write 80 %"),
        ("storage: {watermarks: {soft: 95 %}}", "storage.watermarks", "hard is below soft"),
        (
            "storage: {watermarks: {hard: 101 %}}",
            "storage.watermarks.hard",
            "101 % is too much; at most 100 %",
        ),
        ("storage: {watermarks: {reserve: 5}}", "storage.watermarks.reserve", "write 5 B"),
        ("node: {max_pdu: 0 B}", "node.max_pdu", "0 B is too little; at least 4 KiB"),
        ("completion: {quiet_period: 0 s}", "completion.quiet_period", "0 s is too little; more than 0 s"),
        ("completion: {quiet_period: true}", "completion.quiet_period", "expected a duration, such as 60 s"),
        ("node: {port: '104'}", "node.port", "expected a whole number"),
        ("node: {port: true}", "node.port", "expected a whole number, found true"),
        ("node: {max_associations: 1.5}", "node.max_associations", "expected a whole number, found 1.5"),
        ("node: {ae_titles: 1234}", "node.ae_titles", "expected a list"),
        ("node: {ae_titles: [1234]}", "node.ae_titles[0]", "a number is no text; write it in quotes"),
        ("node: {ae_titles: [A, A]}", "node.ae_titles", "an AE title is listed twice"),
        ("node: {ae_titles: []}", "node.ae_titles", "the list is empty"),
        ("node: {accept_from: '*'}", "node.accept_from[0].ae_title", "there are no wildcards here"),
        (
            "node: {accept_from: [{ae_title: A, network: 10.1.2.3/16}]}",
            "node.accept_from[0].network",
            "write 10.1.0.0/16, or the address alone",
        ),
        (
            "node: {accept_from: [{ae_title: A, network: pacs}]}",
            "node.accept_from[0].network",
            "expected a network",
        ),
        ("node: {host: 'http://x'}", "node.host", "expected a host name or an IP address"),
        ("enhancement: {strength: 1.5}", "enhancement.strength", "1.5 is too much; at most 1.0"),
        ("enhancement: {strength: true}", "enhancement.strength", "expected a number, found true"),
        ("derivation: {comment: maybe}", "derivation.comment", "expected true or false, found 'maybe'"),
        (
            "derivation: {description_suffix: '[ä]'}",
            "derivation.description_suffix",
            "1 to 16 ASCII characters",
        ),
        ("derivation: {station_name: 'A\\B'}", "derivation.station_name", "without backslash"),
        ("derivation: {uid_root: 1.2.03}", "derivation.uid_root", "expected a UID root"),
        (f"derivation: {{uid_root: 1.2.{'9' * 40}}}", "derivation.uid_root", "at most 43"),
        ("derivation: {content_qualification: PRODUCT}", "derivation.content_qualification", "RESEARCH"),
        ("delivery: {backoff_first: 1 h}", "delivery.backoff_longest", "shorter than backoff_first"),
        ("logging: {level: info}", "logging.level", "'info' is not known here; did you mean INFO?"),
        (
            "completion: {quiet_period_by_modality: {ct: 5 s}}",
            "completion.quiet_period_by_modality.ct",
            "capitals: CT",
        ),
        ("peers: [{name: a}]", "peers[0].ae_title", "this key is required"),
        ("peers: [pacs]", "peers[0]", "expected a mapping of keys and values, found 'pacs'"),
        ("peers:", "peers", "nothing is written here; give a value or remove the key"),
        ("storage: {directory: ~/data}", "storage.directory", "write the path out"),
        ("routes: [{name: a}]", "routes[0].send_to", "an enhanced series needs a destination"),
        (
            "routes: [{name: a, action: ignore, send_to: x}]",
            "routes[0].send_to",
            "an ignored series is sent nowhere",
        ),
        ("routes: [{name: a, action: ingore}]", "routes[0].action", "did you mean ignore?"),
        (
            "routes: [{name: a, action: ignore, when: {modality: }}]",
            "routes[0].when.modality",
            "nothing is written",
        ),
        (
            "routes: [{name: a, action: ignore, enhancement: {options: {x: [1]}}}]",
            "routes[0].enhancement.options.x",
            "expected a text, a number, or true or false",
        ),
        ("[node]", "", "expected a mapping of keys and values, found a list"),
    ],
)
def test_mistake_is_named_with_what_to_write(refuse: Refuse, text: str, key: str, message: str) -> None:
    problems = refuse(text)

    assert message in problems[key].message
    assert problems[key].line == 1


def test_registered_uid_root_is_taken(load: Load) -> None:
    root = "1.2.826.0.1.3680043.10.1234"

    assert load(f"derivation: {{uid_root: {root}}}").derivation.uid_root == root


@pytest.mark.parametrize("title", ["", " ", "A" * 17, "A\\B", "A\x07", "TÜV"])
def test_ae_title_outside_the_standard_is_refused(title: str) -> None:
    with pytest.raises(ValidationError):
        NodeSection(ae_titles=(title,))


def test_spaces_around_an_ae_title_do_not_count() -> None:
    assert NodeSection(ae_titles=(" ENHANCE 2 ",)).ae_titles == ("ENHANCE 2",)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "localhost", "::1"])
def test_loopback_needs_no_list_of_callers(host: str) -> None:
    assert Settings(node=NodeSection(host=host)).node.accept_from == ()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "node.hospital.example"])
def test_open_address_without_list_of_callers_does_not_load(refuse: Refuse, host: str) -> None:
    problem = refuse(f'node: {{host: "{host}"}}')["node.accept_from"]

    assert "take images from anyone" in problem.message


@pytest.mark.parametrize(
    ("bound", "peer_host", "is_us"),
    [
        ("127.0.0.1", "localhost", True),
        ("127.0.0.1", "10.0.0.5", False),
        ("0.0.0.0", "127.0.0.1", True),
        ("10.0.0.5", "10.0.0.5", True),
        ("10.0.0.5", "10.0.0.6", False),
        ("10.0.0.5", "127.0.0.1", False),
        ("Node.Example", "node.example", True),
    ],
)
def test_peer_at_our_own_address_and_port_does_not_load(bound: str, peer_host: str, is_us: bool) -> None:
    node = NodeSection.model_validate({"host": bound, "port": 11112, "accept_from": "X"})
    peer = Peer(name="pacs", ae_title="PACS", host=peer_host, port=11112)

    if is_us:
        with pytest.raises(ValidationError, match="is this node itself"):
            Settings(node=node, peers=(peer,))
    else:
        assert Settings(node=node, peers=(peer,)).peers == (peer,)


def test_same_host_on_another_port_is_another_node(load: Load) -> None:
    settings = load("peers: [{name: archive, ae_title: ARCHIVE, host: 127.0.0.1, port: 4242}]")

    assert settings.peers[0].port == 4242


def test_repeated_route_name_names_the_line_of_the_first(refuse: Refuse) -> None:
    problems = refuse("routes:\n  - {name: Head, action: ignore}\n  - {name: head, action: ignore}\n")

    assert problems["routes[1].name"].message == "the name 'head' is taken by routes[0] (line 2)"
    assert problems["routes[1].name"].line == 3


def test_route_to_a_peer_that_is_wrong_itself_is_not_blamed(refuse: Refuse) -> None:
    problems = refuse(
        "peers: [{name: pacs, ae_title: PACS, host: h, port: 0}]\nroutes: [{name: a, send_to: pacs}]\n"
    )

    assert list(problems) == ["peers[0].port"]


def test_return_to_sender_with_two_peers_of_one_title_does_not_load(refuse: Refuse) -> None:
    peers = "peers: [{name: a, ae_title: CT, host: h, port: 1}, {name: b, ae_title: CT, host: i, port: 1}]\n"

    problems = refuse(peers + "routes: [{name: back, send_to: return-to-sender}]\n")

    assert "return-to-sender has two meanings (line 1)" in problems["peers[1].ae_title"].message


def test_two_peers_of_one_title_are_fine_when_routes_name_them(load: Load) -> None:
    peers = "peers: [{name: a, ae_title: CT, host: h, port: 1}, {name: b, ae_title: CT, host: i, port: 1}]\n"

    assert len(load(peers + "routes: [{name: both, send_to: [a, b]}]\n").peers) == 2


def test_peer_cannot_take_the_word_for_the_sender() -> None:
    with pytest.raises(ValidationError, match="cannot be a name"):
        Peer(name="return-to-sender", ae_title="A", host="h", port=104)


def test_conflicts_are_refused_in_code_too() -> None:
    with pytest.raises(ValidationError, match="no peer is named 'pacs'"):
        Settings(routes=(Route(name="a", send_to=("pacs",)),))


def test_peers_are_found_by_name_and_by_the_title_that_called() -> None:
    peer = Peer(name="pacs", ae_title="PACS", host="h", port=104)
    settings = Settings(peers=(peer,))

    assert settings.peer("pacs") == peer.model_copy(update={"calling_ae_title": "ENHANCE"})
    assert settings.peer("PACS") is None
    assert settings.return_peer("PACS ") is peer
    assert settings.return_peer("CT") is None
    assert settings.calling_title(peer) == "ENHANCE"
    assert settings.calling_title(peer.model_copy(update={"calling_ae_title": "X"})) == "X"


def test_a_request_for_safekeeping_is_known_by_the_title_it_comes_under() -> None:
    peer = {"name": "ct", "ae_title": "CT", "host": "h", "port": 104}
    settings = Settings.model_validate({"peers": [{**peer, "safekeeping": {"ae_title": "CT_SC"}}]})

    assert settings.promises
    assert settings.asking_peer("CT_SC ") is settings.peers[0]
    assert settings.asking_peer("CT") is None
    assert Settings.model_validate({"peers": [peer]}).asking_peer("CT") is None


def test_two_peers_cannot_ask_for_safekeeping_under_one_title() -> None:
    peer = {"ae_title": "CT", "host": "h", "port": 104, "safekeeping": {}}
    with pytest.raises(ValidationError, match="two owners"):
        Settings.model_validate({"peers": [{"name": "a", **peer}, {"name": "b", **peer}]})


def test_a_route_that_wants_the_senders_list_needs_a_sender_that_lists() -> None:
    peer = {"name": "ct", "ae_title": "CT", "host": "h", "port": 104}
    route = {"name": "all", "send_to": ["ct"], "completeness": "commitment"}
    with pytest.raises(ValidationError, match="needs a peer with safekeeping"):
        Settings.model_validate({"peers": [peer], "routes": [route]})
    assert Settings.model_validate({"peers": [{**peer, "safekeeping": {}}], "routes": [route]})


def test_settings_are_frozen(load: Load) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load("node: {}").node.port = 1


def test_route_is_rebuilt_from_its_json_snapshot() -> None:
    route = Route.model_validate(
        {
            "name": "thin heads",
            "when": {"modality": "CT", "slice_thickness": {"at_most": "1.25 mm"}, "not": {"kernel": "B*"}},
            "enhancement": {
                "strength": 1,
                "options": {"tiles": 4, "mode": "soft", "scale": 0.5, "fast": True},
            },
            "quiet_period": timedelta(milliseconds=1500),
            "send_to": ["pacs", "return-to-sender"],
        }
    )

    copy = Route.model_validate(json.loads(json.dumps(route.model_dump(mode="json"))))

    assert copy == route
    assert copy.quiet_period == timedelta(seconds=1.5)
    assert {key: type(value) for key, value in copy.enhancement.options.items()} == {
        "tiles": int,
        "mode": str,
        "scale": float,
        "fast": bool,
    }


def test_settings_survive_their_json_form(load: Load) -> None:
    settings = load(
        f"""
        node: {{host: 0.0.0.0, accept_from: [{{ae_title: CT, network: 10.0.0.0/8}}]}}
        peers: [{PACS}]
        routes: [{{name: all, send_to: pacs, when: {{slice_count: {{at_least: 10}}}}}}]
        """
    )

    assert Settings.model_validate(json.loads(settings.model_dump_json())) == settings


def test_unreadable_file_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(tmp_path)
