"""Whether a driver's handshake and the load of its device state agree: `mdevfs driver test`."""
