"""SIGINT and SIGTERM, noted while a loop looks at them when it can stop."""

import signal
import threading


class Interrupted(BaseException):
    """A signal stopped the program in order; see `signal_number`.

    Like KeyboardInterrupt no Exception: what it passes must not take it for an error.
    """

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.signal_number = signal_number


class NotedSignals:
    """Notes SIGINT and SIGTERM instead of dying; a second SIGINT is not caught.

    Attributes:
      received: number of the last signal; 0 for none.
    """

    def __init__(self):
        self.received = 0
        self._before: dict = {}

    def __enter__(self) -> "NotedSignals":
        # Python allows handlers in the main thread only.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number, frame):
        self.received = number
        signal.signal(signal.SIGINT, signal.default_int_handler)
