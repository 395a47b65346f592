"""The courier on a data transfer node: asks the service for work, has the mover do it, and says how it ended.

Everything it knows is in its state directory, so it can be killed at any moment and goes on where it was. It opens no
port, and what it moves stays below the two directories that the node's owner gave it.
"""
