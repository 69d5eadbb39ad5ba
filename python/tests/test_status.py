"""The status page in Chromium without a window, as PySide6-WebEngine has it."""

import http.server
import importlib.util
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("PySide6") is None
    or importlib.util.find_spec("PySide6.QtWebEngineWidgets") is None,
    reason="needs Chromium: pip install PySide6-WebEngine",
)

PAGE = Path(__file__).parents[2] / "sft-core" / "src" / "net" / "status.html"
HOSTILE = "<script>hit = 1</script><img src=x onerror='hit = 1'> & \"why\""
DEVICE = {
    "state": "training",
    "steps": 3,
    "rounds": 2,
    "bytes_up": 2_500_000,
    "bytes_down": 1_000_000,
    "allocated_bit_s": 8.5e6,
    "uplink_bit_s": 8e6,
    "last_seen_s": 999.0,
    "reason": None,
}
RECORDS = [
    {"round": 1, "accuracy": 0.5, "loss": 2.0, "delay_s": 0.25, "wall_s": 0.75},
    {"round": 2, "accuracy": 0.75, "loss": 1.0, "delay_s": 0.25, "wall_s": 0.5},
]
STATUS: dict[str, Any] = {
    "scheme": "sft-raw",
    "rounds": 4,
    "round": 3,
    "promise": {"round_s": 2.125, "idle_s": 0.5},
    "finished": False,
    "records": RECORDS,
    "devices": [
        DEVICE | {"device": 0},
        DEVICE
        | {"device": 1, "state": "lost", "allocated_bit_s": None, "uplink_bit_s": None}
        | {"reason": HOSTILE},
    ],
    "now_s": 1000.0,
}
# Opens an address in a window of a width, waits for a second look and tells what stands there.
BROWSER = """
import sys
from PySide6.QtCore import QTimer, QUrl
from PySide6.QtWebEngineWidgets import QWebEngineView
from PySide6.QtWidgets import QApplication
app = QApplication(sys.argv[:1])
view = QWebEngineView()
view.resize(int(sys.argv[2]), 900)
view.show()
def tell(text):
    print("told:" + text)
    app.quit()
def ask():
    view.page().runJavaScript('''JSON.stringify({
      title: document.getElementById("title").textContent,
      told: document.getElementById("told").textContent,
      cells: [...document.querySelectorAll("#devices tr")].map((row) => [...row.children].map((cell) => cell.textContent)),
      labels: [...document.querySelectorAll("svg")].map((svg) => svg.getAttribute("aria-label")),
      lines: [...document.querySelectorAll("svg")].map((svg) => svg.querySelectorAll("polyline").length),
      added: document.querySelectorAll("img, body script").length,
      hit: "hit" in window,
      wide: document.documentElement.scrollWidth > innerWidth,
    })''', tell)
view.loadFinished.connect(lambda _: QTimer.singleShot(2500, ask))
view.load(QUrl(sys.argv[1]))
app.exec()
"""


@pytest.fixture
def served() -> Iterator[tuple[str, dict[str, Any]]]:
    """Address of the page, and the status that it is told."""
    status = json.loads(json.dumps(STATUS))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known: dict[str, Callable[[], bytes]] = {
                "/": PAGE.read_bytes,
                "/status.json": lambda: json.dumps(status).encode(),
            }
            read = known.get(self.path)
            self.send_response(200 if read else 404)
            self.end_headers()
            self.wfile.write(read() if read else b"")

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever).start()
    yield f"http://127.0.0.1:{server.server_port}/", status
    server.shutdown()
    server.server_close()


def look(address: str, width: int) -> dict[str, Any]:
    # Nothing but the project's page is opened: Chromium's sandbox refuses to run as root.
    env = os.environ | {
        "QT_QPA_PLATFORM": "offscreen",
        "QTWEBENGINE_CHROMIUM_FLAGS": "--no-sandbox --disable-gpu",
    }
    command = [sys.executable, "-c", BROWSER, address, str(width)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    said = [line for line in done.stdout.splitlines() if line.startswith("told:")]
    assert len(said) == 1, done.stderr
    return json.loads(said[0].removeprefix("told:"))  # type: ignore[no-any-return]


@pytest.mark.parametrize("width", [400, 1100])
def test_the_page_tells_all_at_any_width(served: tuple[str, dict[str, Any]], width: int) -> None:
    seen = look(served[0], width)
    assert seen["title"] == "sft: sft-raw, 2 devices"
    assert seen["told"] == (
        "round 3 of 4, 1 devices here, 2.13 s by their shares, accuracy 75.0 % after round 2"
    )
    numbers = ["0", "training", "3", "2", "2.50", "1.00", "8.50", "8.00", "1.0 s ago", ""]
    assert seen["cells"][0] == numbers
    assert seen["lines"] == [1, 1, 2]
    assert seen["labels"] == [
        "test accuracy, %: 75.0 in round 2",
        "training loss: 1.00 in round 2",
        "measured seconds: 0.50 in round 2; modelled seconds: 0.25 in round 2",
    ]
    assert not seen["wide"]


def test_what_devices_say_is_text(served: tuple[str, dict[str, Any]]) -> None:
    seen = look(served[0], 1100)
    assert seen["cells"][1][1] == "lost"
    assert seen["cells"][1][-1] == HOSTILE
    assert seen["added"] == 1  # the page's own script
    assert not seen["hit"]


def test_a_round_without_numbers_is_no_zero(served: tuple[str, dict[str, Any]]) -> None:
    address, status = served
    status["records"][1] |= {"accuracy": None, "loss": None}
    status["promise"] = None
    seen = look(address, 1100)
    assert seen["told"] == "round 3 of 4, 1 devices here"
    assert seen["labels"][:2] == [
        "test accuracy, %: no number in round 2",
        "training loss: no number in round 2",
    ]
