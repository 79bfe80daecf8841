//! Ports that stay ours: picked outside the range that the kernel gives to outgoing connections.
//!
//! A receiver goes away and comes back on the same port, and Envoy connects to that port in between. With a port of the
//! ephemeral range some outgoing connection could take it meanwhile, or even connect to itself.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// Below Linux's default `ip_local_port_range` (32768 and up) and above the well-known ports.
const FIRST: u32 = 12_000;
const COUNT: u32 = 20_000;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A TCP port of the loopback interface that nobody listens on and that this process has not handed out before.
pub fn free_port() -> u16 {
    // Processes start at different places, so that two test binaries side by side rarely try the same port.
    let start = std::process::id().wrapping_mul(97);
    for _ in 0..COUNT {
        let offset = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let port = (FIRST + offset) as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between {FIRST} and {}", FIRST + COUNT)
}
