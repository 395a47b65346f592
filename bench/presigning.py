"""How long 10,000 part URLs take to sign: our signer, botocore's, and the ratio (which travels; milliseconds do not).

Run it from the repository: ``python bench/presigning.py [rounds]``.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import botocore.session
from botocore.config import Config

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from stagecoach.object_stores.presigning import Presigner

URL, BUCKET, KEY, UPLOAD = "https://s3.example.org", "stagecoach-alice", "01hzx/data", "2~Zm9vYmFyLXVwbG9hZC1pZA"
NUMBERS = range(1, 10_001)


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Print the medians and their ratio."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    ours = Presigner(URL, access_key_id="AK", secret_access_key="SK", region="us-east-1", clock=lambda: datetime.now(UTC))
    session = botocore.session.get_session()
    theirs = session.create_client(
        "s3",
        region_name="us-east-1",
        endpoint_url=URL,
        aws_access_key_id="AK",
        aws_secret_access_key="SK",
        config=Config(
            signature_version="s3v4",
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )

    def sign_with_botocore() -> None:
        for number in NUMBERS:
            parameters = {"Bucket": BUCKET, "Key": KEY, "UploadId": UPLOAD, "PartNumber": number}
            theirs.generate_presigned_url("upload_part", Params=parameters, ExpiresIn=3600)

    our = [seconds(lambda: ours.presign_parts(BUCKET, KEY, UPLOAD, NUMBERS, ttl_seconds=3600)) for _ in range(rounds)]
    their = [seconds(sign_with_botocore) for _ in range(rounds)]
    our_median, their_median = statistics.median(our), statistics.median(their)
    print(f"10,000 part URLs, median of {rounds}: ours {our_median * 1000:.1f} ms, botocore {their_median * 1000:.0f} ms,")
    print(f"ratio {their_median / our_median:.0f} : 1")


if __name__ == "__main__":
    main()
