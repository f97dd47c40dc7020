"""A TCP proxy of the harness's own, between one program and the server: it cuts connections, holds their bytes back, or
takes them and passes nothing on."""

import asyncio
import contextlib
import threading

PASS, HOLD, BLACK_HOLE = "pass", "hold", "black hole"


class Loop:
    """The thread on which all proxies of a fleet live."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    def stop(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()


class Proxy:
    def __init__(self, loop, listen, target):
        self.address = listen
        self._loop = loop
        self._target = target
        self._mode = PASS
        self._changed = None  # an asyncio.Event, set when the mode changes
        self._connections = set()
        self.bytes_held = 0
        self.bytes_swallowed = 0
        loop.call(self._start())

    async def _start(self):
        self._changed = asyncio.Event()
        host, port = self.address.rsplit(":", 1)
        await asyncio.start_server(self._serve, host, int(port))

    async def _serve(self, reader, writer):
        self._connections.add(writer)
        onward = None
        try:
            while self._mode == BLACK_HOLE:  # accepted, and nobody is there
                await self._changed.wait()
            host, port = self._target.rsplit(":", 1)
            back, onward = await asyncio.open_connection(host, int(port))
            pumps = [asyncio.ensure_future(self._pump(*ends)) for ends in ((reader, onward), (back, writer))]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in pumps:
                pump.cancel()
        except OSError:
            pass
        finally:
            self._connections.discard(writer)
            for end in (writer, onward):
                if end is not None:
                    end.transport.abort()

    async def _pump(self, reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                if self._mode == BLACK_HOLE:
                    self.bytes_swallowed += len(data)
                    continue
                if self._mode == HOLD:
                    self.bytes_held += len(data)
                    while self._mode == HOLD:
                        await self._changed.wait()
                writer.write(data)
                await writer.drain()

    def set_mode(self, mode):
        async def change():
            self._mode = mode
            self._changed.set()
            self._changed = asyncio.Event()
        self._loop.call(change())

    def cut(self):
        """Resets what is connected; returns how many connections that were."""
        async def reset():
            cut = list(self._connections)
            for writer in cut:
                writer.transport.abort()
            return len(cut)
        return self._loop.call(reset())
