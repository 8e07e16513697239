"""From an event of the trail to the audit messages that PS3.15 A.5.3 has for it.

One method for each kind of message; the table at the end says which event is told by which. An event of
which nothing has to be told (an association that stored nothing, a job that the node itself cancelled)
yields no message.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dicom_node.audit import codes
from dicom_node.audit.codes import Action, Code, LifeCycle, ObjectRole, Outcome
from dicom_node.audit.message import AuditMessage, Participant, SubjectObject
from dicom_node.observability import events
from storage.audit_facts import AuditFacts, JobFacts
from storage.records import EventRecord
from storage.states import JobKind
from storage.trail import TrailEvent

Messages = list[AuditMessage]


@dataclass(frozen=True)
class Identity:
    """How this node and its peers are named in messages. `peers`: host by peer name, as configured."""

    name: str
    ae_titles: tuple[str, ...]
    host: str
    peers: Mapping[str, tuple[str, str]]

    def participant(self, *, requestor: bool, role: Code | None = None) -> Participant:
        """This node as one end of what happened."""
        titles = "AETITLES=" + ";".join(self.ae_titles)
        return Participant(self.name, requestor, role, alternative_id=titles, host=self.host)

    def peer(self, destination: str | None, role: Code) -> Participant:
        """A configured destination: its AE title and host, or its name alone when it is configured no more."""
        ae_title, host = self.peers.get(destination or "", (destination or "unknown", ""))
        return Participant(ae_title, False, role, alternative_id=f"AETITLES={ae_title}", host=host or None)


class Translator:
    """Builds messages; reads the facts that an event does not carry itself."""

    def __init__(self, facts: AuditFacts, identity: Identity) -> None:
        self._facts = facts
        self._us = identity

    def messages(self, event: EventRecord) -> Messages:
        """The messages of one event, in order; empty when there is nothing to tell."""
        return _TOLD_BY[event.name](self, event)

    # --- the node itself (A.5.3.1)

    def started(self, event: EventRecord) -> Messages:
        """Application Activity, start."""
        return [self._application(event, codes.APPLICATION_START)]

    def stopped(self, event: EventRecord) -> Messages:
        """Application Activity, stop."""
        return [self._application(event, codes.APPLICATION_STOP)]

    def _application(self, event: EventRecord, kind: Code) -> AuditMessage:
        launcher = Participant(_actor(event), True, codes.APPLICATION_LAUNCHER)
        us = self._us.participant(requestor=False, role=codes.APPLICATION)
        return AuditMessage(
            codes.APPLICATION_ACTIVITY, Action.EXECUTE, event.at, (us, launcher), event_type=kind
        )

    # --- transfers (A.5.3.3, A.5.3.7)

    def received(self, event: EventRecord) -> Messages:
        """DICOM Instances Transferred, to us: one for each study that the association stored."""
        caller = None if event.association_id is None else self._facts.caller(event.association_id)
        if caller is None or event.association_id is None:
            return []
        ending = str(event.data.get("ending"))
        complete = ending == "released"
        sender = Participant(
            caller.calling_ae,
            True,
            codes.SOURCE_ROLE,
            alternative_id=f"AETITLES={caller.calling_ae}",
            host=caller.peer_host,
        )
        us = self._us.participant(requestor=False, role=codes.DESTINATION_ROLE)
        return [
            AuditMessage(
                codes.INSTANCES_TRANSFERRED,
                Action.CREATE,
                event.at,
                (sender, us),
                Outcome.SUCCESS if complete else Outcome.MINOR_FAILURE,
                None if complete else f"The association ended: {ending}.",
                objects=(_study(part.study_instance_uid, LifeCycle.IMPORT, part.instances),),
            )
            for part in self._facts.received(event.association_id)
        ]

    def delivery_begun(self, event: EventRecord) -> Messages:
        """Begin Transferring DICOM Instances, from us."""
        return self._delivery(event, codes.BEGIN_TRANSFERRING, Action.EXECUTE, Outcome.SUCCESS)

    def delivery_done(self, event: EventRecord) -> Messages:
        """DICOM Instances Transferred, from us, every instance answered with success."""
        return self._delivery(event, codes.INSTANCES_TRANSFERRED, Action.CREATE, Outcome.SUCCESS)

    def delivery_interrupted(self, event: EventRecord) -> Messages:
        """DICOM Instances Transferred, from us, not all of them; it will be tried again."""
        return self._delivery(event, codes.INSTANCES_TRANSFERRED, Action.CREATE, Outcome.MINOR_FAILURE)

    def delivery_failed(self, event: EventRecord) -> Messages:
        """DICOM Instances Transferred, from us, not all of them; a person has to decide."""
        return self._delivery(event, codes.INSTANCES_TRANSFERRED, Action.CREATE, Outcome.SERIOUS_FAILURE)

    def _delivery(self, event: EventRecord, kind: Code, action: Action, outcome: Outcome) -> Messages:
        job = self._job(event)
        if job is None or job.kind is not JobKind.DELIVER:
            return []
        us = self._us.participant(requestor=True, role=codes.SOURCE_ROLE)
        them = self._us.peer(job.destination, codes.DESTINATION_ROLE)
        why = None if outcome is Outcome.SUCCESS else _reason(event)
        study = _study(job.study_instance_uid, LifeCycle.EXPORT, job.instances, job.series_instance_uid)
        return [AuditMessage(kind, action, event.at, (us, them), outcome, why, objects=(study,))]

    # --- what is done with a study (A.5.3.4, A.5.3.6, A.5.3.8)

    def derived(self, event: EventRecord) -> Messages:
        """DICOM Instances Accessed, create: a derived series stands beside its source."""
        job = self._job(event)
        if job is None:
            return []
        us = self._us.participant(requestor=True)
        study = _study(job.study_instance_uid, LifeCycle.DERIVATION, job.instances, job.series_instance_uid)
        return [AuditMessage(codes.INSTANCES_ACCESSED, Action.CREATE, event.at, (us,), objects=(study,))]

    def decided(self, event: EventRecord) -> Messages:
        """DICOM Instances Accessed, update: a person decided about a series, a job or a delivery."""
        return self._by_person(event, codes.INSTANCES_ACCESSED, Action.UPDATE, LifeCycle.ACCESS)

    def viewed(self, event: EventRecord) -> Messages:
        """DICOM Instances Accessed, read: a person looked at images or at who is on them."""
        return self._by_person(event, codes.INSTANCES_ACCESSED, Action.READ, LifeCycle.ACCESS)

    def deleted(self, event: EventRecord) -> Messages:
        """DICOM Study Deleted: instances of a study are gone from the store."""
        return self._by_person(event, codes.STUDY_DELETED, Action.DELETE, LifeCycle.ERASURE, or_us=True)

    def exported(self, event: EventRecord) -> Messages:
        """Export: instances left for a file or a browser."""
        return self._by_person(event, codes.EXPORT, Action.READ, LifeCycle.EXPORT, media=True)

    def _by_person(
        self,
        event: EventRecord,
        kind: Code,
        action: Action,
        life_cycle: LifeCycle,
        *,
        or_us: bool = False,
        media: bool = False,
    ) -> Messages:
        study = self._study_uid(event)
        if study is None or ("actor" not in event.data and not or_us):
            return []
        by = [self._us.participant(requestor="actor" not in event.data, role=codes.APPLICATION)]
        if "actor" in event.data:
            by.insert(0, Participant(_actor(event), True, host=_text(event, "host")))
        if media:
            by.append(Participant("file", False, codes.DESTINATION_MEDIA, media=codes.URI))
        details = {"Event": event.name, "SeriesInstanceUID": _text(event, "series_instance_uid") or ""}
        told = SubjectObject(
            study,
            codes.STUDY_UID,
            role=ObjectRole.REPORT,
            life_cycle=life_cycle,
            details={name: value for name, value in details.items() if value},
        )
        return [AuditMessage(kind, action, event.at, tuple(by), objects=(told,))]

    # --- people and strangers (A.5.3.2, A.5.3.11, A.5.3.12)

    def logged_in(self, event: EventRecord) -> Messages:
        """User Authentication, login."""
        return [self._authentication(event, codes.LOGIN, Outcome.SUCCESS)]

    def login_failed(self, event: EventRecord) -> Messages:
        """User Authentication, login refused."""
        return [self._authentication(event, codes.LOGIN, Outcome.MINOR_FAILURE)]

    def logged_out(self, event: EventRecord) -> Messages:
        """User Authentication, logout."""
        return [self._authentication(event, codes.LOGOUT, Outcome.SUCCESS)]

    def _authentication(self, event: EventRecord, kind: Code, outcome: Outcome) -> AuditMessage:
        person = Participant(_actor(event), True, host=_text(event, "host"))
        us = self._us.participant(requestor=False)
        why = None if outcome is Outcome.SUCCESS else _reason(event)
        return AuditMessage(
            codes.USER_AUTHENTICATION, Action.EXECUTE, event.at, (person, us), outcome, why, kind
        )

    def rejected(self, event: EventRecord) -> Messages:
        """Security Alert: somebody asked for an association and was turned away."""
        caller = _text(event, "calling_ae") or "unknown"
        them = Participant(caller, False, alternative_id=f"AETITLES={caller}", host=_text(event, "peer_host"))
        facts = {"Alert Description": f"Association rejected: {event.data.get('rejection')}."}
        if more := event.data.get("unreported"):
            facts["Unreported"] = str(more)
        return [self._alert(event, codes.NODE_AUTHENTICATION, them, caller, facts)]

    def rights_changed(self, event: EventRecord) -> Messages:
        """Security Alert: an account or a key was made, changed or removed."""
        return [self._alert_by_person(event, codes.USER_SECURITY_CHANGED, "user", "token")]

    def settings_changed(self, event: EventRecord) -> Messages:
        """Security Alert: a person changed what the node does with the images to come."""
        return [self._alert_by_person(event, codes.SOFTWARE_CONFIGURATION, "part", "version")]

    def denied(self, event: EventRecord) -> Messages:
        """Security Alert: a person asked for what is not theirs."""
        return [self._alert_by_person(event, codes.RESTRICTED_FUNCTION, "path", "reason")]

    def _alert_by_person(self, event: EventRecord, kind: Code, *subjects: str) -> AuditMessage:
        person = Participant(_actor(event), False, host=_text(event, "host"))
        subject = next((str(event.data[key]) for key in subjects if event.data.get(key)), event.name)
        return self._alert(event, kind, person, subject, {"Alert Description": event.name})

    def _alert(
        self, event: EventRecord, kind: Code, by: Participant, subject: str, facts: Mapping[str, str]
    ) -> AuditMessage:
        us = self._us.participant(requestor=True)
        about = SubjectObject(subject, codes.NODE_ID, role=ObjectRole.SECURITY_RESOURCE, details=facts)
        refused = kind in (codes.NODE_AUTHENTICATION, codes.RESTRICTED_FUNCTION)
        outcome = Outcome.MINOR_FAILURE if refused else Outcome.SUCCESS
        return AuditMessage(
            codes.SECURITY_ALERT,
            Action.EXECUTE,
            event.at,
            (us, by),
            outcome,
            event_type=kind,
            objects=(about,),
        )

    def log_read(self, event: EventRecord) -> Messages:
        """Audit Log Used: somebody looked at these very records."""
        person = Participant(_actor(event), True, host=_text(event, "host"))
        log = SubjectObject(
            f"dicom-node:{self._us.name}/audit",
            codes.URI,
            role=ObjectRole.SECURITY_RESOURCE,
            name="Security Audit Log",
        )
        return [AuditMessage(codes.AUDIT_LOG_USED, Action.READ, event.at, (person,), objects=(log,))]

    # --- facts

    def _job(self, event: EventRecord) -> JobFacts | None:
        return None if event.job_id is None else self._facts.job(event.job_id)

    def _study_uid(self, event: EventRecord) -> str | None:
        """The study that an event is about: named by the event itself, else by its series or job."""
        if told := _text(event, "study_instance_uid"):
            return told
        if event.series_id is not None:
            return self._facts.study_of(event.series_id)
        job = self._job(event)
        return None if job is None else job.study_instance_uid


def _study(
    uid: str, life_cycle: LifeCycle, instances: Mapping[str, int], series: str | None = None
) -> SubjectObject:
    details = {"SeriesInstanceUID": series} if series else {}
    return SubjectObject(
        uid,
        codes.STUDY_UID,
        role=ObjectRole.REPORT,
        life_cycle=life_cycle,
        instances=instances,
        details=details,
    )


def _actor(event: EventRecord) -> str:
    return str(event.data.get("actor") or "unknown")


def _reason(event: EventRecord) -> str:
    return str(event.data.get("reason") or event.name)


def _text(event: EventRecord, key: str) -> str | None:
    value = event.data.get(key)
    return None if value is None else str(value)


_TOLD_BY: Mapping[str, Callable[[Translator, EventRecord], Messages]] = {
    events.NODE_STARTED: Translator.started,
    events.NODE_STOPPED: Translator.stopped,
    TrailEvent.ASSOCIATION_CLOSED: Translator.received,
    events.ASSOCIATION_REJECTED: Translator.rejected,
    TrailEvent.JOB_CLAIMED: Translator.delivery_begun,
    TrailEvent.JOB_SUCCEEDED: Translator.delivery_done,
    TrailEvent.JOB_RETRY: Translator.delivery_interrupted,
    TrailEvent.JOB_ABANDONED: Translator.delivery_interrupted,
    TrailEvent.JOB_FAILED: Translator.delivery_failed,
    TrailEvent.MANIFEST_COMMITTED: Translator.derived,
    TrailEvent.SERIES_RELEASED: Translator.decided,
    TrailEvent.SERIES_DISCARDED: Translator.decided,
    TrailEvent.JOB_CANCEL_REQUESTED: Translator.decided,
    TrailEvent.JOB_CANCELED: Translator.decided,
    TrailEvent.JOB_RESUBMITTED: Translator.decided,
    TrailEvent.DELIVERY_RETRIED: Translator.decided,
    TrailEvent.DELIVERY_ORDERED: Translator.decided,
    "review.kept": Translator.decided,
    events.INSTANCES_VIEWED: Translator.viewed,
    events.INSTANCES_EXPORTED: Translator.exported,
    events.INSTANCES_DELETED: Translator.deleted,
    "series.purged": Translator.deleted,
    events.USER_LOGGED_IN: Translator.logged_in,
    events.USER_LOGIN_FAILED: Translator.login_failed,
    events.USER_LOGGED_OUT: Translator.logged_out,
    "user.added": Translator.rights_changed,
    "user.changed": Translator.rights_changed,
    "user.removed": Translator.rights_changed,
    "token.created": Translator.rights_changed,
    "token.revoked": Translator.rights_changed,
    "routes.applied": Translator.settings_changed,
    "line.paused": Translator.settings_changed,
    "line.resumed": Translator.settings_changed,
    "access.denied": Translator.denied,
    events.AUDIT_READ: Translator.log_read,
}
TOLD_EVENTS = frozenset(str(name) for name in _TOLD_BY)
"""The events that audit messages are made of."""
