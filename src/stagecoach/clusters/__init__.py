"""Plugs that reach the systems: SSH, Slurm, and this machine itself in the embedded mode."""
