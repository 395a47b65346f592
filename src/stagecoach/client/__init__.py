"""The light client: what a program needs to send and fetch files, without any server library."""

from stagecoach.client.asking import TokenSource
from stagecoach.client.client import Client
from stagecoach.client.errors import ClientError, ServiceError, TransferFailed
from stagecoach.client.node_sends import Store
from stagecoach.client.places import Place
from stagecoach.client.results import CarriedTransfer, ClientLeg

__all__ = [
    "CarriedTransfer",
    "Client",
    "ClientError",
    "ClientLeg",
    "Place",
    "ServiceError",
    "Store",
    "TokenSource",
    "TransferFailed",
]
