"""Services beside storage and verification that an SCP may be given: their contexts and their handlers.

A service is injected by the composition root. The SCP negotiates its contexts on every association it
admits and hands its messages to the library, which calls the handlers on the association's thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pynetdicom.events import EventType
from pynetdicom.presentation import PresentationContext

Handler = Callable[[Any], Any]


@dataclass(frozen=True)
class ScpService:
    """One service: presentation contexts as the library takes them, and who answers which event."""

    contexts: tuple[PresentationContext, ...]
    handlers: tuple[tuple[EventType, Handler], ...]
