# SPDX-License-Identifier: Apache-2.0
"""Ten pages in a process of their own, which call every frame shown as soon as it has come.

    python many_pages.py BASE_URL TOKEN

Says `there` when all are welcome, and at the end of standard input how many frames came.
"""

from __future__ import annotations

import asyncio
import json
import struct
import sys

from websockets.asyncio.client import connect

PAGES = 10


async def look(base_url: str, token: str, welcome: asyncio.Semaphore, counts: list[int]) -> None:
    async with connect(
        f"ws{base_url.removeprefix('http')}/live",
        origin=base_url,  # type: ignore[arg-type]  # a str will do
        compression=None,
        max_size=None,
    ) as line:
        await line.send(json.dumps({"type": "hello", "protocol": 1, "token": token}))
        async for message in line:
            if isinstance(message, str):
                if '"welcome"' in message:
                    welcome.release()
                continue
            counts.append(len(message))
            (sequence,) = struct.unpack_from("<I", message, 4)
            await line.send(json.dumps({"type": "shown", "sequence": sequence, "frame_ms": 1}))


async def main() -> None:
    base_url, token = sys.argv[1:]
    welcome, counts = asyncio.Semaphore(0), list[int]()
    pages = [asyncio.create_task(look(base_url, token, welcome, counts)) for _ in range(PAGES)]
    for _ in pages:
        await welcome.acquire()
    print("there", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    print(len(counts), flush=True)
    for page in pages:
        page.cancel()
    await asyncio.gather(*pages, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main())
