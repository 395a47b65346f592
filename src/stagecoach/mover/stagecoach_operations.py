#!/usr/bin/env python3
"""Works on files that stay on their system: moves, copies, removes, packs or unpacks them, as the ticket in a file says.

It lies beside the mover in the job's directory, needs nothing but Python 3.6, and leaves a receipt as the mover does
(docs/ticket.md). Run again, by whom and after whatever end, it ends right: what is done is not done twice.

    stagecoach_operations.py --ticket FILE --state-directory DIR
"""

import argparse
import json
import os
import signal
import socket
import sys
import threading
import traceback
from typing import Any, Callable, Dict, List, Optional  # noqa: F401 - some stand in type comments only

if __package__:
    from stagecoach.mover import stagecoach_archiving as archiving
    from stagecoach.mover import stagecoach_copying as copying
    from stagecoach.mover import stagecoach_mover as mover
    from stagecoach.mover import stagecoach_removing as removing
    from stagecoach.mover import stagecoach_work as working
else:
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import stagecoach_archiving as archiving  # type: ignore[import-not-found,no-redef]  # novm
    import stagecoach_copying as copying  # type: ignore[import-not-found,no-redef]  # novm
    import stagecoach_mover as mover  # type: ignore[import-not-found,no-redef]  # novm
    import stagecoach_removing as removing  # type: ignore[import-not-found,no-redef]  # novm
    import stagecoach_work as working  # type: ignore[import-not-found,no-redef]  # novm

LARGEST_TICKET_BYTES = 1024 * 1024
# FirecREST's client looks for the first words; only a success prints them.
SUCCESS = {
    "mv": "Files were successfully moved",
    "cp": "Files were successfully copied",
    "rm": "Files were successfully removed",
    "compress": "Files were successfully compressed",
    "extract": "Files were successfully extracted",
}
OPERATIONS = {
    "mv": removing.move,
    "cp": copying.copy,
    "rm": removing.remove,
    "compress": archiving.compress,
    "extract": archiving.extract,
}  # type: Dict[str, Callable[[Any], None]]


class Operator:
    """One ticket carried out. Gives the receipt; an operation that fails raises nothing."""

    def __init__(self, ticket_path: str, state_directory: str, stop: threading.Event, clock: Optional[mover.Clock] = None):
        self._ticket_path = ticket_path
        self._stop = stop
        self._clock = clock or mover.Clock()
        self.state = mover.State(state_directory)
        self.work = None  # type: Optional[working.Work]
        self.receipt_kept = False

    def carry_out(self) -> working.Document:
        started = self._clock.wall()
        code, message, is_second = None, "", False  # type: Optional[str], str, bool
        lock = -1
        try:
            ticket = self._ticket()
            self.work = work = working.Work(ticket, self.state, self._clock, self._stop)
            lock = self.state.lock("operation.lock")
            earlier = self._earlier_receipt(work)
            if earlier is not None:
                self.receipt_kept = True
                return earlier
            OPERATIONS[ticket.kind](work)
            message = "{}: {} files and directories, {} bytes.".format(SUCCESS[ticket.kind], work.files_done, ticket.size_bytes)
        except mover.Failed as failure:
            code, message, is_second = failure.code, failure.message, isinstance(failure, mover.AnotherMover)
        except Exception as error:
            traceback.print_tb(error.__traceback__)  # places in these files, never values
            code = "mover_error"
            message = "The job failed: {} {}".format(type(error).__name__, mover.redact(str(error))).strip()
        receipt = self._receipt(code, message, started)
        # The other one's receipt is the one that counts, where this one only found it at work.
        if not is_second or self.state.load("receipt.json").get("ok") is not True:
            self.receipt_kept = self.state.save("receipt.json", receipt)
        if lock >= 0:
            os.close(lock)
        return receipt

    def tell(self) -> None:
        """How far it is."""
        if self.work is not None:
            self.state.save(working.PROGRESS, self.work.document())

    def _ticket(self) -> working.OperationTicket:
        try:
            with open(self._ticket_path, "rb") as file:
                document = json.loads(file.read(LARGEST_TICKET_BYTES).decode("utf-8"))
        except OSError as error:
            words = "The ticket could not be read ({}).".format(mover.plain(error))
            raise mover.Failed("ticket_unreadable", words) from None
        except ValueError:
            raise mover.Failed("ticket_unreadable", "The ticket is not a JSON document.") from None
        return working.OperationTicket(document)

    def _earlier_receipt(self, work: working.Work) -> Optional[working.Document]:
        receipt = self.state.load("receipt.json")  # type: working.Document
        is_mine = receipt.get("transfer_id") == work.ticket.transfer_id and receipt.get("kind") == work.ticket.kind
        return receipt if is_mine and receipt.get("ok") is True else None

    def _receipt(self, code: Optional[str], message: str, started: float) -> working.Document:
        work = self.work
        ticket = work.ticket if work is not None else None
        return {
            "version": 1,
            "transfer_id": ticket.transfer_id if ticket else "",
            "attempt": ticket.attempt if ticket else 1,
            "kind": ticket.kind if ticket else "",
            "ok": code is None,
            "code": code,
            "message": message,
            "size_bytes": ticket.size_bytes if ticket and code is None else 0,
            "bytes_moved": work.progress.bytes_moved if work else 0,
            "bytes_resumed": 0,
            "retries": 0,
            "etag": None,
            "proved": work.proved if work and code is None else [],
            "files_done": work.files_done if work else 0,
            "started_at_epoch_seconds": started,
            "ended_at_epoch_seconds": self._clock.wall(),
            "host": socket.gethostname(),
            "mover_version": mover.MOVER_VERSION,
        }


def main(arguments: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(description="Moves, copies, removes, packs or unpacks files as a ticket says.")
    parser.add_argument("--ticket", metavar="FILE", required=True)
    parser.add_argument("--state-directory", metavar="DIR", required=True, help="journal, progress and receipt")
    options = parser.parse_args(arguments)
    stop = threading.Event()
    operator = Operator(options.ticket, options.state_directory, stop)
    receipts = []  # type: List[working.Document]
    carrier = threading.Thread(target=lambda: receipts.append(operator.carry_out()), name="stagecoach-work", daemon=True)

    # The handler runs inside the main thread and takes the lock of `stop`: this thread must never hold it.
    asked = []  # type: List[int]

    def on_signal(number: int, frame: Any) -> None:
        if not asked:
            asked.append(number)
            stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    carrier.start()
    while carrier.is_alive():
        carrier.join(mover.PROGRESS_SECONDS)
        if carrier.is_alive():
            operator.tell()

    receipt = receipts[0] if receipts else {"ok": False, "code": "mover_error", "message": "The job broke down."}
    if not receipt["ok"]:
        print("{}: {}".format(receipt["code"], receipt["message"]), file=sys.stderr)
        return 75 if receipt["code"] in mover.MAY_RUN_AGAIN else 1
    if not operator.receipt_kept:
        print("The work is done, but its receipt could not be kept.", file=sys.stderr)
        return 75
    print(receipt["message"])
    print(SUCCESS[str(receipt["kind"])], flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
