//! Datagram sockets of flows: UDP and ICMP echo.
