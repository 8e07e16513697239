"""DICOM associations: the Storage and Verification SCP that receives, the SCU that sends.

pynetdicom stays inside this room. `scp.StorageScp` is given plain functions for what happens to an
instance and to an association; whoever provides them sees AE titles, UIDs and bytes only. A faster
transport for the Storage path replaces the classes of `transport`, nothing else.
"""
