"""Sockets for the outside: what flows may ask of a store, a scheduler and a cluster's files. Several plugs fit each."""
