"""The core process: serial bytes in, siren bytes out, with no network and no disk on the way.

Importing this package, and every module in it, imports only the standard library without asyncio,
ssl and sqlite3, numpy, pyserial and PyNaCl.
"""
