"""The rules of a transfer, with nothing but the standard library: no I/O, no clock of its own, no framework."""
