//! What only the operating system can do: namespaces, netlink, isolation.

pub mod netlink;
