"""What a round of split steps should take, from what its parts take: the formulas of 1.7 of the specification.

With t_cl a client's own computing in a step, t_net its four messages on a link of its own, t_srv(K) the server's
computing for the rows of K clients together, and eta(K) = K t_srv(1) / t_srv(K):

    serial         K (t_cl + t_net + t_srv(1))
    loops          K (t_cl + t_net) + t_srv(K)           one batch at the server, client after client outside of it
    overlapped     t_cl + t_net + (K - 1) 4 n / W + t_srv(K)                n bytes of a message, W the server's link
    hierarchical   ceil(K / G) (t_cl + t_net + t_srv(1)) + t_average        G sub-servers, averaged every step
    two in flight  K / min(K / (t_cl + t_net + t_srv(1)), K / t_srv(K), W / (4 n))       the asynchronous bound

Times of a step of all K clients, in seconds.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["COURSES", "Course", "Parts"]

Course = Literal["serial", "loops", "overlapped", "hierarchical", "two in flight"]
COURSES: tuple[Course, ...] = ("serial", "loops", "overlapped", "hierarchical", "two in flight")


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What the parts of a step take."""

    client_s: float
    """A client's computing."""
    server_s: dict[int, float] = field(default_factory=dict[int, float])
    """The server's, by how many clients pass together."""
    latency_s: float
    """One way."""
    message_bytes: float
    """Of one of the four messages."""
    client_bytes_s: float
    """What a client's link carries in a second."""
    server_bytes_s: float
    """What the server's does."""
    average_s: float = 0.0
    """An average over the sub-servers."""

    @property
    def net_s(self) -> float:
        """A step's four messages on a link that nobody else is on."""
        return 4 * (self.latency_s + self.message_bytes / self.client_bytes_s)

    @property
    def queue_s(self) -> float:
        """What each further client adds on the server's link."""
        return 4 * self.message_bytes / self.server_bytes_s

    def eta(self, clients: int) -> float:
        """Return how many times as fast rows pass together as client after client, between 1 and K."""
        return clients * self.server_s[1] / self.server_s[clients]

    def share(self) -> float:
        """Return phi, the server's share of a client's step alone."""
        return self.server_s[1] / (self.client_s + self.net_s + self.server_s[1])

    def predicted_s(self, course: Course, clients: int, *, servers: int = 2) -> float:
        """Return the seconds of a step of so many clients."""
        alone_s, together_s = self.client_s + self.net_s + self.server_s[1], self.server_s[clients]
        if course == "serial":
            return clients * alone_s
        if course == "loops":
            return clients * (self.client_s + self.net_s) + together_s
        if course == "overlapped":
            return self.client_s + self.net_s + (clients - 1) * self.queue_s + together_s
        if course == "hierarchical":
            return math.ceil(clients / servers) * alone_s + self.average_s
        return max(alone_s, together_s, clients * self.queue_s)
