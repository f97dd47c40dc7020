"""A gRPC peer that does as it is told, also what no library would: HTTP/2 frames by hand over TLS or plain text.

Standard library only. For tests and benchmarks that misbehave, so nothing here retries, answers pings or keeps to flow
control by itself.
"""

import re
import socket
import ssl
import struct

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS, ACK = 1, 4, 1
INITIAL_WINDOW_SIZE = 4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def integer(value, bits):
    """An HPACK integer with a prefix of `bits` bits, whose other bits are 0."""
    most = (1 << bits) - 1
    if value < most:
        return bytes([value])
    out, value = bytes([most]), value - most
    while value >= 128:
        out, value = out + bytes([value % 128 + 128]), value // 128
    return out + bytes([value])


def header(name, value):
    """A literal without indexing and without Huffman code."""
    name, value = name.encode(), value.encode()
    return b"\0" + integer(len(name), 7) + name + integer(len(value), 7) + value


def call_headers(path, more=()):
    fields = [(":method", "POST"), (":scheme", "https"), (":path", path), (":authority", "localhost"),
              ("content-type", "application/grpc"), ("te", "trailers"), *more]
    return b"".join(header(name, value) for name, value in fields)


def message(payload, length=None):
    """A gRPC message; `length` is what it claims to be."""
    return b"\0" + struct.pack(">I", len(payload) if length is None else length) + payload


def varint(value):
    out = b""
    while value >= 128:
        out, value = out + bytes([value % 128 + 128]), value // 128
    return out + bytes([value])


def field(number, value):
    """A protobuf field: an int, or bytes (text, message, packed numbers)."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def axes_of_a_billion_runs():
    """A SubmitRequest of some kilobytes: 10 backends x 1000 batches x 1000 lengths x 100 repetitions."""
    thousand = b"".join(varint(i) for i in range(1, 1001))
    spec = b"".join(field(3, b"b%d" % i) for i in range(10)) + field(5, thousand) + field(6, thousand) + field(7, 100)
    return field(1, spec)


def tls_context(ca, cert, key):
    context = ssl.create_default_context(cafile=ca)
    context.load_cert_chain(cert, key)
    context.set_alpn_protocols(["h2"])
    return context


class Connection:
    """One connection. `source` is the loopback address that it comes from; `context` None is plain text."""

    def __init__(self, address, context=None, source="127.0.0.1", window=(1 << 31) - 1, timeout=30):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout, (source, 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context:
            self.socket = context.wrap_socket(self.socket, server_hostname=host)
        self.buffer = b""
        self.next_stream = 1
        self.peer_window = 65535
        settings = struct.pack(">HI", INITIAL_WINDOW_SIZE, window)
        self.send(PREFACE + frame(SETTINGS, 0, 0, settings) + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1 << 30)))

    def send(self, data):
        self.socket.sendall(data)

    def close(self):
        self.socket.close()

    def start(self, path, more=(), flags=END_HEADERS):
        """Opens a stream with its headers and returns its number."""
        stream, self.next_stream = self.next_stream, self.next_stream + 2
        self.send(frame(HEADERS, flags, stream, call_headers(path, more)))
        return stream

    def read(self):
        """The next frame as (kind, flags, stream, payload); answers settings and pings. OSError at the end."""
        while True:
            head = self._bytes(9)
            payload = self._bytes(int.from_bytes(head[:3], "big"))
            kind, flags, stream = head[3], head[4], int.from_bytes(head[5:9], "big") & 0x7FFFFFFF
            if kind == SETTINGS:
                for number, value in struct.iter_unpack(">HI", payload):
                    if number == INITIAL_WINDOW_SIZE:
                        self.peer_window = value
            if kind in (SETTINGS, PING) and not flags & ACK:
                self.send(frame(kind, ACK, 0, payload if kind == PING else b""))
            if kind == GOAWAY:
                raise ConnectionResetError("the server says goodbye")
            # New settings are returned too: they may have made room to send.
            if kind != PING:
                return kind, flags, stream, payload

    def _bytes(self, count):
        while len(self.buffer) < count:
            more = self.socket.recv(1 << 16)
            if not more:
                raise ConnectionResetError("the server has closed the connection")
            self.buffer += more
        out, self.buffer = self.buffer[:count], self.buffer[count:]
        return out

    def finish(self, stream):
        """Reads to the end of the stream; returns its gRPC status, or -1 if it was reset. The first call's alone: later
        ones of a connection have their trailers compressed."""
        while True:
            kind, flags, of, payload = self.read()
            if of != stream:
                continue
            if kind == RST_STREAM or kind == HEADERS and flags & END_STREAM:
                return self._status(kind, payload)

    @staticmethod
    def _status(kind, payload):
        found = re.search(rb"grpc-status(?:\x01(\d)|\x02(\d\d))", payload) if kind == HEADERS else None
        return int(found.group(1) or found.group(2)) if found else -1

    def upload(self, stream, size, stop=lambda: False):
        """Sends one message of `size` bytes as the server's flow control allows; returns the call's status, or -1 when
        stop() says so."""
        credit = {0: 65535, stream: 0}  # the stream's is on top of the server's initial window
        head, sent = message(b"", size), 0
        while sent < size and not stop():
            room = min(credit[0], self.peer_window + credit[stream], 16384)
            if room > len(head):
                chunk = head + bytes(min(room - len(head), size - sent))
                self.send(frame(DATA, 0, stream, chunk))
                sent += len(chunk) - len(head)
                for of in credit:
                    credit[of] -= len(chunk)
                head = b""
                continue
            kind, _, of, payload = self.read()
            if kind == WINDOW_UPDATE and of in credit:
                credit[of] += int.from_bytes(payload, "big")
            elif of == stream and kind in (RST_STREAM, HEADERS):
                return self._status(kind, payload)
        if sent < size:
            return -1
        self.send(frame(DATA, END_STREAM, stream))
        return self.finish(stream)

    def call(self, path, request=b""):
        """A whole unary call; returns its gRPC status."""
        stream = self.start(path)
        self.send(frame(DATA, END_STREAM, stream, message(request)))
        return self.finish(stream)
