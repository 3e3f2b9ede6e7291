"""The least that could take firings: an asyncio-streams server that parses JSON lines and answers each, without a disk."""

import asyncio
import json
import sys


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        request = json.loads(line)
        writer.write(json.dumps({"id": request["id"], "status": "accepted"}).encode() + b"\n")
        await writer.drain()
    writer.close()


async def main() -> None:
    server = await asyncio.start_unix_server(serve, sys.argv[1])
    print("listening", flush=True)
    await server.serve_forever()


asyncio.run(main())
