"""A site that tests share: what each did there is told apart from what was there before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dicom_node.demo.archive import Archive
from dicom_node.demo.bench import RunningNode

Answer = Callable[[str], int]


def success(_uid: str) -> int:
    """What an archive answers that takes everything."""
    return 0x0000


@dataclass
class Site:
    """A node and its archive that tests share; each sends series of its own.

    answer  what the archive answers from now on, by SOP Instance UID
    """

    node: RunningNode
    archive: Archive
    answer: Answer
    before: frozenset[str] = frozenset()

    def derived(self) -> list[str]:
        """Series that the archive got since this test began."""
        return [uid for uid in self.archive.series() if uid not in self.before]
