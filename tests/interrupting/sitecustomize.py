"""Sends this process a signal at the moment that INTERRUPT names.

Python imports a module of this name before the program, so that the program itself runs
as it is. INTERRUPT is JSON: the signal's number; one of Python's audit events, a text
in its arguments (of an import the beginning of the module's name) and how many of these
to let pass; seconds to wait then.
"""

import json
import os
import sys
import threading

_NUMBER, _EVENT, _TEXT, _LEFT, _SECONDS = json.loads(os.environ.pop("INTERRUPT"))
_left = _LEFT


def _send() -> None:
    print("sent", file=open(os.environ["INTERRUPT_SENT"], "w"))
    os.kill(os.getpid(), _NUMBER)


def _hook(event, arguments):
    global _left
    if event != _EVENT or _left < 0:
        return
    if event == "import":
        is_it = arguments[0].startswith(_TEXT)
    else:
        is_it = _TEXT in str(arguments)
    if not is_it:
        return
    _left -= 1
    if _left < 0:
        if _SECONDS:
            timer = threading.Timer(_SECONDS, _send)
            timer.daemon = True
            timer.start()
        else:
            _send()


sys.addaudithook(_hook)
