"""The fixed names of everything the node reports, in the log and in the event trail alike.

A name never changes its meaning once released: dashboards and scripts key on it.
"""

from __future__ import annotations

from typing import Final

NODE_STARTED: Final = "node.started"
NODE_STOPPING: Final = "node.stopping"
NODE_STOPPED: Final = "node.stopped"
PROCESS_STARTED: Final = "process.started"
PROCESS_FAILED: Final = "process.failed"
PROCESS_EXITED: Final = "process.exited"
SWEEP_FAILED: Final = "sweep.failed"
FILES_DAMAGED: Final = "files.damaged"
STORE_UNHEALTHY: Final = "store.unhealthy"
SERIES_DELETED: Final = "series.deleted"
OVERDUE: Final = "watchdog.overdue"

ROUTES_UNUSABLE: Final = "routes.unusable"
ALERT_SENT: Final = "alert.sent"
ALERT_NOT_SENT: Final = "alert.not_sent"
PAGE_WITHOUT_USERS: Final = "page.without_users"
FIRST_RUN: Final = "page.first_run"
UNSAFE: Final = "node.unsafe"
CONNECTION_DROPPED: Final = "connection.dropped"
ASSOCIATION_CUT: Final = "association.cut"

TLS_REFUSED: Final = "tls.refused"
TLS_RENEWED: Final = "tls.renewed"
TLS_NOT_RENEWED: Final = "tls.not_renewed"

JOB_CLAIMED: Final = "job.claimed"
JOB_STAGE: Final = "job.stage"
JOB_RETRY: Final = "job.retry"
JOB_SUCCEEDED: Final = "job.succeeded"
JOB_FAILED: Final = "job.failed"
JOB_CANCELED: Final = "job.canceled"
JOB_ABANDONED: Final = "job.abandoned"
JOB_LOST: Final = "job.claim_lost"

DELIVERY_STARTED: Final = "delivery.started"
DELIVERY_FINISHED: Final = "delivery.finished"
DELIVERY_DEFERRED: Final = "delivery.deferred"
DELIVERY_REFUSED: Final = "delivery.refused"
DESTINATION_HELD: Final = "destination.held"
DESTINATION_PAUSED: Final = "destination.paused"
DESTINATION_BACK: Final = "destination.back"
COMMITMENT_ASKED: Final = "commitment.asked"
COMMITMENT_DEFERRED: Final = "commitment.deferred"
COMMITMENT_ANSWERED: Final = "commitment.answered"
COMMITMENT_GIVEN_UP: Final = "commitment.given_up"
COMMITMENT_UNKNOWN: Final = "commitment.unknown"
SAFEKEEPING_ASKED: Final = "safekeeping.asked"
SAFEKEEPING_REFUSED: Final = "safekeeping.refused"
SAFEKEEPING_REPORTED: Final = "safekeeping.reported"
SAFEKEEPING_DEFERRED: Final = "safekeeping.deferred"
SAFEKEEPING_GIVEN_UP: Final = "safekeeping.given_up"

# In the trail rather than in the log; audit messages are made of them. `data` may hold actor, host (from where),
# study_instance_uid and series_instance_uid where the event's own series says it not, and reason.
ASSOCIATION_REJECTED: Final = "association.rejected"
INSTANCES_VIEWED: Final = "instances.viewed"
INSTANCES_EXPORTED: Final = "instances.exported"
INSTANCES_DELETED: Final = "instances.deleted"
USER_LOGGED_IN: Final = "user.logged_in"
USER_LOGIN_FAILED: Final = "user.login_failed"
USER_LOGGED_OUT: Final = "user.logged_out"
AUDIT_READ: Final = "audit.read"

AUDIT_SENT: Final = "audit.sent"
AUDIT_NOT_SENT: Final = "audit.not_sent"

FOREIGN_MESSAGE: Final = "library.message"
