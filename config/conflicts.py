"""What is wrong between sections, though each may be well formed: unsafe or contradictory settings.

The checks read plain data as it stands in the file and pass over values of the wrong type, so that a slip
in one place does not hide what is wrong in another.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from config.api import ApiSection
from config.key_paths import KeyPath
from config.names import RETURN_TO_SENDER, is_loopback, same_host
from config.sections import NodeSection


@dataclass(frozen=True)
class Conflict:
    """One contradiction. `earlier` is the other place that it is about, where there is one."""

    path: KeyPath
    message: str
    earlier: KeyPath | None = None


def find_conflicts(data: Mapping[str, Any]) -> list[Conflict]:
    """Return every contradiction in the settings (raw, or dumped from the model); none when safe to start."""
    node, api = data.get("node", {}), data.get("api", {})
    peers, routes = _mappings(data.get("peers")), _mappings(data.get("routes"))
    return [
        *_open_door(node if isinstance(node, dict) else {}),
        *_open_page(api if isinstance(api, dict) else {}),
        *_repeated_names("peers", peers),
        *_repeated_names("routes", routes),
        *_loops(node if isinstance(node, dict) else {}, peers),
        *_unknown_destinations(peers, routes),
        *_ambiguous_senders(peers, routes),
        *_ambiguous_askers(peers),
        *_no_lists(peers, routes),
    ]


def nearest(word: str, valid: Collection[str]) -> str:
    """Return ``; did you mean X?`` when a valid word is close, else what is valid, else nothing."""
    by_folded = {name.casefold(): name for name in valid}
    close = difflib.get_close_matches(word.casefold(), list(by_folded), n=1, cutoff=0.6)
    if close:
        return f"; did you mean {by_folded[close[0]]}?"
    return f"; expected one of {', '.join(sorted(valid))}" if valid else ""


def _mappings(value: Any) -> dict[int, dict[str, Any]]:
    """The items that are mappings, by their position in the list."""
    items = value if isinstance(value, (list, tuple)) else ()
    return {position: item for position, item in enumerate(items) if isinstance(item, dict)}


def _texts(value: Any) -> list[tuple[int, str]]:
    """The texts of a list, or the one text in its place, with their positions."""
    items = value if isinstance(value, (list, tuple)) else (value,)
    return [(position, item) for position, item in enumerate(items) if isinstance(item, str)]


def _text(item: Mapping[str, Any], key: str) -> str | None:
    value = item.get(key)
    return value.strip() if isinstance(value, str) else None


def _node_value(node: Mapping[str, Any], key: str) -> Any:
    return node.get(key, NodeSection.model_fields[key].default)


def _open_door(node: Mapping[str, Any]) -> Iterator[Conflict]:
    host = _node_value(node, "host")
    if isinstance(host, str) and not node.get("accept_from") and not is_loopback(host.strip()):
        yield Conflict(
            ("node", "accept_from"),
            f"the node would listen on {host.strip()!r} and take images from anyone; "
            "list the AE titles that may call, or set host to 127.0.0.1",
        )


def _open_page(api: Mapping[str, Any]) -> Iterator[Conflict]:
    host = api.get("host", ApiSection.model_fields["host"].default)
    if api.get("enabled") is False or not isinstance(host, str) or is_loopback(host.strip()):
        return
    if not api.get("tls") and not api.get("trusted_proxies"):
        yield Conflict(
            ("api", "tls"),
            f"the page would answer on {host.strip()!r} in the clear, and passwords with it; "
            "set api.tls, or trusted_proxies for a proxy that speaks TLS, or host to 127.0.0.1",
        )


def _repeated(items: Mapping[int, Mapping[str, Any]], key: str) -> Iterator[tuple[int, int, str]]:
    """Positions of the later and the first item with one value of `key`, ignoring case."""
    first: dict[str, int] = {}
    for position, item in items.items():
        value = _text(item, key)
        if value is None:
            continue
        earlier = first.setdefault(value.casefold(), position)
        if earlier != position:
            yield position, earlier, value


def _repeated_names(section: str, items: Mapping[int, Mapping[str, Any]]) -> Iterator[Conflict]:
    for position, earlier, name in _repeated(items, "name"):
        yield Conflict(
            (section, position, "name"),
            f"the name {name!r} is taken by {section}[{earlier}]",
            (section, earlier, "name"),
        )


def _loops(node: Mapping[str, Any], peers: Mapping[int, Mapping[str, Any]]) -> Iterator[Conflict]:
    bound, our_port = _node_value(node, "host"), _node_value(node, "port")
    for position, peer in peers.items():
        host = _text(peer, "host")
        if host is None or not isinstance(bound, str) or peer.get("port") != our_port:
            continue
        if same_host(bound.strip(), host):
            yield Conflict(
                ("peers", position, "host"),
                f"{host} port {our_port} is this node itself: derived series would come back to us",
            )


def _unknown_destinations(
    peers: Mapping[int, Mapping[str, Any]], routes: Mapping[int, Mapping[str, Any]]
) -> Iterator[Conflict]:
    known = {name for peer in peers.values() if (name := _text(peer, "name")) is not None}
    for position, route in routes.items():
        named: list[tuple[KeyPath, str]] = [
            (("routes", position, "send_to", item), name) for item, name in _texts(route.get("send_to"))
        ]
        named += [(("routes", position, "count_from"), name) for _, name in _texts(route.get("count_from"))]
        for path, name in named:
            if name != RETURN_TO_SENDER and name not in known:
                yield Conflict(path, f"no peer is named {name!r}{nearest(name, known | {RETURN_TO_SENDER})}")


def _ambiguous_senders(
    peers: Mapping[int, Mapping[str, Any]], routes: Mapping[int, Mapping[str, Any]]
) -> Iterator[Conflict]:
    """Two peers of one AE title are fine until a route has to choose between them."""
    destinations = {
        name
        for route in routes.values()
        for key in ("send_to", "count_from")
        for _, name in _texts(route.get(key))
    }
    if RETURN_TO_SENDER not in destinations:
        return
    for position, earlier, title in _repeated(peers, "ae_title"):
        yield Conflict(
            ("peers", position, "ae_title"),
            f"{title} is also the AE title of peers[{earlier}], so {RETURN_TO_SENDER} has two meanings",
            ("peers", earlier, "ae_title"),
        )


def _ambiguous_askers(peers: Mapping[int, Mapping[str, Any]]) -> Iterator[Conflict]:
    """A request for safekeeping comes under an AE title, which has to say whose it is and where to report."""
    titles: dict[int, dict[str, Any]] = {}
    for position, peer in peers.items():
        asked = peer.get("safekeeping")
        if isinstance(asked, dict):
            titles[position] = {"ae_title": _text(asked, "ae_title") or _text(peer, "ae_title")}
    for position, earlier, title in _repeated(titles, "ae_title"):
        yield Conflict(
            ("peers", position, "safekeeping"),
            f"peers[{earlier}] asks for safekeeping as {title} too, so its requests have two owners",
            ("peers", earlier, "safekeeping"),
        )


def _no_lists(
    peers: Mapping[int, Mapping[str, Any]], routes: Mapping[int, Mapping[str, Any]]
) -> Iterator[Conflict]:
    """A route that wants the sender's list needs a sender that makes one."""
    if any(peer.get("safekeeping") is not None for peer in peers.values()):
        return
    for position, route in routes.items():
        if route.get("completeness") == "commitment":
            yield Conflict(
                ("routes", position, "completeness"),
                "completeness: commitment needs a peer with safekeeping, whose requests list what was sent",
            )
