"""A browser at the other end of the DevTools protocol: what a test of the page needs of one, and no more."""

import asyncio
import base64
import json
import os
import signal
import tempfile
import urllib.request

import websockets

FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars", "--disable-background-networking"]
PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
PATIENCE_S = 30


class Page:
    """One tab. Ends with the block that opened it, and the browser with it."""

    def __init__(self, url, language="en-US"):
        self.url, self.language, self.folder = url, language, tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.serial, self.errors = 0, []

    async def __aenter__(self):
        flags = [*FLAGS, "--remote-debugging-port=0", f"--user-data-dir={self.folder.name}", f"--lang={self.language}"]
        self.browser = await asyncio.create_subprocess_exec(
            "chromium", *flags, "about:blank", stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
            start_new_session=True)
        try:
            await asyncio.wait_for(self.attach(), PATIENCE_S)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def attach(self):
        while b"DevTools listening on " not in (line := await self.browser.stderr.readline()):
            if not line:
                raise RuntimeError("the browser ended before it began")
        port = line.decode().split(":")[2].split("/")[0]
        # What it says from now on is taken and dropped, so that it never waits for us.
        self.deaf = asyncio.create_task(self.browser.stderr.read())
        tabs = json.loads(await asyncio.to_thread(lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list").read()))
        target = next(tab for tab in tabs if tab["type"] == "page")
        self.socket = await websockets.connect(target["webSocketDebuggerUrl"], max_size=64 << 20)
        for domain in ("Page", "Runtime", "Network", "Log"):
            await self.tell(f"{domain}.enable")
        await self.tell("Emulation.setDeviceMetricsOverride", **PHONE)
        await self.tell("Emulation.setUserAgentOverride", userAgent="page test", acceptLanguage=self.language)
        await self.tell("Page.navigate", url=self.url)

    async def __aexit__(self, *_):
        try:
            os.killpg(self.browser.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        await self.browser.wait()
        self.folder.cleanup()

    async def tell(self, method, **params):
        self.serial += 1
        await self.socket.send(json.dumps({"id": self.serial, "method": method, "params": params}))
        while True:
            said = json.loads(await asyncio.wait_for(self.socket.recv(), PATIENCE_S))
            if said.get("id") == self.serial:
                if "error" in said:
                    raise RuntimeError(f"{method}: {said['error']}")
                return said["result"]
            if said.get("method") == "Runtime.exceptionThrown":
                self.errors.append(said["params"]["exceptionDetails"])

    async def value(self, script):
        said = await self.tell("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in said:
            raise RuntimeError(f"{script}: {said['exceptionDetails']}")
        return said["result"].get("value")

    async def until(self, script, what, seconds=PATIENCE_S):
        """Waits until `script` is something."""
        end = asyncio.get_running_loop().time() + seconds
        # A page that is only on its way has not even a root.
        while not await self.value(f"(() => {{ try {{ return !!({script}); }} catch {{ return false; }} }})()"):
            if asyncio.get_running_loop().time() > end:
                text = await self.value("document.body.innerText")
                raise AssertionError(f"not within {seconds} s: {what}\n{text}")
            await asyncio.sleep(0.05)

    async def click(self, selector):
        await self.until(f"!!document.querySelector({selector!r}) && !document.querySelector({selector!r}).disabled", selector)
        await self.value(f"document.querySelector({selector!r}).click()")

    async def text(self, selector):
        return await self.value(f"document.querySelector({selector!r})?.innerText ?? ''")

    async def picture(self, path, whole=True):
        size = (await self.tell("Page.getLayoutMetrics"))["cssContentSize"] if whole else PHONE
        clip = {"x": 0, "y": 0, "width": PHONE["width"], "height": min(size["height"], 4000), "scale": 1}
        data = await self.tell("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=whole)
        with open(path, "wb") as file:
            file.write(base64.b64decode(data["data"]))
