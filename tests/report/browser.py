"""A headless Chromium through chromedriver's HTTP interface: nothing to install from PyPI."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")


class Browser:
    """One page; console and network are recorded from the start."""

    def __init__(self, folder: Path, width: int = 1280, height: int = 900, scale: float = 1.0) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [str(DRIVER), "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self.process.stdout is not None
        line = next(s for s in self.process.stdout if "started successfully on port" in s)
        self.root = f"http://127.0.0.1:{line.strip().rstrip('.').split()[-1]}"
        arguments = [
            "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
            f"--window-size={width},{height}", f"--force-device-scale-factor={scale}", f"--user-data-dir={folder}", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
        ]  # fmt: skip
        options = {"binary": CHROMIUM, "args": arguments}
        capabilities = {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        self.session = self._call("POST", "/session", {"capabilities": {"alwaysMatch": capabilities}})["sessionId"]

    def _call(self, method: str, path: str, body: dict | None = None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.root + path, data=data, method=method, headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)["value"]

    def call(self, method: str, path: str, body: dict | None = None):
        return self._call(method, f"/session/{self.session}{path}", body)

    def open(self, page: Path) -> None:
        self.call("POST", "/url", {"url": page.resolve().as_uri()})

    def run(self, script: str):
        return self.call("POST", "/execute/sync", {"script": script, "args": []})

    def command(self, name: str, **params):
        """A command of the DevTools protocol."""
        return self.call("POST", "/goog/cdp/execute", {"cmd": name, "params": params})

    def wait(self, condition: str, seconds: float = 60.0) -> None:
        end = time.monotonic() + seconds
        while not self.run(f"return Boolean({condition})"):
            assert time.monotonic() < end, (
                f"{condition} did not become true within {seconds} s; console: {self.console()}"
            )
            time.sleep(0.2)

    def console(self) -> list[dict]:
        return self.call("POST", "/se/log", {"type": "browser"})

    def requests(self, page: Path) -> list[str]:
        """Addresses that `page` asked for (the browser's own first tab asks for others)."""
        entries = [json.loads(e["message"])["message"] for e in self.call("POST", "/se/log", {"type": "performance"})]
        asked = [e["params"] for e in entries if e["method"] == "Network.requestWillBeSent"]
        return [p["request"]["url"] for p in asked if p.get("documentURL", "").startswith(page.resolve().as_uri())]

    def screenshot(self, path: Path, full: bool = False) -> bytes:
        if full:
            size = self.command("Page.getLayoutMetrics")["cssContentSize"]
            clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
            data = self.command("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)["data"]
        else:
            data = self.call("GET", "/screenshot")
        png = base64.b64decode(data)
        path.write_bytes(png)
        return png

    def close(self) -> None:
        try:
            self.call("DELETE", "")
        finally:
            self.process.terminate()
            self.process.wait(timeout=20)
            self.process.stdout.close()
