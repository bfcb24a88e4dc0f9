"""What nbclient and nbformat make of the same messages.

One JSON object a line on stdin: {"notebook": text, "messages": [[cell index, message type, content], ...], "ours": text}.
One JSON string a line on stdout: the notebook as nbformat writes it after nbclient has processed the messages, with
neighbouring texts of one stream joined. `ours` must be a valid notebook that nbformat would write just like that.
"""

import json
import logging
import sys

import nbformat
from nbclient import NotebookClient


def joined(outputs):
    kept = []
    for output in outputs:
        last = kept[-1] if kept else None
        if last and output.output_type == last.output_type == "stream" and output.name == last.name:
            last.text += output.text
        else:
            kept.append(output)
    return kept


def fold(notebook, messages):
    client = NotebookClient(notebook, record_timing=False)
    client.log.setLevel(logging.CRITICAL)
    client.reset_execution_trackers()
    for index, kind, content in messages:
        if kind == "execute_input":  # as at the begin of each cell
            client.clear_before_next_output = False
        message = {"header": {"msg_type": kind}, "msg_type": kind, "content": content, "parent_header": {}}
        client.process_message(message, notebook.cells[index], index)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = joined(cell.outputs)
    return nbformat.writes(notebook) + "\n"


for line in sys.stdin:
    case = json.loads(line)
    ours = nbformat.reads(case["ours"], as_version=nbformat.NO_CONVERT)
    nbformat.validate(ours)
    assert nbformat.writes(ours) + "\n" == case["ours"], "nbformat would write it differently:\n" + case["ours"]
    notebook = nbformat.reads(case["notebook"], as_version=nbformat.NO_CONVERT)
    print(json.dumps(fold(notebook, case["messages"])))
