"""The hand tool: what a person types to move files. It knows the client library and no server library."""
