"""The light client: what a program needs to send and fetch files, without any server library."""

from stagecoach.client.client import Client
from stagecoach.client.errors import ServiceError, TransferFailed

__all__ = ["Client", "ServiceError", "TransferFailed"]
