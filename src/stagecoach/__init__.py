"""Stagecoach moves very large data in and out of supercomputers over plain HTTPS."""

__version__ = "0.1.0"
