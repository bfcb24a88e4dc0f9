"""What jupyter_ydoc makes of a document: one question a line, one answer a line, bytes as hexadecimal digits.

A question has `state` (an update v1) or `notebook` (nbformat JSON) to begin with, and `edits` to make. The answer has
the notebook before and after them, whether it is valid, and the update that the edits made.
"""

import json
import sys

import nbformat
from jupyter_ydoc import YNotebook
from pycrdt import Map


def answer(question):
    notebook = YNotebook()
    if "state" in question:
        notebook.ydoc.apply_update(bytes.fromhex(question["state"]))
    else:
        notebook.set(question["notebook"])
    before = notebook.get()
    nbformat.validate(nbformat.from_dict(before))
    vector = notebook.ydoc.get_state()
    for edit in question.get("edits", []):
        cells = notebook.ycells
        match edit:
            case {"insert": text, "cell": cell, "at": at}:
                cells[cell]["source"].insert(at, text)
            case {"append": cell}:
                notebook.append_cell(cell)
            case {"delete": cell}:
                del cells[cell]
            case {"metadata": value, "cell": cell, "key": key}:
                cells[cell]["metadata"][key] = value
            case {"metadata": value, "key": key}:
                notebook._ymeta["metadata"][key] = value
            case {"clear": cell}:
                cells[cell]["outputs"].clear()
            case {"set": value}:
                notebook.set(value)
    after = notebook.get()
    nbformat.validate(nbformat.from_dict(after))
    states = [cell.get("execution_state") if isinstance(cell, Map) else None for cell in notebook.ycells]
    return {
        "before": before,
        "after": after,
        "states": states,
        "update": notebook.ydoc.get_update(vector).hex(),
        "state": notebook.ydoc.get_update().hex(),
    }


for line in sys.stdin:
    print(json.dumps(answer(json.loads(line))), flush=True)
