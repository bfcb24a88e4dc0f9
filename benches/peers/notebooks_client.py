"""jupyter_server with the server side of jupyter-collaboration: notebooks that are opened, edited together and saved."""

import json
import os
import random
import signal
import time

import websocket
from driver import now, serve
from jupyter_server_client import PATIENCE, TOKEN, Server
from pycrdt import (
    Array,
    Doc,
    YMessageType,
    create_sync_message,
    create_update_message,
    handle_sync_message,
)

server = Server()


def notebook(cells, padding=0):
    """A notebook with so many code cells; with `padding`, so many bytes of output."""
    made = [{"cell_type": "code", "id": f"cell-{n}", "metadata": {}, "execution_count": None, "outputs": [],
             "source": f"value_{n} = {n}\nprint(value_{n})"} for n in range(cells)]
    if padding:
        text = ("x" * 79 + "\n") * (padding // 80)
        made[0]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": text}]
    return {"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def place(name, cells):
    """Writes a notebook into the server's folder."""
    with open(os.path.join(server.root, name), "w") as file:
        json.dump(notebook(cells), file)


class Peer:
    """Somebody who edits."""

    def __init__(self, name):
        room = server.ask("PUT", f"/api/collaboration/session/{name}", {"format": "json", "type": "notebook"})
        url = (f"ws://127.0.0.1:{server.port}/api/collaboration/room/json:notebook:{room['fileId']}"
               f"?sessionId={room['sessionId']}&token={TOKEN}")
        self.socket = websocket.create_connection(url, timeout=PATIENCE)
        self.doc = Doc()
        self.socket.send_binary(create_sync_message(self.doc))
        while not self.take():
            pass

    def take(self):
        """Takes one message; says whether the notebook came with it."""
        message = self.socket.recv()
        if isinstance(message, str) or message[0] != YMessageType.SYNC:
            return False
        reply = handle_sync_message(message[1:], self.doc)
        if reply is not None:
            self.socket.send_binary(reply)
        return message[1] == 1 and len(self.cells()) > 0

    def cells(self):
        return self.doc.get("cells", type=Array)

    def type(self, words):
        """Types into the first cell and sends the update."""
        before = self.doc.get_state()
        source = self.cells()[0]["source"]
        source.insert(0, words)
        self.socket.send_binary(create_update_message(self.doc.get_update(before)))

    def wait_for(self, words):
        while not str(self.cells()[0]["source"]).startswith(words):
            self.take()

    def close(self):
        self.socket.close()


def open_notebook(cells, n):
    """Seconds from asking for a notebook's room to having all of it, n times, each a new file."""
    times = []
    for _ in range(n):
        name = f"open-{now()}.ipynb"
        place(name, cells)
        began = now()
        peer = Peer(name)
        times.append(now() - began)
        assert len(peer.cells()) == cells
        peer.close()
    return times


def edit(cells, n):
    """Seconds from an edit at one peer to the same at another, n times."""
    name = f"edit-{now()}.ipynb"
    place(name, cells)
    one, other = Peer(name), Peer(name)
    times = []
    for turn in range(n):
        began = now()
        one.type(f"#{turn} ")
        other.wait_for(f"#{turn} ")
        times.append(now() - began)
    one.close()
    other.close()
    return times


def save(cells, n):
    """Seconds of a save by PUT, n times."""
    content = notebook(cells)
    times = []
    for turn in range(n):
        content["cells"][0]["source"] = f"turn = {turn}"
        began = now()
        server.ask("PUT", "/api/contents/saved.ipynb", {"type": "notebook", "format": "json", "content": content})
        times.append(now() - began)
    return times


def kill_save(megabytes, n):
    """How many files are torn after so many SIGKILLs in the middle of a save."""
    torn = 0
    for turn in range(n):
        victim = Server()
        path = os.path.join(victim.root, "big.ipynb")
        content = notebook(2, megabytes << 20)
        victim.ask("PUT", "/api/contents/big.ipynb", {"type": "notebook", "format": "json", "content": content})
        content["cells"][1]["source"] = f"turn = {turn}"
        pid = os.fork()
        if pid == 0:
            try:
                victim.ask("PUT", "/api/contents/big.ipynb",
                           {"type": "notebook", "format": "json", "content": content})
            finally:
                os._exit(0)
        before = os.stat(path)
        deadline = now() + 30
        # In the save: the file has begun to change. Then a moment of chance.
        while now() < deadline and (os.stat(path).st_mtime_ns, os.stat(path).st_size) == (
            before.st_mtime_ns, before.st_size,
        ):
            time.sleep(0.0005)
        time.sleep(random.random() * 0.05)
        victim.process.send_signal(signal.SIGKILL)
        victim.process.wait()
        os.waitpid(pid, 0)
        try:
            with open(path) as file:
                json.load(file)
        except ValueError:
            torn += 1
    return torn


try:
    serve({"open": open_notebook, "edit": edit, "save": save, "kill_save": kill_save})
finally:
    server.close()
