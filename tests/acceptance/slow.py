"""Delays TCP connections to others, for kernels without netem: iptables redirects them to this relay, which runs
in the host's network and holds back what comes from either side.

    slow.py PORT DELAY JITTER RATE      seconds, seconds, bytes per second and way (0 = unlimited)

The order of bytes stays. What the relay itself sends is marked, so that it is not redirected again.
"""

import asyncio
import random
import socket
import struct
import sys
import time

SO_MARK = 36
SO_ORIGINAL_DST = 80
MARK = 1
CHUNK = 64 << 10
# So much may be on its way per connection and direction.
HELD_CHUNKS_MAX = 256


async def hold_back(reader, writer, delay, jitter, rate):
    """Passes bytes on, each after its delay."""
    held = asyncio.Queue(HELD_CHUNKS_MAX)

    async def take():
        due = 0.0
        while True:
            data = await reader.read(CHUNK)
            due = max(due, time.monotonic() + max(0.0, random.gauss(delay, jitter)))
            if rate:
                due += len(data) / rate
            await held.put((due, data))
            if not data:
                return

    taking = asyncio.ensure_future(take())
    try:
        while True:
            due, data = await held.get()
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if not data:
                return
            writer.write(data)
            await writer.drain()
    finally:
        taking.cancel()
        writer.close()


async def relay(reader, writer, delay, jitter, rate):
    client = writer.get_extra_info("socket")
    _, port, address = struct.unpack("!HH4s8x", client.getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, 16))
    onward = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    onward.setblocking(False)
    onward.setsockopt(socket.SOL_SOCKET, SO_MARK, MARK)
    onward.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        await asyncio.sleep(delay)
        await asyncio.get_running_loop().sock_connect(onward, (socket.inet_ntoa(address), port))
        there, back = await asyncio.open_connection(sock=onward)
        ways = [hold_back(reader, back, delay, jitter, rate), hold_back(there, writer, delay, jitter, rate)]
        await asyncio.gather(*ways)
    except OSError:
        # One side has hung up: so does the other.
        pass
    finally:
        onward.close()
        writer.close()


async def main(port, delay, jitter, rate):
    server = await asyncio.start_server(lambda r, w: relay(r, w, delay, jitter, rate), "127.0.0.1", port)
    print("listening", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])))
