"""The uplink: what a station tells its city, and what it is told.

A process of its own, with no access to devices. It takes records and data from the core's feed,
keeps them in an outbox on disk, sends them by MQTT until the hub has acknowledged them, and hands
the hub's signed commands to the core.
"""
