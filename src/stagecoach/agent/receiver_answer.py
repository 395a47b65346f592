"""The small program that the receiver's rclone asks who a key is: it asks the agent over the agent's private socket.

``python -I -S receiver_answer.py`` in the directory of the socket; rclone's question on standard input, the answer on
standard output. Neither is kept. Standard library only, since each new key starts it once.
"""

from __future__ import annotations

import socket
import sys

SOCKET_NAME = "keys.sock"
MAX_BYTES = 65_536
_ANSWER_SECONDS = 10.0


def main() -> int:
    """0 with an answer; 1 when the agent does not know the key or is not there, which rclone takes for a refusal."""
    question = sys.stdin.buffer.read(MAX_BYTES)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as agent:
        agent.settimeout(_ANSWER_SECONDS)
        try:
            # A short name, relative to the working directory: a socket's whole path may have 107 bytes only.
            agent.connect(SOCKET_NAME)
            agent.sendall(question)
            agent.shutdown(socket.SHUT_WR)
            answer = b""
            while chunk := agent.recv(MAX_BYTES):
                answer += chunk
        except OSError as error:
            print(f"the agent does not answer: {error.strerror or 'in time'}", file=sys.stderr)
            return 1
    if not answer:
        print("no such key", file=sys.stderr)
        return 1
    sys.stdout.buffer.write(answer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
