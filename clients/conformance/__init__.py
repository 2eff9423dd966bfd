"""Contract tests over the wire, against any implementation of the protocol, in any language.

A check is one clause of ``docs/protocol.md``: it calls the server as any client would and raises
:class:`~clients.conformance.suite.Violated` with what the server did instead. The subjects (``task``, ``inner``,
``outer``) each have a folder: ``subject.py`` reaches the implementation and cleans up after itself, the other modules
hold its checks.
"""
