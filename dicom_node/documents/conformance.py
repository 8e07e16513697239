"""The DICOM conformance statement of this node as it is configured (PS3.2, the template of its Annex N).

Everything that the node negotiates, answers or writes is taken from the tables that do it, and from the
configuration; what is written here is the connecting text. A statement is therefore true of one node.
"""

from __future__ import annotations

from config.settings import Settings
from dicom_node import __version__
from dicom_node.documents import conformance_content as content
from dicom_node.documents import conformance_network as network
from dicom_node.documents.markdown import document, table

_NOTICE = (
    "**Research use only. Not a cleared medical device. Derived objects are not for primary diagnosis.**"
)


def conformance_statement(settings: Settings) -> str:
    """Return the statement of a node with these settings as Markdown."""
    return document(
        f"# DICOM conformance statement: dicom-node {__version__}",
        _NOTICE,
        "## 1 Overview",
        "The node receives CT and MR series, makes every instance durable before it answers success, removes "
        "noise from what is one or several regular volumes, and sends a derived series of the same SOP class "
        "to the destinations of the matching route. Originals are never changed.",
        network.services(settings),
        _implementation(),
        "## 2 Data flow and sequencing",
        _SEQUENCE,
        "## 3 Application entities",
        network.association_policies(settings),
        network.storage_scp(settings),
        network.storage_scu(settings),
        "## 4 Network and configuration",
        network.configuration(settings),
        "## 5 Security",
        network.security(settings),
        "## 6 Objects created",
        content.created_objects(settings),
        "## 7 Character sets, dates and times",
        content.text_and_time(),
        "## 8 Attributes used for decisions",
        content.attributes_used(),
        "## 9 Extensions and private parts",
        content.extensions(settings),
        "## 10 Limitations",
        content.limitations(),
    )


def _implementation() -> str:
    """How the node names itself on the network and in files (PS3.7 D.3.3.2)."""
    rows = [
        ("Implementation Class UID", network.IMPLEMENTATION_CLASS_UID),
        ("Implementation Version Name", network.IMPLEMENTATION_VERSION_NAME),
        ("Software", f"dicom-node {__version__}"),
    ]
    return table(("identification", "value"), rows)


_SEQUENCE = """\
1. **Receive.** An instance is written, synced, renamed and indexed; only then is its C-STORE answered.
2. **Assemble.** A series is closed when no association that carried it is open and a quiet period has passed;
   the end of an association alone means nothing (PS3.4 B.4). Where its sender asks for storage commitment, what
   it lists has to have arrived. A late instance opens it again.
3. **Enhance.** A route decides; a series that is no regular CT or MR volume is left alone with a reason code
   (`dicom-node reasons`).
4. **Verify.** The derived series is read back and held against its source, assertion by assertion.
5. **Send.** One association per derived series and destination, instances in ascending position; nothing is
   sent before the whole series has passed. What is not answered is sent again with the same UIDs."""
