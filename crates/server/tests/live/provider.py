"""Two stock providers of pycrdt on one notebook in jupyter_ydoc's model: what one does, the other has.

Arguments: the daemon's Unix socket, its TCP address, the token, the path of the document.
"""

import asyncio
import sys

from jupyter_ydoc import YNotebook
from pycrdt import Provider
from websockets.asyncio.client import connect, unix_connect
from websockets.exceptions import ConnectionClosed

PATIENCE = 30


class Channel:
    """A WebSocket as pycrdt wants it."""

    def __init__(self, websocket, path):
        self.websocket, self.path = websocket, path

    def __aiter__(self):
        return self

    async def __anext__(self):
        try:
            return await self.recv()
        except ConnectionClosed:
            raise StopAsyncIteration from None

    async def send(self, message):
        await self.websocket.send(message)

    async def recv(self):
        return await self.websocket.recv()


async def until(notebook, so):
    """Waits for a change after which it is so."""
    changed = asyncio.Event()
    notebook.observe(lambda *_: changed.set())
    while not so():
        await changed.wait()
        changed.clear()


async def main(socket, address, token, path):
    own = unix_connect(socket, f"ws://localhost{path}")
    # As a browser does it, which cannot set headers.
    remote = connect(f"ws://{address}{path}", subprotocols=["outlive", f"outlive.token.{token}"])
    async with own as first, remote as second:
        assert second.subprotocol == "outlive", second.subprotocol
        ada, bob = YNotebook(), YNotebook()
        async with Provider(ada.ydoc, Channel(first, path)) as one, Provider(bob.ydoc, Channel(second, path)) as two:
            await one.synced.wait()
            await two.synced.wait()
            before = ada.cell_number
            ada.append_cell({"cell_type": "code", "source": "x = 'é😀'", "metadata": {}, "outputs": []})
            await until(bob, lambda: bob.cell_number == before + 1)
            cell = bob.ycells[before]
            cell["source"].insert(0, "# ")
            await until(ada, lambda: ada.get_cell(before)["source"].startswith("# "))
            assert ada.get() == bob.get(), (ada.get(), bob.get())
            print(ada.get_cell(before)["source"])


asyncio.run(asyncio.wait_for(main(*sys.argv[1:]), PATIENCE))
