"""The courier on a data transfer node: it asks the service for work, moves data, and holds the node's end of direct roads."""
