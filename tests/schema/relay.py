"""Passes on what connects to loopback to a Unix socket, with the rights of whoever runs this: Schemathesis speaks HTTP over TCP alone.

Its stdin is the socket that listens; its argument is the path of the daemon's.
"""

import socket
import sys
import threading


def pass_on(source, sink, end):
    try:
        while piece := source.recv(65536):
            sink.sendall(piece)
    except OSError:
        pass
    try:
        sink.shutdown(end)
    except OSError:
        pass


with socket.socket(fileno=0) as listener:
    while True:
        client, _ = listener.accept()
        daemon = socket.socket(socket.AF_UNIX)
        daemon.connect(sys.argv[1])
        for way in [(client, daemon, socket.SHUT_WR), (daemon, client, socket.SHUT_RDWR)]:
            threading.Thread(target=pass_on, args=way, daemon=True).start()
