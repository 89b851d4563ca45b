"""A client that binds its token to the TLS channel, or does not.

    bound.py URL CA-FILE HASH|none|wrong

Prints the status of the answer and whether the server proved itself.
"""

import base64
import hashlib
import http.client
import ssl
import sys
from urllib.parse import urlsplit

import gssapi
from gssapi.raw import ChannelBindings

url, ca_file, binding = sys.argv[1:]
parts = urlsplit(url)
trust = ssl.create_default_context(cafile=ca_file)
wire = http.client.HTTPSConnection(parts.hostname, parts.port, context=trust)
wire.connect()
certificate = wire.sock.getpeercert(binary_form=True)
bindings = None
if binding == "wrong":
    bindings = ChannelBindings(application_data=b"tls-server-end-point:" + bytes(32))
elif binding != "none":
    digest = hashlib.new(binding, certificate).digest()
    bindings = ChannelBindings(application_data=b"tls-server-end-point:" + digest)
service = gssapi.Name("HTTP@localhost", gssapi.NameType.hostbased_service)
spnego = gssapi.OID.from_int_seq("1.3.6.1.5.5.2")
flags = gssapi.RequirementFlag.mutual_authentication
context = gssapi.SecurityContext(
    name=service, mech=spnego, usage="initiate", flags=flags, channel_bindings=bindings
)
token = base64.b64encode(context.step()).decode()
wire.request("GET", parts.path + "?" + parts.query, headers={"Authorization": "Negotiate " + token})
answer = wire.getresponse()
answer.read()
proof = answer.getheader("WWW-Authenticate", "").partition(" ")[2]
if proof:
    context.step(base64.b64decode(proof))
print(answer.status, "proved" if context.complete else "unproved")
