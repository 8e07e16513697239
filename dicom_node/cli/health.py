"""The command a container's health check runs: does the node on this machine answer?"""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress

import typer

from config.sections import NodeSection, Peer
from dicom_node.cli.render import complain
from dicom_node.cli.session import DEFAULT_CONFIG, ConfigOption, settings_of
from dicom_node.errors import AssociationRejectedError, PeerError
from dicom_node.network import scu

_TIMEOUT_S = 8.0
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - looked up, not bound to


def health(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Exit with 0 while the DICOM port of this machine's node answers, else with 1."""
    node = settings_of(config).node
    alive = _answers_tls(node) if node.tls is not None else _answers_echo(node)
    if not alive:
        complain(f"No answer at {_host(node)}:{node.port}.")
        raise typer.Exit(1)


def _host(node: NodeSection) -> str:
    return _ANY_ADDRESS.get(node.host, node.host)


def _answers_echo(node: NodeSection) -> bool:
    """Whether a C-ECHO under our own title is answered; a rejection is an answer too."""
    ours = node.ae_titles[0]
    us = Peer(name="self", ae_title=ours, host=_host(node), port=node.port, calling_ae_title=ours)
    try:
        return scu.echo(us).status == 0
    except AssociationRejectedError as exc:
        return exc.permanent
    except PeerError:
        return False


def _answers_tls(node: NodeSection) -> bool:
    """Whether the port shakes hands, or refuses to for want of a certificate: either way it is awake."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # nothing is sent; only whether something answers is asked
    with suppress(OSError), socket.create_connection((_host(node), node.port), _TIMEOUT_S) as plain:
        try:
            with context.wrap_socket(plain):
                return True
        except ssl.SSLError:
            return True
    return False
