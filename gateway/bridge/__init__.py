"""The bridge: ports that are on a network, served to the core as Unix sockets.

The core has no access to the network, so that nobody reaches a siren through it. What is on a
network (a digitiser's TCP port, a terminal server, a datacast) is opened here, in a process of its
own, and its raw bytes are served at RUN/ports/NAME, which the core opens as any port. The bridge
knows no protocol of any device, no plan and no siren, and forwards bytes only.

=======================  ======================================================================
``socket://host:port``   raw TCP, as digitisers and device servers give it
``rfc2217://host:port``  a terminal server whose line is set as the profile says (RFC 2217)
``udp://address:port``   datagrams sent to that port here, their bytes one after the other; the
                         address of a multicast group joins it. One way: what the core says is
                         dropped
=======================  ======================================================================

A socket in RUN/ports is there while its peer is: the core sees a lost peer as a port that went
away, and a new connection as one that was opened, so that its driver sets the device anew.
"""
