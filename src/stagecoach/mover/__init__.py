"""The mover: one standard-library file that carries bytes between a file and an object store.
It is also shipped alone to clusters, so nothing here may import the rest of stagecoach."""
