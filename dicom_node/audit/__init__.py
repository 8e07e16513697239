"""The audit trail of PS3.15 A.5: who did what to which study, as messages that a log server understands.

Nothing on the way of an image writes an audit message. Every change leaves its event in the trail, in the
transaction of the change; the recorder turns events into messages and chains them, the shipper sends
them. A log server that is down costs nothing but time, and no crash loses or repeats a message's number.

No patient data: studies by their UID, people by the account they used. PS3.15 asks for a patient in
messages about studies; this node keeps no patient identifiers, so that object is left out.
"""
