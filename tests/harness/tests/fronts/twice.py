"""A client that logs in with its first call and not with its second, on one connection.

    twice.py URL

Prints the status of each answer.
"""

import base64
import http.client
import sys
from urllib.parse import urlsplit

import gssapi

parts = urlsplit(sys.argv[1])
service = gssapi.Name("HTTP@localhost", gssapi.NameType.hostbased_service)
spnego = gssapi.OID.from_int_seq("1.3.6.1.5.5.2")
context = gssapi.SecurityContext(name=service, mech=spnego, usage="initiate")
token = base64.b64encode(context.step()).decode()
wire = http.client.HTTPConnection(parts.hostname, parts.port)
wire.connect()
socket = wire.sock
for headers in [{"Authorization": "Negotiate " + token}, {}]:
    wire.request("GET", parts.path + "?" + parts.query, headers=headers)
    answer = wire.getresponse()
    answer.read()
    assert wire.sock is socket, "the server closed the connection"
    print(answer.status)
