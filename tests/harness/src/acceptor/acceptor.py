"""HTTPS that demands Negotiate bound to its TLS channel, as IIS does with
Extended Protection set to Required, and hands the calls on.

    acceptor.py DIRECTORY PORT UPSTREAM-HOST UPSTREAM-PORT HASH

The directory holds server.pem, server.key and keytab. A line a call goes to
standard output: method, path, status, and who called or why no caller was accepted.
"""

import base64
import hashlib
import http.client
import http.server
import ssl
import sys

import gssapi
from gssapi.raw import ChannelBindings

DIRECTORY, PORT, UPSTREAM_HOST, UPSTREAM_PORT, HASH = sys.argv[1:]
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}
PAGE = b"<!DOCTYPE html><html><head><title>401 - Unauthorized</title></head></html>"

with open(f"{DIRECTORY}/server.pem", encoding="ascii") as file:
    CERTIFICATE = ssl.PEM_cert_to_DER_cert(file.read())
DIGEST = hashlib.new(HASH, CERTIFICATE).digest()
BINDINGS = ChannelBindings(application_data=b"tls-server-end-point:" + DIGEST)


class Refused(Exception):
    """No caller was accepted; the text says why."""


def accept(header):
    """The caller's name and the token for the answer."""
    scheme, _, token = (header or "").partition(" ")
    if scheme.lower() != "negotiate" or not token:
        raise Refused("no token")
    try:
        keys = gssapi.Credentials(
            usage="accept", store={b"keytab": f"{DIRECTORY}/keytab".encode()}
        )
        context = gssapi.SecurityContext(
            creds=keys, usage="accept", channel_bindings=BINDINGS
        )
        answer = context.step(base64.b64decode(token))
        # An error that comes with a token waits for this question.
        complete = context.complete
    except gssapi.exceptions.BadChannelBindingsError as error:
        raise Refused("wrong bindings") from error
    except (gssapi.exceptions.GSSError, ValueError) as error:
        raise Refused(str(error).replace("\n", " ")) from error
    if not complete:
        raise Refused("more legs are wanted")
    # Kerberos takes a token without bindings; Extended Protection does not.
    if gssapi.RequirementFlag.channel_bound not in context.actual_flags:
        raise Refused("no bindings")
    return str(context.initiator_name), base64.b64encode(answer or b"").decode()


class Handler(http.server.BaseHTTPRequestHandler):
    """A connection."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "Microsoft-IIS/10.0", ""

    def serve(self):
        """Answers one call."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            user, token = accept(self.headers.get("Authorization"))
        except Refused as refusal:
            self.log_call(401, str(refusal))
            self.answer(401, [("WWW-Authenticate", "Negotiate"), ("Content-Type", "text/html")], PAGE)
            return
        try:
            status, headers, body = self.hand_on(user, body)
        except (OSError, http.client.HTTPException) as error:
            self.log_call(502, str(error))
            self.answer(502, [("Content-Type", "text/html")], PAGE)
            return
        self.log_call(status, user)
        self.answer(status, headers + [("WWW-Authenticate", "Negotiate " + token)], body)

    do_GET = do_PUT = do_POST = do_DELETE = serve

    def hand_on(self, user, body):
        """Calls the simulator in the caller's name."""
        upstream = http.client.HTTPConnection(UPSTREAM_HOST, int(UPSTREAM_PORT))
        headers = {
            name: value
            for name, value in self.headers.items()
            if name.lower() not in HOP_BY_HOP | {"authorization", "x-remote-user"}
        }
        headers["X-Remote-User"] = user
        upstream.request(self.command, self.path, body or None, headers)
        with upstream.getresponse() as answer:
            kept = [pair for pair in answer.getheaders() if pair[0].lower() not in HOP_BY_HOP]
            return answer.status, kept, answer.read()

    def answer(self, status, headers, body):
        """Writes an answer with its length."""
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_call(self, status, what):
        """Prints what became of a call."""
        print(self.command, self.path, status, what, flush=True)

    def log_message(self, *_):
        """Its own lines say less."""


class Server(http.server.ThreadingHTTPServer):
    """A listener whose handshakes delay no other."""

    daemon_threads = True

    def handle_error(self, request, client_address):
        """A client that went away is no news; anything else is."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
tls.load_cert_chain(f"{DIRECTORY}/server.pem", f"{DIRECTORY}/server.key")
server = Server(("127.0.0.1", int(PORT)), Handler)
server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
server.serve_forever()
