"""A mail server on 127.0.0.1 that takes every mail."""

from __future__ import annotations

import email
import socketserver
from email.message import EmailMessage
from email.policy import SMTP
from threading import Thread
from typing import Self, cast


class MailServer:
    """`mails` holds what came, in order."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        mails = self.mails

        class Session(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                self._say("220 mail")
                for line in self.rfile:
                    match line[:4].strip().upper():
                        case b"EHLO":
                            self._say("250-mail\r\n250 8BITMIME")
                        case b"DATA":
                            self._say("354 go on")
                            body = b"".join(iter(self.rfile.readline, b".\r\n")).replace(b"\n..", b"\n.")
                            mails.append(cast(EmailMessage, email.message_from_bytes(body, policy=SMTP)))
                            self._say("250 taken")
                        case b"QUIT":
                            self._say("221 bye")
                            return
                        case _:
                            self._say("250 ok")

            def _say(self, text: str) -> None:
                self.wfile.write(f"{text}\r\n".encode())

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Session)
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()


def part(mail: EmailMessage, kind: str) -> str:
    """The text of a mail, `plain` or `html`."""
    body = mail.get_body((kind,))
    assert body is not None
    return cast(str, body.get_content()).replace("\r\n", "\n")
