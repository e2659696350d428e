"""What the kernel would announce, in its order; nobody below knows who listens."""

from mdevfs.events.stream import Event, EventStream, holding

__all__ = ["Event", "EventStream", "holding"]
